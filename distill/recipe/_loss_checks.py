"""Check a recipe's losses against its student, its teachers and its training."""

from collections.abc import Sequence

from distill.losses.catalogue import TERMS
from distill.losses.presets import PRESETS
from distill.recipe._checks import Mistakes
from distill.recipe.losses import LossesField, TermEntry, expand
from distill.recipe.student import StudentSection, StudentTowers
from distill.recipe.teachers import TeacherSection
from distill.recipe.train import TrainSection


def check_losses(
    losses: LossesField,
    student: StudentSection,
    teachers: Sequence[TeacherSection],
    train: TrainSection,
) -> Mistakes:
    """Check that the recipe has what each loss term needs."""
    try:
        terms = expand(losses)
    except KeyError as error:
        name = error.args[0]
        yield f"losses.{name}.weight", "missing, must be a number ≥ 0, since no preset gives one"
        return
    if not terms:
        yield "losses", f"no term is left; give one of {', '.join(TERMS)} a weight above 0"
    taught = bool(teachers) and train.teacher != "absent"
    lonely = [name for name in terms if TERMS[name].needs_teacher]
    if lonely and not taught:
        why = "train.teacher is absent" if teachers else "the recipe has no teacher"
        single = isinstance(student, StudentTowers) and student.single
        ways_out = (
            "give a teacher" if single else "write losses: {contrastive: 1}, or give a teacher"
        )
        names = " and ".join(lonely)
        needs = "needs" if len(lonely) == 1 else "need"
        yield "losses", f"{names} {needs} a teacher, but {why}; {ways_out}"
    if taught and train.teacher != "cached":
        drawing = [name for name in terms if TERMS[name].needs_corpus]
        yield from _corpus(losses, drawing, mode=train.teacher)
    if isinstance(student, StudentTowers) and student.start is None:
        yield from _terms_of_towers(student, terms, named=_named(losses))


def check_alignment(losses: LossesField, train: TrainSection) -> Mistakes:
    """Check that the recipe has a term for the steps that train alignment alone."""
    try:
        terms = expand(losses)
    except KeyError:
        return  # reported as a missing weight
    aligning = [name for name, row in TERMS.items() if row.aligns]
    if train.alignment_first_steps and terms.keys().isdisjoint(aligning):
        found = f"given, but losses has no {' or '.join(aligning)}"
        yield "train.alignment_first_steps", f"{found}; add it, or remove this field"


def _named(losses: LossesField) -> frozenset[str]:
    """Return the terms that the recipe names itself; the others come from its preset."""
    return frozenset(() if isinstance(losses, str) else losses.model_fields_set)


def _corpus(losses: LossesField, drawing: list[str], *, mode: str) -> Mistakes:
    """Check terms that draw from a cache, in a recipe that has none."""
    preset = losses if isinstance(losses, str) else losses.preset
    of_preset = [name for name in drawing if preset and name in PRESETS[preset].terms]
    if of_preset:
        others = [
            name
            for name, other in PRESETS.items()
            if not any(TERMS[term].needs_corpus for term in other.terms)
        ]
        names = " and ".join(of_preset)
        found = f"{names} of the preset {preset} draw from the teacher's cache, but train.teacher"
        way_out = f"or choose a preset that needs no cache: {', '.join(others)}"
        yield "losses", f"{found} is {mode}; set it to cached, {way_out}"
    for name in drawing:
        if name not in of_preset:
            found = f"draws from the teacher's cache, but train.teacher is {mode}"
            yield f"losses.{name}", f"{found}; set it to cached, or remove the term"


def _terms_of_towers(
    student: StudentTowers, terms: dict[str, TermEntry], *, named: frozenset[str]
) -> Mistakes:
    for name, term in terms.items():
        way_out = "remove it" if name in named else "set it to 0"
        if student.single and TERMS[name].needs_texts:
            yield f"losses.{name}", f"needs both towers, but the student has one; {way_out}"
        if student.image is None and TERMS[name].needs_images:
            yield f"losses.{name}", f"needs an image tower, but the student has none; {way_out}"
        ratio = getattr(term, "mask_ratio", 0.0) if TERMS[name].masked else 0.0
        if student.image is None and ratio:
            found = f"found {ratio:g}, but the student has no image tower"
            yield f"losses.{name}.mask_ratio", f"{found}; set it to 0"
