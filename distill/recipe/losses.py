"""The losses section of a recipe: a preset, or terms over a preset, and what they come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from distill.losses.presets import NEEDS, PRESETS, Needs
from distill.recipe.base import Count, NonNegative, Positive, Section, Text, by_type

PresetName = Literal["default", "clip_kd", "tinyclip", "mobileclip", "dime"]
Scale = Annotated[
    Literal["own", "teacher"] | Positive,
    by_type(
        "own, teacher, or how many times the teacher's scale it is",
        {str: Literal["own", "teacher"], int: Positive, float: Positive},
    ),
]
BelowOne = Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)]


class Schedule(Section):
    """How a term's weight changes over the run."""

    kind: Literal["linear", "cosine"] = "linear"
    """A straight line, or half a cosine."""
    end: NonNegative = 0.0
    """The weight at the end of the run."""


class TermEntry(Section):
    """What every term has beside its own arguments."""

    # Fields that are no arguments of the term's function.
    options: ClassVar[frozenset[str]] = frozenset()

    weight: NonNegative | None = None
    """Factor of the term; 0 removes it; null: the preset's."""
    schedule: Schedule | None = None
    """How the weight goes from its value at the start to another; null: it stays."""


class KlDivergenceEntry(TermEntry):
    """Matches the teacher's distributions over the batch, both ways."""

    options = frozenset({"scale"})

    temperature: Positive = 1.0
    """What both models' logits are divided by."""
    scale: Scale = "own"
    """The student's logit scale: its own, the teacher's, or so many times the teacher's."""


class EmbeddingAlignmentEntry(TermEntry):
    """Pulls each embedding to the teacher's of the same picture or text."""

    options = frozenset({"mask_ratio", "mask_patch"})

    kind: Literal["cosine", "mse", "smooth_l1"] = "cosine"
    """One minus the cosine, the squared error, or the Huber error."""
    mask_ratio: BelowOne = 0.0
    """Share of each picture hidden from the student for this term (MFD); 0: nothing."""
    mask_patch: Count = 16
    """Side of the squares that are hidden, in the student's pixels."""


class ContrastiveEntry(TermEntry):
    """Tells true pairs from all others (InfoNCE)."""


class InteractiveContrastiveEntry(TermEntry):
    """Tells the teacher's partners of the student's rows from all others (ICL)."""

    options = frozenset({"scale"})

    scale: Scale = "own"
    """The student's logit scale: its own, the teacher's, or so many times the teacher's."""


class RelationalEntry(TermEntry):
    """Matches how the teacher relates pictures to each other, and texts."""

    temperature: Positive = 1.0
    """What both models' logits are divided by."""


class SoftTargetEntry(TermEntry):
    """Contrasts with a target that knows which rows of the batch resemble each other."""

    temperature: Positive = 1.0
    """What the target's logits are divided by."""


class SigmoidContrastiveEntry(TermEntry):
    """Judges every picture and caption of the batch by itself: a pair or not (SigLIP)."""


class PromptKlEntry(TermEntry):
    """Matches the teacher's distribution of each picture over a fixed bank of texts."""

    options = frozenset({"bank", "bank_size"})

    temperature: Positive = 1.0
    """What both models' logits are divided by."""
    bank: Text | None = None
    """A file with one text a line; null: data.labels, or captions of the training data."""
    bank_size: Count = 1024
    """How many captions are drawn where no file and no labels are given."""


class CorpusContrastiveEntry(TermEntry):
    """Tells a row's true partners in the teacher's cache from everything else there."""

    options = frozenset({"samples", "scale"})

    scale: Scale = "own"
    """The student's logit scale: its own, the teacher's, or so many times the teacher's."""
    samples: Count = 16384
    """How many captions, and how many pictures, are drawn anew for each step."""


class CorpusKlEntry(CorpusContrastiveEntry):
    """Matches the teacher's distributions over its cached captions and pictures."""

    temperature: Positive = 1.0
    """What both models' logits are divided by."""


class CorpusRelationalEntry(CorpusKlEntry):
    """Matches how the teacher relates pictures to its cached pictures, and captions to captions."""


ENTRIES: Mapping[str, type[TermEntry]] = {
    "kl_divergence": KlDivergenceEntry,
    "embedding_alignment": EmbeddingAlignmentEntry,
    "contrastive": ContrastiveEntry,
    "interactive_contrastive": InteractiveContrastiveEntry,
    "relational": RelationalEntry,
    "soft_target": SoftTargetEntry,
    "sigmoid_contrastive": SigmoidContrastiveEntry,
    "prompt_kl": PromptKlEntry,
    "corpus_kl": CorpusKlEntry,
    "corpus_contrastive": CorpusContrastiveEntry,
    "corpus_relational": CorpusRelationalEntry,
}


def _weight_or(entry: type[TermEntry]) -> Any:
    return by_type(
        "a weight, or a map with weight, schedule and the term's own arguments",
        {dict: entry, int: NonNegative, float: NonNegative},
    )


class Losses(Section):
    """The terms of the loss; each replaces the preset's of the same name field by field."""

    preset: PresetName | None = None
    """The terms to begin with; null: none."""
    kl_divergence: Annotated[
        NonNegative | KlDivergenceEntry | None, _weight_or(KlDivergenceEntry)
    ] = None
    """Matches the teacher's distributions over the batch, both ways."""
    embedding_alignment: Annotated[
        NonNegative | EmbeddingAlignmentEntry | None, _weight_or(EmbeddingAlignmentEntry)
    ] = None
    """Pulls each embedding to the teacher's of the same picture or text."""
    contrastive: Annotated[NonNegative | ContrastiveEntry | None, _weight_or(ContrastiveEntry)] = (
        None
    )
    """Tells true pairs from all others (InfoNCE)."""
    interactive_contrastive: Annotated[
        NonNegative | InteractiveContrastiveEntry | None, _weight_or(InteractiveContrastiveEntry)
    ] = None
    """Tells the teacher's partners of the student's rows from all others (ICL)."""
    relational: Annotated[NonNegative | RelationalEntry | None, _weight_or(RelationalEntry)] = None
    """Matches how the teacher relates pictures to each other, and texts."""
    soft_target: Annotated[NonNegative | SoftTargetEntry | None, _weight_or(SoftTargetEntry)] = None
    """Contrasts with a target that knows which rows of the batch resemble each other."""
    sigmoid_contrastive: Annotated[
        NonNegative | SigmoidContrastiveEntry | None, _weight_or(SigmoidContrastiveEntry)
    ] = None
    """Judges every picture and caption of the batch by itself: a pair or not (SigLIP)."""
    prompt_kl: Annotated[NonNegative | PromptKlEntry | None, _weight_or(PromptKlEntry)] = None
    """Matches the teacher's distribution of each picture over a fixed bank of texts."""
    corpus_kl: Annotated[NonNegative | CorpusKlEntry | None, _weight_or(CorpusKlEntry)] = None
    """Matches the teacher's distributions over its cached captions and pictures."""
    corpus_contrastive: Annotated[
        NonNegative | CorpusContrastiveEntry | None, _weight_or(CorpusContrastiveEntry)
    ] = None
    """Tells a row's true partners in the teacher's cache from everything else there."""
    corpus_relational: Annotated[
        NonNegative | CorpusRelationalEntry | None, _weight_or(CorpusRelationalEntry)
    ] = None
    """Matches how the teacher relates pictures to its cached pictures, and captions to captions."""


LossesField = Annotated[
    PresetName | Losses,
    by_type("the name of a preset, or a map of terms", {str: PresetName, dict: Losses}),
]


@dataclass(frozen=True)
class ResolvedTerm:
    """A term with every value filled in.

    ``arguments`` are the function's own, ``options`` what a recipe sets beside them.
    """

    weight: float
    schedule: Literal["none", "linear", "cosine"]
    end: float
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    needs: Needs

    @property
    def needs_texts(self) -> bool:
        """Whether it needs captions and both towers."""
        return self.needs.texts

    @property
    def needs_equal_width(self) -> bool:
        """Whether student and teacher must be equally wide."""
        return self.needs.equal_width


def expand(losses: str | Losses) -> dict[str, TermEntry]:
    """Return the terms of a recipe with the preset's merged in, those of weight 0 left out.

    A term that begins at 0 and has a schedule of its own in the recipe stays: it comes in later.

    Raises:
        KeyError: a term has no weight, in the recipe or in its preset; the argument names it.
    """
    section = Losses.model_validate({"preset": losses}) if isinstance(losses, str) else losses
    preset = PRESETS[section.preset].terms if section.preset else {}
    terms: dict[str, TermEntry] = {}
    for name, entry_type in ENTRIES.items():
        own = _own_fields(getattr(section, name))
        if own is None and name not in preset:
            continue
        entry = entry_type.model_validate(_merge(preset.get(name, {}), own or {}))
        if entry.weight is None:
            raise KeyError(name)
        schedule = entry.schedule if own and own.get("schedule") else None
        comes_later = schedule is not None and schedule.end > 0
        if entry.weight > 0 or comes_later:
            terms[name] = entry
    return terms


def resolve_terms(losses: str | Losses) -> dict[str, ResolvedTerm]:
    """Return the terms of a recipe as the loss takes them."""
    return {
        name: ResolvedTerm(
            weight=float(entry.weight or 0.0),
            schedule="none" if entry.schedule is None else entry.schedule.kind,
            end=0.0 if entry.schedule is None else entry.schedule.end,
            arguments=entry.model_dump(exclude={"weight", "schedule", *entry.options}),
            options=entry.model_dump(include=set(entry.options)),
            needs=NEEDS[name],
        )
        for name, entry in expand(losses).items()
    }


def _own_fields(entry: float | TermEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    if isinstance(entry, TermEntry):
        return entry.model_dump(exclude_unset=True)
    return {"weight": float(entry)}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(under, value)
        # A weight of null means the preset's, as its sentence says.
        elif key != "weight" or value is not None:
            merged[key] = value
    return merged
