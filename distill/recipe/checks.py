"""Checks across the fields of a recipe, made once every field by itself is right."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from distill.losses.catalogue import TERMS
from distill.losses.presets import PRESETS
from distill.recipe.losses import LossesField, TermEntry, expand
from distill.recipe.student import StudentHf, StudentTowers

if TYPE_CHECKING:
    from distill.recipe.config import RunConfig

# Of the largest weight of an ensemble: of a smaller one float32 would hold little.
LEAST_SHARE = 1e-6


def cross_errors(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Yield the dotted path and the text of everything that does not fit together."""
    yield from _length(config)
    yield from _teacher(config)
    match config.student:
        case StudentTowers() as student:
            yield from _towers(config, student)
        case StudentHf() as student:
            yield from _hf(student)
    yield from _losses(config)
    yield from _alignment_first(config)
    yield from _locked(config)
    yield from _views(config)
    yield from _evaluations(config)
    if config.train.precision == "fp16" and config.train.optimizer == "muon":
        # Each optimizer would unscale the gradients and move the scale for itself.
        yield "train.precision", "fp16 does not go with optimizer: muon; set it to fp32 or bf16"
    if config.train.precision == "fp16" and config.train.device == "cpu":
        yield "train.precision", "fp16 does not train on a CPU; set it to fp32 or bf16"


def _length(config: "RunConfig") -> Iterator[tuple[str, str]]:
    steps, epochs = config.train.steps, config.train.epochs
    if steps is not None and epochs is not None:
        yield (
            "train.steps",
            f"found {steps} beside epochs {epochs:g}; leave one of them out, or null",
        )
    if steps is None and epochs is None:
        yield "train.steps", "missing, as train.epochs is; give one of them"


def _teacher(config: "RunConfig") -> Iterator[tuple[str, str]]:
    mode = config.train.teacher
    if not config.teachers and mode != "absent":
        yield "train.teacher", f"found {mode!r}, but the recipe has no teacher; add one, or absent"
    yield from _ensemble(config)


def _ensemble(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Check the teachers of a list against each other."""
    largest = max((entry.weight for entry in config.teachers), default=1.0)
    seen: dict[str, int] = {}
    for number, entry in enumerate(config.teachers):
        first = seen.setdefault(entry.model_dump_json(exclude={"weight"}), number)
        if first != number:
            yield f"teacher.{number}", f"the same as teacher.{first}; name it once, with its weight"
        if entry.weight / largest < LEAST_SHARE:
            found = f"found {entry.weight:g} beside {largest:g}, which leaves nothing of it"
            yield f"teacher.{number}.weight", f"{found}; raise it, or leave the teacher out"


def _towers(config: "RunConfig", student: StudentTowers) -> Iterator[tuple[str, str]]:
    if student.image is None and student.text is None:
        yield "student", "image and text are both null; a student has at least one tower"
    if student.width is None and student.start is None and not config.teachers:
        yield "student.width", "missing; required where the recipe has no teacher to take it from"
    if student.projection_start == "ridge":
        yield from _ridge(config, student)
    image, text = student.image, student.text
    if image is not None and image.weights is not None and not image.pretrained:
        yield "student.image.weights", "given beside pretrained: false; leave one of them out"
    if text is None:
        return
    if text.config is not None and text.pretrained:
        yield (
            "student.text.pretrained",
            "true, but a tower built from a config has no weights; set it to false",
        )
    if text.model is None and text.config is None:
        yield "student.text.model", "missing, as student.text.config is; give one of them"
    if text.model is None and text.config is not None and text.tokenizer is None:
        yield "student.text.tokenizer", "missing; required where no model brings one"
    if text.config is not None and text.keep_every > 1:
        yield (
            "student.text.keep_every",
            f"found {text.keep_every} beside a config; set its num_hidden_layers instead",
        )


def _ridge(config: "RunConfig", student: StudentTowers) -> Iterator[tuple[str, str]]:
    field = "student.projection_start"
    if student.start is not None:
        yield field, "ridge would undo what student.start has learned; leave one of them out"
    if not config.teachers or config.train.teacher != "cached":
        yield field, "ridge needs the teacher's cache; set train.teacher: cached, or random here"
    for name in ("image", "text"):
        tower = getattr(student, name)
        if tower is not None and tower.projection != "linear":
            yield (
                f"student.{name}.projection",
                f"found {tower.projection!r}, but projection_start: ridge solves linear ones alone",
            )


def _hf(student: StudentHf) -> Iterator[tuple[str, str]]:
    if student.start is not None:
        for name in ("model", "config"):
            if getattr(student, name) is not None:
                yield f"student.{name}", "given beside student.start; leave one of them out"
    elif student.model is None and student.config is None:
        yield "student.model", "missing; give a model, a config, or start from an earlier student"
    elif student.config is not None and student.pretrained:
        yield (
            "student.pretrained",
            "true, but a model built from a config has no weights; set it to false",
        )


def _losses(config: "RunConfig") -> Iterator[tuple[str, str]]:
    try:
        terms = expand(config.losses)
    except KeyError as error:
        name = error.args[0]
        yield f"losses.{name}.weight", "missing, must be a number ≥ 0, as no preset gives one"
        return
    if not terms:
        yield "losses", f"no term is left; give one of {', '.join(TERMS)} a weight above 0"
    taught = bool(config.teachers) and config.train.teacher != "absent"
    lonely = [name for name in terms if TERMS[name].needs_teacher]
    if lonely and not taught:
        why = "train.teacher is absent" if config.teachers else "the recipe has no teacher"
        names = " and ".join(lonely)
        single = isinstance(config.student, StudentTowers) and config.student.single
        ways_out = (
            "give a teacher" if single else "write losses: {contrastive: 1}, or give a teacher"
        )
        yield "losses", f"{names} cannot do without a teacher, and {why}; {ways_out}"
    if taught and config.train.teacher != "cached":
        yield from _corpus(config, [name for name in terms if TERMS[name].needs_corpus])
    if isinstance(config.student, StudentTowers) and config.student.start is None:
        yield from _terms_of_towers(config.student, terms, named=_named(config.losses))


def _named(losses: LossesField) -> frozenset[str]:
    """Return the terms that a recipe itself names; the others are its preset's."""
    return frozenset(() if isinstance(losses, str) else losses.model_fields_set)


def _corpus(config: "RunConfig", drawing: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with terms that draw from a cache where there is none."""
    losses, mode = config.losses, config.train.teacher
    preset = losses if isinstance(losses, str) else losses.preset
    of_preset = [name for name in drawing if preset and name in PRESETS[preset].terms]
    if of_preset:
        others = [
            name
            for name, other in PRESETS.items()
            if not any(TERMS[term].needs_corpus for term in other.terms)
        ]
        names = " and ".join(of_preset)
        found = f"{names} of the preset {preset} draw from the teacher's cache, and train.teacher"
        way_out = f"or take a preset that needs no cache: {', '.join(others)}"
        yield "losses", f"{found} is {mode}; set it to cached, {way_out}"
    for name in drawing:
        if name not in of_preset:
            found = f"it draws from the teacher's cache, and train.teacher is {mode}"
            yield f"losses.{name}", f"{found}; set it to cached, or remove the term"


def _terms_of_towers(
    student: StudentTowers, terms: dict[str, TermEntry], *, named: frozenset[str]
) -> Iterator[tuple[str, str]]:
    for name, term in terms.items():
        way_out = "remove it" if name in named else "set it to 0"
        if student.single and TERMS[name].needs_texts:
            yield f"losses.{name}", f"it needs both towers, and the student has one; {way_out}"
        if student.image is None and TERMS[name].needs_images:
            yield f"losses.{name}", f"it needs an image tower, and the student has none; {way_out}"
        ratio = getattr(term, "mask_ratio", 0.0) if TERMS[name].masked else 0.0
        if student.image is None and ratio:
            found = f"found {ratio:g}, but the student has no image tower"
            yield f"losses.{name}.mask_ratio", f"{found}; set it to 0"


def _alignment_first(config: "RunConfig") -> Iterator[tuple[str, str]]:
    try:
        terms = expand(config.losses)
    except KeyError:
        return  # reported as a missing weight
    aligning = [name for name, row in TERMS.items() if row.aligns]
    if config.train.alignment_first_steps and terms.keys().isdisjoint(aligning):
        found = f"given, but losses has no {' or '.join(aligning)}"
        yield "train.alignment_first_steps", f"{found}; add it, or leave this out"


def _locked(config: "RunConfig") -> Iterator[tuple[str, str]]:
    student = config.student
    if not isinstance(student, StudentTowers) or student.start is not None:
        return
    for tower in ("image", "text"):
        if getattr(config.train, f"freeze_{tower}_steps") and getattr(student, tower) is None:
            yield f"train.freeze_{tower}_steps", f"given, but the student has no {tower} tower"


def _views(config: "RunConfig") -> Iterator[tuple[str, str]]:
    for name in ("scale", "ratio"):
        low, high = getattr(config.views, name)
        if low > high:
            yield f"views.{name}", f"found [{low:g}, {high:g}], the first must be ≤ the second"
    if config.views.kind == "center" and config.cache.views > 1:
        yield (
            "cache.views",
            f"found {config.cache.views}, must be 1 with views.kind: center, whose views are alike",
        )
    if config.views.kind == "center" and config.views.rand_augment is not None:
        yield "views.rand_augment", "only kind: random has a use for it; leave it out"


def _evaluations(config: "RunConfig") -> Iterator[tuple[str, str]]:
    entries = config.evaluation_entries
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            yield "evaluate", f"{count} sets are called {name!r}; give each a name of its own"
    for number, entry in enumerate(entries):
        path = f"evaluate.{number}" if isinstance(config.evaluate, tuple) else "evaluate"
        for field in ("templates", "classes"):
            if entry.task == "retrieval" and getattr(entry, field) is not None:
                yield f"{path}.{field}", "only zero_shot and agreement use it; leave it out"
        if entry.task != "agreement":
            continue
        if not config.teachers:
            yield f"{path}.task", "agreement is with the teacher, and the recipe has none"
        if entry.classes is None and config.data.labels is None:
            yield f"{path}.classes", "missing, as data.labels is; agreement is about labels"
