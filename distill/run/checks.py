"""Check that student, teacher and data have what the terms of a recipe need."""

from distill.recipe.student import StudentTowers
from distill.run.project import Project
from export.runtime.errors import DataError, StudentError


def check_student(project: Project) -> None:
    """Check that student, teacher and data have what the recipe's terms need.

    Raises:
        StudentError: A term needs equal widths or both towers, and the student lacks them.
        DataError: A term needs captions and there are none, or the bank of prompts cannot be read.
    """
    _ = project.bank_texts
    _check_ridge(project)
    width, teacher = project.student.width, project.teacher
    single = project.student.tokenizer is None or project.student.image_processor is None
    for name, term in project.config.terms.items():
        if teacher is not None and term.row.equal_width and width != teacher.width:
            raise StudentError(
                f"losses.{name}: needs equal widths, but the student has {width} and the "
                f"teacher {teacher.widths}; remove the term or set student.width: "
                f"{teacher.width} (kind: towers)"
            )
        if term.row.needs_texts and single:
            raise StudentError(
                f"losses.{name}: needs both towers, but the student has one; remove the term"
            )
        if term.row.needs_captions and project.captions.total == 0:
            raise DataError(
                f"losses.{name}: needs captions, but no picture of data.train has one; "
                "add a source with captions, or leave the term out"
            )
    _check_captions(project)


def _check_ridge(project: Project) -> None:
    """Check that projections can be regressed onto the teacher."""
    section, width, teacher = project.config.student, project.student.width, project.teacher
    ridge = isinstance(section, StudentTowers) and section.projection_start == "ridge"
    if ridge and teacher is not None and width != teacher.width:
        raise StudentError(
            f"student.width: projection_start: ridge needs the teacher's {teacher.widths}, but "
            f"the width is {width}; leave student.width out, or set projection_start to random"
        )


def _check_captions(project: Project) -> None:
    """Check that an untrained text tower has captions to learn from.

    Raises:
        DataError: There are none.
    """
    section, towers = project.config.student, project.towers
    if project.captions.total or not towers.text:
        return
    if towers.image and not (isinstance(section, StudentTowers) and section.start is None):
        return
    raise DataError(
        "student.text: the text tower would learn nothing, since no picture of data.train has a "
        "caption; set student.text: null for a student of pictures alone, or add captions"
    )
