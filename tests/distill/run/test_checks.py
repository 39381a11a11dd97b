"""What is refused before a run begins, since a term could not be computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.config import RunConfig
from export.runtime.errors import DataError, StudentError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.run.checks import check_student
    from distill.run.project import Project

Configure = Callable[..., RunConfig]


def images(pictures: Path) -> dict[str, Any]:
    return {"train": {"kind": "images", "path": str(pictures.parent / "images")}}


def test_the_small_recipe_is_fine(configure: Configure) -> None:
    check_student(Project(configure()))


def test_equal_widths_are_required_by_terms_that_compare_vectors(configure: Configure) -> None:
    project = Project(configure(student={"width": 32}))
    with pytest.raises(StudentError, match=r"^losses\.embedding_alignment: .*32.*128"):
        check_student(project)
    check_student(Project(configure(student={"width": 32}, losses={"kl_divergence": 1})))


def test_ridge_needs_the_width_of_the_teacher(configure: Configure) -> None:
    student = {"width": 32, "projection_start": "ridge"}
    project = Project(configure(student=student, losses={"kl_divergence": 1}))
    with pytest.raises(StudentError, match=r"^student\.width: .*ridge.*128.*32"):
        check_student(project)


def test_an_earlier_student_of_one_tower_cannot_have_terms_of_both(
    configure: Configure, tmp_path: Path
) -> None:
    one = Project(configure(student={"text": None}, losses={"embedding_alignment": 1}))
    one.student.save(tmp_path / "one")
    project = Project(
        configure(student={"start": str(tmp_path / "one")}, losses={"kl_divergence": 1})
    )
    with pytest.raises(StudentError, match=r"^losses\.kl_divergence: .*both towers"):
        check_student(project)


def test_captions_are_required_by_terms_that_compare_texts(
    configure: Configure, pictures: Path
) -> None:
    project = Project(configure(losses={"kl_divergence": 1}, data=images(pictures)))
    with pytest.raises(DataError, match=r"^losses\.kl_divergence: needs captions"):
        check_student(project)


def test_a_new_text_tower_needs_captions(configure: Configure, pictures: Path) -> None:
    project = Project(configure(losses={"embedding_alignment": 1}, data=images(pictures)))
    with pytest.raises(DataError, match=r"^student\.text: .*student\.text: null"):
        check_student(project)
    alone = configure(
        student={"text": None}, losses={"embedding_alignment": 1}, data=images(pictures)
    )
    check_student(Project(alone))
