"""The student at its start: built from the recipe, or loaded from an earlier run."""

from collections.abc import Callable

import torch

from distill.recipe.config import RunConfig
from distill.recipe.student import LOGIT_SCALE, StudentHf, StudentTowers
from distill.teacher.ensemble import Ensemble
from export.runtime.errors import RecipeError, StudentError
from export.runtime.preprocess import Preprocessing
from students.build import build_hf, build_towers
from students.encoder import MAX_LOGIT_SCALE, Student
from students.model import load_student
from students.switches import checkpoint_gradients

# Returns the teachers. Loading them may take long, so it is called only if a student needs them.
_Teachers = Callable[[], Ensemble | None]


def build_student(config: RunConfig, teachers: _Teachers) -> Student:
    """Return the student at its start; new weights follow from the recipe's seed.

    The random state of the process is left as it was. ``teachers`` is called only if width or
    logit scale follow from them.

    Raises:
        StudentError: It cannot be built, or some of its layers cannot be checkpointed.
        RecipeError: The recipe has neither a width nor a teacher to take it from.
    """
    section = config.student
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            if section.start is not None:
                student = _load_start(section.start)
            elif isinstance(section, StudentHf):
                student = build_hf(**section.build_arguments())
            else:
                student = build_towers(
                    width=_width(section, teachers),
                    logit_scale=_logit_scale(section, teachers),
                    **section.build_arguments(),
                )
            if config.train.gradient_checkpointing:
                checkpoint_gradients(student.model)
        except (ValueError, OSError) as error:
            raise StudentError(str(error)) from error
    return student


def student_preprocessing(student: Student) -> Preprocessing | None:
    """Return how pictures become a student's pixels, None if it has no image tower."""
    if student.image_processor is None:
        return None
    return Preprocessing.from_processor(student.image_processor.to_dict())


def _load_start(folder: str) -> Student:
    try:
        return load_student(folder)
    except (ValueError, OSError) as error:
        raise StudentError(f"student.start: {error}") from error


def _width(section: StudentTowers, teachers: _Teachers) -> int:
    if section.width is not None:
        return section.width
    teacher = teachers()
    if teacher is None:
        raise RecipeError("student.width: required if the recipe has no teacher")
    return teacher.width


def _logit_scale(section: StudentTowers, teachers: _Teachers) -> float:
    """Return the factor that the student's similarities start with.

    Two towers start with CLIP's. A single tower is used together with the teacher's other tower:
    its goal is the teacher's own embedding, so it takes the teacher's scale.
    """
    if section.logit_scale is not None:
        return section.logit_scale
    teacher = teachers() if section.single else None
    if teacher is None:
        return LOGIT_SCALE
    return min(teacher.logit_scale, MAX_LOGIT_SCALE)
