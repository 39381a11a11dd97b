"""Label sets and prompt templates: lists, files of them, and those that are known by name."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from distill.basis.words import shorten
from export.runtime.errors import DataError

IMAGENET = "imagenet"
OPENAI = "openai"
# WordNet's number of a class, as lists of ImageNet's classes have it before the name.
_SYNSET = re.compile(r"n[0-9]{8}\s+(?=\S)")
# A name with such an ending is a file's and no label.
_FILES = (".txt", ".json", ".csv", ".tsv", ".lst")


def read_lines(path: Path, *, field: str) -> tuple[str, ...]:
    """Return the lines of a text file that are not empty.

    Raises:
        DataError: the file cannot be read, or has none; the message names ``field``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"{field}: there is no file {path}; give a file with one entry a line"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{field}: {path} cannot be read as a text file; give a file with one entry a line"
        ) from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise DataError(f"{field}: {path} is empty; give a file with one entry a line")
    return lines


def read_labels(name: str, *, field: str) -> tuple[str, ...]:
    """Return a label set: ``imagenet``, a text file, a JSON list, or the names of a folder.

    ``imagenet`` are OpenAI's 1,000 names in the order of the classes, from open_clip; a text file
    has one a line, with or without WordNet's number before it; of a folder the names of the
    folders in it are the labels, sorted.

    Raises:
        DataError: it is nothing of these; the message names ``field``.
    """
    path = Path(name)
    if name == IMAGENET:
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

        return tuple(IMAGENET_CLASSNAMES)
    if path.is_dir():
        from distill.data.folder import class_folders

        try:
            return class_folders(path)
        except DataError as error:
            raise DataError(f"{field}: {error}") from error
    if path.suffix.lower() != ".json":
        lines = read_lines(path, field=field)
        numbered = all(map(_SYNSET.match, lines))
        return tuple(_SYNSET.sub("", line, count=1) for line in lines) if numbered else lines
    values = _read_json(path, field=field)
    if not isinstance(values, list) or not values or not all(map(_is_name, values)):
        raise DataError(f"{field}: {path} holds no list of texts, which a label set in JSON is")
    return tuple(value.strip() for value in values)


def listed_labels(given: str, *, field: str) -> tuple[str, ...]:
    """Return labels as a command line gives them: ``cat,dog``, or what `read_labels` reads.

    Raises:
        DataError: there is none, or the file that is named is not there.
    """
    place, there = Path(given), False
    # A long list of labels is no name that a file could have.
    with suppress(OSError, ValueError):
        there = place.exists()
    if there or place.suffix.lower() in _FILES:
        return read_labels(given, field=field)
    labels = tuple(name.strip() for name in given.split(",") if name.strip())
    if not labels:
        raise DataError(f"{field} {given}: no label in it; give a,b or a file with one a line")
    return labels


def read_templates(name: str, *, field: str) -> tuple[str, ...]:
    """Return prompt templates with ``{}`` for the class: ``openai``, or those of a text file.

    ``openai`` are OpenAI's 80 templates for ImageNet, from open_clip. A file has one a line; it
    may say ``{c}`` for ``{}``.

    Raises:
        DataError: the file cannot be read, or a line has no place for the class.
    """
    if name == OPENAI:
        from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    templates = tuple(map(plain_template, read_lines(Path(name), field=field)))
    for template in templates:
        if "{}" not in template:
            raise DataError(
                f"{field}: {name}: {shorten(template)} is no template; each line needs a {{}} or "
                "{c} where the name of the class goes"
            )
    return templates


def plain_template(template: str) -> str:
    """Return a template that says ``{}`` wherever it said ``{c}``."""
    return template.replace("{c}", "{}")


def name_folders(folders: Sequence[str], names: str, *, field: str = "classes") -> tuple[str, ...]:
    """Return the class names of folders, in the order of the folders.

    ``names`` is a JSON map of folder to class, a text file whose lines begin with WordNet's numbers
    where these are the folders' names, or a label set with as many names as there are folders, in
    their order.

    Raises:
        DataError: a folder has no name, or there are more or fewer names than folders.
    """
    path = Path(names)
    if path.suffix.lower() == ".json" and isinstance(values := _read_json(path, field=field), dict):
        unnamed = [folder for folder in folders if not _is_name(values.get(folder))]
        if unnamed:
            raise DataError(
                f"{field}: {path} has no name for {len(unnamed)} of the {len(folders)} class "
                f"folders, such as {shorten(unnamed[0])}; add them"
            )
        return tuple(values[folder].strip() for folder in folders)
    if names != IMAGENET and path.is_file() and path.suffix.lower() != ".json":
        lines = read_lines(path, field=field)
        named = dict(line.split(maxsplit=1) for line in lines if _SYNSET.match(line))
        if set(folders) <= set(named):
            return tuple(named[folder] for folder in folders)
    labels = read_labels(names, field=field)
    if len(labels) != len(folders):
        raise DataError(
            f"{field}: {names} has {len(labels)} names for {len(folders)} class folders; give one "
            "for each, in the order of the folders' names, or a JSON map of folder to class"
        )
    return labels


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_json(path: Path, *, field: str) -> object:
    try:
        values: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{field}: {path} cannot be read as JSON ({_short(error)})") from error
    return values


def _short(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join(str(text).split())[:120]
