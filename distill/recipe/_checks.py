"""Check the fields of a recipe against each other, once each field is valid on its own.

Each check yields the dotted path of a field, and what is wrong with it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from distill.recipe.base import as_tuple
from distill.recipe.cache import CacheSection
from distill.recipe.evaluate import EvaluationEntry
from distill.recipe.student import StudentHf, StudentSection, StudentTowers
from distill.recipe.teachers import TeacherSection
from distill.recipe.train import TrainSection
from distill.recipe.views import ViewsSection

Mistakes = Iterator[tuple[str, str]]

# A teacher with a smaller share of the largest weight would be lost in float32.
_LEAST_SHARE = 1e-6


def check_length(train: TrainSection) -> Mistakes:
    """Check that a run has exactly one length."""
    if train.steps is not None and train.epochs is not None:
        yield "train.steps", f"found {train.steps} and epochs {train.epochs:g}; give only one"
    if train.steps is None and train.epochs is None:
        yield "train.steps", "missing, and so is train.epochs; give one of them"


def check_precision(train: TrainSection) -> Mistakes:
    """Check that optimizer and device can train in the precision."""
    if train.precision == "fp16" and train.optimizer == "muon":
        # Each optimizer would unscale the gradients and update the scale on its own.
        yield "train.precision", "fp16 does not work with optimizer: muon; set it to fp32 or bf16"
    if train.precision == "fp16" and train.device == "cpu":
        yield "train.precision", "fp16 does not train on a CPU; set it to fp32 or bf16"


def check_teachers(teachers: Sequence[TeacherSection], train: TrainSection) -> Mistakes:
    """Check that training has the teacher it needs, and check several teachers together."""
    if not teachers and train.teacher != "absent":
        found = f"found {train.teacher!r}, but the recipe has no teacher"
        yield "train.teacher", f"{found}; add one, or set it to absent"
    largest = max((entry.weight for entry in teachers), default=1.0)
    seen: dict[str, int] = {}
    for number, entry in enumerate(teachers):
        first = seen.setdefault(entry.model_dump_json(exclude={"weight"}), number)
        if first != number:
            yield f"teacher.{number}", f"the same as teacher.{first}; name it once, with its weight"
        if entry.weight / largest < _LEAST_SHARE:
            found = f"found {entry.weight:g}, too small next to the largest, {largest:g}"
            yield f"teacher.{number}.weight", f"{found}; raise it, or remove the teacher"


def check_student_section(
    student: StudentSection, teachers: Sequence[TeacherSection], train: TrainSection
) -> Mistakes:
    """Check the parts of a student against each other and against the teachers."""
    match student:
        case StudentTowers():
            yield from _towers(student, teachers)
            if student.projection_start == "ridge":
                yield from _ridge(student, teachers, train)
            yield from _image_tower(student)
            yield from _text_tower(student)
        case StudentHf():
            yield from _hf(student)


def _towers(student: StudentTowers, teachers: Sequence[TeacherSection]) -> Mistakes:
    if student.image is None and student.text is None:
        yield "student", "image and text are both null; a student has at least one tower"
    if student.width is None and student.start is None and not teachers:
        yield "student.width", "missing; give it, since the recipe has no teacher to take it from"


def _ridge(
    student: StudentTowers, teachers: Sequence[TeacherSection], train: TrainSection
) -> Mistakes:
    field = "student.projection_start"
    if student.start is not None:
        yield field, "ridge would undo what student.start has learned; remove one of them"
    if not teachers or train.teacher != "cached":
        yield (
            field,
            "ridge needs the teacher's cache; set train.teacher: cached, or set it to random",
        )
    for name in ("image", "text"):
        tower = getattr(student, name)
        if tower is not None and tower.projection != "linear":
            yield (
                f"student.{name}.projection",
                f"found {tower.projection!r}, but projection_start: ridge needs linear",
            )


def _image_tower(student: StudentTowers) -> Mistakes:
    image = student.image
    if image is not None and image.weights is not None and not image.pretrained:
        yield "student.image.weights", "given together with pretrained: false; remove one of them"


def _text_tower(student: StudentTowers) -> Mistakes:
    text = student.text
    if text is None:
        return
    if text.config is not None and text.pretrained:
        yield (
            "student.text.pretrained",
            "true, but a tower built from a config has no weights; set it to false",
        )
    if text.model is None and text.config is None:
        yield "student.text.model", "missing, and so is student.text.config; give one of them"
    if text.model is None and text.config is not None and text.tokenizer is None:
        yield "student.text.tokenizer", "missing; give it, since there is no model to take it from"
    if text.config is not None and text.keep_every > 1:
        yield (
            "student.text.keep_every",
            f"found {text.keep_every} together with a config; set its num_hidden_layers instead",
        )


def _hf(student: StudentHf) -> Mistakes:
    if student.start is not None:
        for name in ("model", "config"):
            if getattr(student, name) is not None:
                yield f"student.{name}", "given together with student.start; remove one of them"
    elif student.model is None and student.config is None:
        yield "student.model", "missing; give a model, a config, or student.start"
    elif student.config is not None and student.pretrained:
        yield (
            "student.pretrained",
            "true, but a model built from a config has no weights; set it to false",
        )


def check_frozen(student: StudentSection, train: TrainSection) -> Mistakes:
    """Check that the student has each tower that training freezes."""
    if not isinstance(student, StudentTowers) or student.start is not None:
        return
    for tower in ("image", "text"):
        if getattr(train, f"freeze_{tower}_steps") and getattr(student, tower) is None:
            yield f"train.freeze_{tower}_steps", f"given, but the student has no {tower} tower"


def check_views(views: ViewsSection, cache: CacheSection) -> Mistakes:
    """Check the ranges of the views, and that identical views are not cached twice."""
    for name in ("scale", "ratio"):
        low, high = getattr(views, name)
        if low > high:
            yield f"views.{name}", f"found [{low:g}, {high:g}], the first must be ≤ the second"
    if views.kind == "center" and cache.views > 1:
        yield (
            "cache.views",
            f"found {cache.views}, must be 1 with views.kind: center, which has only one view",
        )
    if views.kind == "center" and views.rand_augment is not None:
        yield "views.rand_augment", "only views.kind: random uses it; remove it"


def check_evaluations(
    evaluate: EvaluationEntry | Sequence[EvaluationEntry] | None, *, taught: bool, labelled: bool
) -> Mistakes:
    """Check the evaluation sets.

    Args:
        evaluate: The sets.
        taught: Whether the recipe has a teacher.
        labelled: Whether the recipe has labels.
    """
    several = isinstance(evaluate, Sequence)
    entries = as_tuple(evaluate)
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            yield "evaluate", f"{count} sets are called {name!r}; give each its own name"
    for number, entry in enumerate(entries):
        path = f"evaluate.{number}" if several else "evaluate"
        for field in ("templates", "classes"):
            if entry.task == "retrieval" and getattr(entry, field) is not None:
                yield f"{path}.{field}", "only zero_shot and agreement use it; remove it"
        if entry.task != "agreement":
            continue
        if not taught:
            yield f"{path}.task", "agreement compares with the teacher, and the recipe has none"
        if entry.classes is None and not labelled:
            yield (
                f"{path}.classes",
                "missing, and so is data.labels; agreement needs labels, so give one of them",
            )
