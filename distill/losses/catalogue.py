"""The catalogue of loss terms: one row describes everything about a term.

The catalogue is plain data. A row names the function of its term without importing it, so reading
a recipe loads no torch. The section of the recipe, its schema and checks, the weighted sum, what
the teacher embeds, and the table in docs/losses.md all follow from the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# What the function of a term may take; the names are those of its parameters:
# - student, teacher: `distill.losses.embeddings.Embeddings` of the batch;
# - student_image, teacher_image, student_scale, teacher_scale: parts of them, as tensors;
# - groups: which rows of the batch are true pairs of each other;
# - bank: the teacher's embeddings of a fixed list of texts;
# - corpus_image, corpus_text: the teacher's embeddings of pictures and captions of the corpus;
# - image_partners, text_partners: the rows of the corpus that truly belong to rows of the batch.
Input = Literal[
    "student",
    "teacher",
    "student_image",
    "teacher_image",
    "student_scale",
    "teacher_scale",
    "groups",
    "bank",
    "corpus_image",
    "corpus_text",
    "image_partners",
    "text_partners",
]
_WITHOUT_A_TEACHER: frozenset[Input] = frozenset(
    {"student", "student_image", "student_scale", "groups"}
)


@dataclass(frozen=True)
class Number:
    """A finite number greater than ``above``, at least ``least``, and less than ``below``."""

    above: float | None = None
    least: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Whole:
    """A whole number of at least ``least``."""

    least: int


@dataclass(frozen=True)
class Line:
    """A text of at least one character, or null."""


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceOrNumber:
    """One of some names, or a number; ``expected`` names both in an error."""

    names: tuple[str, ...]
    number: Number
    expected: str


@dataclass(frozen=True)
class TermField:
    """A field that a term has in a recipe, besides its weight and schedule.

    An ``argument`` is passed to the term's function under the same name. Any other field is an
    option: `WeightedLoss` or the trainer acts on it.
    """

    name: str
    sentence: str
    values: Number | Whole | Line | Choice | ChoiceOrNumber
    default: str | float | None
    argument: bool = False


@dataclass(frozen=True)
class TermRow:
    """Everything about a loss term.

    Attributes:
        name: The term's name in recipes, and the name of its function.
        title: One sentence on what the term does.
        family: The module of ``distill.losses`` that holds the function.
        inputs: What the function takes before its own arguments, in order.
        towers: The towers it compares: "both" (the student must have two), those that student and
            teacher have in "common", the student's "own" (one or two), or the "image" tower.
        fields: Its fields in a recipe.
        equal_width: Whether student and teacher must be equally wide.
        each_teacher: Whether it is applied to each of several teachers and the values are averaged.
            Otherwise it takes their joined embeddings.
        compared: The part of the corpus that it compares a tower's rows with: the tower's "own"
            kind, the "other" kind, or None if it takes no corpus.
        within_batch: Whether it compares a pair with the others of its batch and nothing else.
        masked: Whether it takes partly hidden pictures of the student if a recipe sets
            ``mask_ratio``.
        aligns: Whether it is active in the ``alignment_first_steps`` of a recipe.
    """

    name: str
    title: str
    family: str
    inputs: tuple[Input, ...]
    towers: Literal["both", "common", "own", "image"]
    fields: tuple[TermField, ...] = ()
    equal_width: bool = False
    each_teacher: bool = False
    compared: Literal["own", "other"] | None = None
    within_batch: bool = False
    masked: bool = False
    aligns: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the fields that are arguments of the function."""
        return tuple(field.name for field in self.fields if field.argument)

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the fields that are not arguments of the function."""
        return tuple(field.name for field in self.fields if not field.argument)

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares the student with a teacher."""
        return not _WITHOUT_A_TEACHER.issuperset(self.inputs)

    @property
    def needs_texts(self) -> bool:
        """Whether it needs captions, and a student that has both towers."""
        return self.towers == "both"

    @property
    def needs_images(self) -> bool:
        """Whether it needs a student with an image tower."""
        return self.towers == "image"

    @property
    def needs_captions(self) -> bool:
        """Whether it needs captions, whichever towers the student has."""
        return self.needs_texts or self.compared == "other"

    @property
    def needs_pairs(self) -> bool:
        """Whether it needs captions that truly belong to their picture.

        Rows of the batch with a borrowed caption are left out.
        """
        return "groups" in self.inputs

    @property
    def needs_corpus(self) -> bool:
        """Whether it draws from the teacher's cache."""
        return self.compared is not None

    @property
    def needs_partners(self) -> bool:
        """Whether it needs the true partners of the rows in the corpus.

        Held-out data has none, so the term is not measured on it.
        """
        return "image_partners" in self.inputs

    @property
    def needs_prompts(self) -> bool:
        """Whether it needs a bank of texts."""
        return "bank" in self.inputs


_TEMPERATURE = TermField(
    "temperature",
    "Divides the logits of both models.",
    Number(above=0),
    default=1.0,
    argument=True,
)
_SCALE = TermField(
    "scale",
    "The student's logit scale: own, teacher, or a factor of the teacher's scale.",
    ChoiceOrNumber(
        ("own", "teacher"),
        Number(above=0),
        expected="own, teacher, or a factor of the teacher's scale",
    ),
    default="own",
)
_SAMPLES = TermField(
    "samples",
    "Number of captions, and of pictures, that each step draws anew.",
    Whole(least=1),
    default=16384,
)
_CORPUS: tuple[Input, ...] = ("corpus_image", "corpus_text")

_ROWS = (
    TermRow(
        "kl_divergence",
        "Matches the teacher's distributions over the batch, both ways.",
        family="distributions",
        inputs=("student", "teacher"),
        towers="both",
        fields=(_TEMPERATURE, _SCALE),
        each_teacher=True,
    ),
    TermRow(
        "embedding_alignment",
        "Pulls each embedding towards the teacher's embedding of the same picture or text.",
        family="alignment",
        inputs=("student", "teacher"),
        towers="common",
        fields=(
            TermField(
                "kind",
                "One minus the cosine, the squared error, or the Huber error.",
                Choice(("cosine", "mse", "smooth_l1")),
                default="cosine",
                argument=True,
            ),
            TermField(
                "mask_ratio",
                "Share of each picture that this term hides from the student (MFD).",
                Number(least=0, below=1),
                default=0.0,
            ),
            TermField(
                "mask_patch",
                "Side of the hidden squares, in pixels of the student's input.",
                Whole(least=1),
                default=16,
            ),
        ),
        equal_width=True,
        masked=True,
        aligns=True,
    ),
    TermRow(
        "contrastive",
        "Tells true pairs from all others (InfoNCE).",
        family="contrastive",
        inputs=("student", "groups"),
        towers="both",
        within_batch=True,
    ),
    TermRow(
        "interactive_contrastive",
        "Tells the teacher's partners of the student's rows from all others (ICL).",
        family="contrastive",
        inputs=("student", "teacher", "groups"),
        towers="both",
        fields=(_SCALE,),
        equal_width=True,
        within_batch=True,
    ),
    TermRow(
        "relational",
        "Matches how the teacher relates pictures to pictures, and texts to texts.",
        family="distributions",
        inputs=("student", "teacher"),
        towers="common",
        fields=(_TEMPERATURE,),
        each_teacher=True,
    ),
    TermRow(
        "soft_target",
        "Tells pairs apart, but less strictly if rows of the batch resemble each other.",
        family="contrastive",
        inputs=("student",),
        towers="both",
        fields=(
            TermField(
                "temperature",
                "Divides the logits of the target.",
                Number(above=0),
                default=1.0,
                argument=True,
            ),
        ),
        within_batch=True,
    ),
    TermRow(
        "sigmoid_contrastive",
        "Decides for each picture and caption of the batch whether they are a pair (SigLIP).",
        family="contrastive",
        inputs=("student", "groups"),
        towers="both",
        within_batch=True,
    ),
    TermRow(
        "prompt_kl",
        "Matches the teacher's distribution of each picture over a fixed bank of texts.",
        family="prompts",
        inputs=("student_image", "teacher_image", "bank", "student_scale", "teacher_scale"),
        towers="image",
        fields=(
            _TEMPERATURE,
            TermField(
                "bank",
                "File with one text per line; null: data.labels, or captions of the training data.",
                Line(),
                default=None,
            ),
            TermField(
                "bank_size",
                "Number of captions to draw if neither a file nor labels are given.",
                Whole(least=1),
                default=1024,
            ),
        ),
        equal_width=True,
    ),
    TermRow(
        "corpus_kl",
        "Matches the teacher's distributions over its cached captions and pictures.",
        family="corpus",
        inputs=("student", "teacher", *_CORPUS),
        towers="own",
        fields=(_SCALE, _SAMPLES, _TEMPERATURE),
        equal_width=True,
        compared="other",
    ),
    TermRow(
        "corpus_contrastive",
        "Tells each row's true partners in the teacher's cache from everything else in it.",
        family="corpus",
        inputs=("student", *_CORPUS, "image_partners", "text_partners"),
        towers="own",
        fields=(_SCALE, _SAMPLES),
        equal_width=True,
        compared="other",
    ),
    TermRow(
        "corpus_relational",
        "Matches how the teacher relates rows to its cached pictures or captions.",
        family="corpus",
        inputs=("student", "teacher", *_CORPUS),
        towers="own",
        fields=(_SCALE, _SAMPLES, _TEMPERATURE),
        equal_width=True,
        compared="own",
    ),
)

TERMS: Mapping[str, TermRow] = {row.name: row for row in _ROWS}
