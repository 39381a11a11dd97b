"""Recipes: from YAML and ``--set`` to a checked RunConfig, and back.

A recipe's mistakes are reported all at once, one line each.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.labels.folders import class_folders
from distill.labels.names import are_labels, name_labels
from distill.recipe.base import kinds_of
from distill.recipe.config import RunConfig
from distill.recipe.errors import error_lines, models_at
from distill.recipe.teachers import DEFAULT_TEACHER_KIND, TEACHERS
from distill.recipe.text import inline, read_yaml, to_yaml, unshared
from export.runtime.errors import RecipeError

__all__ = ["default_values", "json_schema", "load_recipe", "read_recipe", "resolve", "to_yaml"]

DEFAULT_TEACHER = "openai/clip-vit-large-patch14"
# What a student of images alone learns by, and beside it where there are labels.
PICTURES_ALONE = {"embedding_alignment": 5.0, "corpus_relational": {"weight": 1.0, "scale": 0.45}}
ABOUT_LABELS = {"prompt_kl": 1.0}
_PREFIX = re.compile(r"([a-z][a-z_]+):(?!//)(.*)", re.DOTALL)


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe file, apply ``--set`` overrides, check it all.

    Raises:
        RecipeError: the file cannot be read or a field is wrong; one line for each mistake.
    """
    return resolve(read_recipe(path), overrides=overrides, where=str(path))


def read_recipe(path: Path) -> Any:
    """Return what a recipe file holds, not checked yet.

    Raises:
        RecipeError: the file cannot be read, is no YAML, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError(
            f"{path}: there is no such recipe; `clip-distill recipe > {path}` writes one"
        ) from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: a folder, not a recipe; name a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: it cannot be read as a text file; {error}") from error
    values = read_yaml(text, where=str(path))
    if values is None:
        raise RecipeError(
            f"{path}: the recipe is empty; `clip-distill recipe` prints one to begin with"
        )
    return values


def resolve(values: Any, *, overrides: Sequence[str] = (), where: str) -> RunConfig:
    """Apply overrides to a recipe's values and check them.

    Args:
        values: The map that the recipe is.
        overrides: ``a.b=value`` each, the value read as YAML; later ones win.
        where: What the errors name: the recipe's file, or ``command line``.

    Raises:
        RecipeError: a field or an override is wrong; one line for each mistake.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"{where}: found a {type(values).__name__}, a recipe is a map of keys")
    changed = unshared(values)
    overridden = [apply_override(changed, override) for override in overrides]
    try:
        return RunConfig.model_validate(changed)
    except ValidationError as error:
        lines = error_lines(error, changed, where=where, overridden=overridden)
        raise RecipeError("\n".join(lines)) from error


def apply_override(values: dict[str, Any], override: str) -> str:
    """Set one value of a recipe in place, and return its dotted path.

    Raises:
        RecipeError: it is no ``a.b=value``, or the path leads through a name, a number or a
            missing entry of a list.
    """
    path, equals, text = override.partition("=")
    path = path.strip()
    parts: list[int | str] = [int(part) if part.isdecimal() else part for part in path.split(".")]
    if not equals or "" in parts:
        raise RecipeError(f"--set {override}: must be a dotted path and a value, a.b=value")
    value = read_yaml(text, where=f"--set {path}")
    place: Any = values
    for number, part in enumerate(parts):
        done, location = ".".join(map(str, parts[:number])), tuple(parts[:number])
        _check_step(place, part, path=path, done=done)
        if number == len(parts) - 1:
            place[part] = value
        elif isinstance(place, dict) and part not in place:
            place[part] = _inside_default(location, part, values, path=path)
        place = place[part]
    return path


def _check_step(place: Any, part: int | str, *, path: str, done: str) -> None:
    """Refuse a step of a path that leads nowhere."""
    match place:
        case dict():
            if isinstance(part, int):
                raise RecipeError(
                    f"--set {path}: {done or 'the recipe'} is a single entry and no list; leave "
                    f"the {part} out"
                )
        case list():
            if isinstance(part, str):
                raise RecipeError(
                    f"--set {path}: {done} is a list of {len(place)}; pick an entry by its "
                    f"number, as in {done}.0.{part}"
                )
            if part >= len(place):
                raise RecipeError(
                    f"--set {path}: {done} has {len(place)} entries and no number {part}; the "
                    f"first is 0, and --set {done}=[…] replaces the list"
                )
        case _:
            raise RecipeError(
                f"--set {path}: {done} is {inline(place)}, with nothing inside to set; replace "
                f"it whole, --set {done}=…"
            )


def _inside_default(
    location: tuple[int | str, ...], part: int | str, values: Mapping[str, Any], *, path: str
) -> dict[str, Any] | list[Any]:
    """Return the map or list that stands for what the recipe leaves to its defaults."""
    for model in models_at(location, values):
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        if isinstance(field.default, str | int | float):
            done = ".".join(map(str, (*location, part)))
            raise RecipeError(
                f"--set {path}: {done} is {inline(field.default)}, with nothing inside to set; "
                f"replace it whole, --set {done}=…"
            )
        if isinstance(field.default, tuple):
            return list(field.default)
        kind = getattr(field.default, "kind", None)
        return {} if kind is None else {"kind": kind}
    return {}


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
            ``open_clip:MODEL:PRETRAINED``, or alone: one of OpenAI's names (``ViT-L/14``) or
            ``.pt`` files, the folder of a run, else what ``hf`` takes; CLIP ViT-L/14 of the hub
            unless given.
        student: Name of a timm backbone, or the folder of a dual encoder of transformers.
        data: A table, a folder with one, a folder of class folders or of pictures; scenes unless
            given.
        labels: A file with the labels that pictures are told apart by: the student is an image
            tower then, and learns from pictures alone.
        output: The run folder.

    Raises:
        RecipeError: the teacher is of an unknown kind.
        DataError: the data is nothing that can be read, or the labels are not.
    """
    values: dict[str, Any] = {"teacher": _teacher_values(teacher or DEFAULT_TEACHER)}
    if student is not None:
        values["student"] = _student_values(student)
    if data is not None:
        from distill.data.guess import guess_source

        train = guess_source(data, unlabelled=labels is not None)
        values["data"] = {"train": train}
    if labels is not None or values.get("data", {}).get("train", {}).get("kind") == "images":
        _of_pictures_alone(values, student, labels)
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
            f"{', '.join(rows)}, as in hf:NAME_OR_FOLDER; a bare name is that too"
        )
    return {"kind": kind, **rows[kind].named(model)}


def _student_values(name: str) -> dict[str, Any]:
    if (Path(name) / "config.json").is_file():
        return {"kind": "hf", "model": name}
    return {"kind": "towers", "image": {"backbone": name}}


def _of_pictures_alone(values: dict[str, Any], student: str | None, labels: str | None) -> None:
    """Make a recipe one of an image tower that learns from the teacher without captions."""
    section = values.setdefault("student", {"kind": "towers"})
    if section["kind"] != "towers":
        raise RecipeError(
            f"--student {student}: a dual encoder, but without captions the student is an image "
            "tower alone; give the name of a timm backbone"
        )
    section["text"] = None
    values["losses"] = dict(PICTURES_ALONE)
    if labels is None:
        return
    names = name_labels(labels, field="--labels")
    values["losses"] |= ABOUT_LABELS
    data = values.setdefault("data", {})
    data |= {"labels": labels, "templates": "openai"}
    train = data.get("train", {})
    # Folders of another name than a label's are an order of somebody's, and no classes.
    if train.get("kind") == "folder" and not are_labels(class_folders(Path(train["path"])), names):
        data["train"] = {"kind": "images", "path": train["path"]}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, by which editors complete one."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunConfig.model_json_schema(),
        "title": "clip-distill recipe",
    }
