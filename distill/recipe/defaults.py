"""The default recipe, changed by ``--teacher``, ``--student``, ``--data`` and ``--labels``."""

import re
from pathlib import Path
from typing import Any

from distill.data.guess import guess_source
from distill.labels.folders import class_folders
from distill.labels.names import are_labels, name_labels
from distill.losses.presets import ABOUT_LABELS, PICTURES_ALONE
from distill.recipe.base import kinds_of
from distill.recipe.sources import SOURCES, SourceRow
from distill.recipe.teachers import DEFAULT_TEACHER_KIND, TEACHERS
from export.runtime.errors import RecipeError

_DEFAULT_TEACHER = "openai/clip-vit-large-patch14"
_PREFIX = re.compile(r"([a-z][a-z_]+):(?!//)(.*)", re.DOTALL)


def default_values(
    *,
    teacher: str | None = None,
    student: str | None = None,
    data: str | None = None,
    labels: str | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Return the values of the default recipe, for `resolve`.

    Args:
        teacher: A name with its kind, as in ``hf:NAME_OR_FOLDER`` and
            ``open_clip:MODEL:PRETRAINED``, or a name alone: one of OpenAI's (``ViT-L/14``), a
            ``.pt`` file, the folder of a run, or else what ``hf`` takes. The default is CLIP
            ViT-L/14 from the hub.
        student: Name of a timm backbone, or the folder of a dual encoder of transformers.
        data: A table, a folder with one, a folder of class folders or of pictures. The default
            is scenes.
        labels: A file with labels. With labels, the student is an image tower that learns from
            pictures alone to tell them apart.
        output: The run folder.

    Raises:
        RecipeError: The teacher is of an unknown kind.
        DataError: Data or labels cannot be read.
    """
    values: dict[str, Any] = {"teacher": _teacher_values(teacher or _DEFAULT_TEACHER)}
    if student is not None:
        values["student"] = _student_values(student)
    if data is not None:
        values["data"] = {"train": guess_source(data, unlabelled=labels is not None)}
    row = None if data is None else kinds_of(SOURCES)[values["data"]["train"]["kind"]]
    if labels is not None or (row is not None and not row.has_captions):
        _of_pictures_alone(values, student)
    if labels is not None:
        _about_labels(values, labels, row)
    if output is not None:
        values["output"] = str(output)
    return values


def _teacher_values(name: str) -> dict[str, Any]:
    rows = kinds_of(TEACHERS)
    prefix = _PREFIX.fullmatch(name)
    if prefix is None:
        known = (kind for kind, row in rows.items() if row.recognises(name))
        kind = next(known, DEFAULT_TEACHER_KIND)
        return {"kind": kind, **rows[kind].named(name)}
    kind, model = prefix.groups()
    if kind not in rows:
        raise RecipeError(
            f"--teacher {name}: found the kind {kind!r}, must be one of "
            f"{', '.join(rows)}, as in hf:NAME_OR_FOLDER, or give the name alone"
        )
    return {"kind": kind, **rows[kind].named(model)}


def _student_values(name: str) -> dict[str, Any]:
    if (Path(name) / "config.json").is_file():
        return {"kind": "hf", "model": name}
    return {"kind": "towers", "image": {"backbone": name}}


def _of_pictures_alone(values: dict[str, Any], student: str | None) -> None:
    """Make the student an image tower that learns from the teacher without captions."""
    section = values.setdefault("student", {"kind": "towers"})
    if section["kind"] != "towers":
        raise RecipeError(
            f"--student {student}: found a dual encoder, but without captions the student is an "
            "image tower alone; give the name of a timm backbone"
        )
    section["text"] = None
    values["losses"] = dict(PICTURES_ALONE)


def _about_labels(values: dict[str, Any], labels: str, row: type[SourceRow] | None) -> None:
    """Make the student learn to tell labels apart."""
    names = name_labels(labels, field="--labels")
    values["losses"] |= ABOUT_LABELS
    data = values.setdefault("data", {})
    data |= {"labels": labels, "templates": "openai"}
    if row is None or not row.captions_name_classes:
        return
    path = data["train"]["path"]
    # Folders that are not named after labels only sort the pictures; they are not classes.
    if not are_labels(class_folders(Path(path)), names):
        data["train"] = {"kind": "images", "path": path}
