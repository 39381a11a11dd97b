"""JSON tables: lines of objects, a list of objects, Karpathy's splits and COCO's captions."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.basis.words import shorten
from distill.data.sample import Skip
from distill.data.tables.rows import ColumnNames, Row, find_columns, unusable
from export.runtime.errors import DataError

# The number of objects that are searched for the names of the columns.
_FIRST = 1000


@dataclass(frozen=True)
class _Keys:
    """The keys of an object that make up a row."""

    image: str
    caption: str | None
    label: str | None
    id: str | None


class _UnusableError(Exception):
    """The reason for skipping a row."""


def read_json_lines(path: Path, names: ColumnNames) -> Iterator[Row | Skip]:
    """Read a file with one JSON object a line; any other line is a skip.

    A caption is a text or a list of texts; a label or id is a text or an integer. A null and a
    missing key count as nothing.

    Raises:
        DataError: The file cannot be read, has no object, or no object has one of the keys.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(path, _objects(path, file), names)
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read: {error.strerror}") from error


def read_json(path: Path, names: ColumnNames, *, split: str | None) -> Iterator[Row | Skip]:
    """Read a JSON file: Karpathy's splits, COCO's captions, or a list of objects.

    ``split`` names the splits to read from Karpathy's JSON, joined by "+"; None reads all.

    Raises:
        DataError: The file is none of these, or a split or key is missing.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: it cannot be read as JSON ({reason})") from error
    images = values.get("images") if isinstance(values, dict) else None
    annotations = values.get("annotations") if isinstance(values, dict) else None
    captioned = names.caption is not None
    if isinstance(images, list) and not isinstance(annotations, list):
        yield from _karpathy(path, images, split, captioned=captioned)
    elif split is not None:
        raise DataError(f"{path}: split: only Karpathy's JSON has splits; remove it")
    elif isinstance(images, list) and isinstance(annotations, list):
        yield from _coco(path, images, annotations, captioned=captioned)
    elif isinstance(values, list):
        yield from _rows(path, _numbered(path, values), names)
    else:
        raise DataError(
            f"{path}: found a {type(values).__name__} without a list of images; must be Karpathy's "
            "{images: [{filename, split, sentences}]}, COCO's {images, annotations}, or a list of "
            "objects"
        )


# A row's number and its object, or the skip of a row that is not an object.
_Numbered = Iterator[tuple[int, dict[str, Any]] | Skip]


def _objects(path: Path, lines: Iterator[bytes]) -> _Numbered:
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        try:
            value = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:120]
            yield Skip(f"{path}:{number}", f"it is not JSON ({reason})", kind="row")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield Skip(f"{path}:{number}", "it is not a JSON object", kind="row")


def _numbered(path: Path, values: Sequence[Any]) -> _Numbered:
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict):
            yield number, value
        else:
            yield Skip(f"{path}: row {number}", "it is not a JSON object", kind="row")


def _rows(path: Path, entries: _Numbered, names: ColumnNames) -> Iterator[Row | Skip]:
    first = list(itertools.islice(entries, _FIRST))
    columns = dict.fromkeys(key for item in first if not isinstance(item, Skip) for key in item[1])
    if not columns:
        skips = [item for item in first if isinstance(item, Skip)]
        why = f"; the first row is {skips[0].where}: {skips[0].reason}" if skips else ""
        raise DataError(f"{path}: no JSON object in it has a key{why}")
    called = list(columns)
    places = find_columns(called, names, table=str(path))
    keys = _Keys(
        called[places.image],
        None if places.caption is None else called[places.caption],
        None if places.label is None else called[places.label],
        None if places.id is None else called[places.id],
    )
    mark = ": row " if path.suffix.lower() == ".json" else ":"
    for entry in itertools.chain(first, entries):
        if isinstance(entry, Skip):
            yield entry
            continue
        number, values = entry
        try:
            yield Row(
                number,
                _text(values, keys.image) or _refuse("its picture has no name"),
                () if keys.caption is None else _texts(values, keys.caption),
                "" if keys.label is None else _text(values, keys.label, numbers=True),
                "" if keys.id is None else _text(values, keys.id, numbers=True),
            )
        except _UnusableError as error:
            yield Skip(f"{path}{mark}{number}", str(error), kind="row")


def _karpathy(
    path: Path, images: list[Any], split: str | None, *, captioned: bool
) -> Iterator[Row | Skip]:
    wanted = None if split is None else split.split("+")
    there = dict.fromkeys(
        str(image["split"]) for image in images if isinstance(image, dict) and "split" in image
    )
    for name in wanted or ():
        if name not in there:
            raise DataError(
                f"{path}: split: there is no {shorten(name)}; found "
                f"{', '.join(map(shorten, there)) or 'none'}"
            )
    if not images:
        raise DataError(f"{path}: its list of images is empty")
    for number, image in enumerate(images, start=1):
        if wanted and isinstance(image, dict) and str(image.get("split")) not in wanted:
            continue
        try:
            name, sentences = _text(_map(image), "filename"), image.get("sentences")
            folder = _text(image, "filepath")
            captions = _sentences(sentences) if captioned else ()
            image_name = name or _refuse("its picture has no name")
            yield Row(number, f"{folder}/{image_name}" if folder else image_name, captions, "")
        except _UnusableError as error:
            yield Skip(f"{path}: row {number}", str(error), kind="row")


def _sentences(sentences: Any) -> tuple[str, ...]:
    if not isinstance(sentences, list):
        raise _UnusableError("it has no list of sentences")
    return tuple(text for item in sentences if (text := _text(_map(item), "raw")))


def _coco(
    path: Path, images: list[Any], annotations: list[Any], *, captioned: bool
) -> Iterator[Row | Skip]:
    names: dict[int | str, str] = {}
    captions: dict[int | str, list[str]] = {}
    if not images:
        raise DataError(f"{path}: its list of images is empty")
    for number, image in enumerate(images, start=1):
        try:
            key = _id(_map(image), "id")
            if key in names:
                _refuse(f"its id {shorten(str(key))} is that of an earlier image")
            names[key] = _text(image, "file_name") or _refuse("its picture has no name")
        except _UnusableError as error:
            yield Skip(f"{path}: image {number}", str(error), kind="row")
    for number, annotation in enumerate(annotations if captioned else [], start=1):
        try:
            key = _id(_map(annotation), "image_id")
            if key not in names:
                _refuse(f"its image_id {shorten(str(key))} is not the id of an image")
            if "caption" not in annotation:
                _refuse(
                    "it has no caption; use the file with the captions, or set caption_column: null"
                )
            captions.setdefault(key, []).append(_text(annotation, "caption"))
        except _UnusableError as error:
            yield Skip(f"{path}: annotation {number}", str(error), kind="row")
    for number, (key, name) in enumerate(names.items(), start=1):
        yield Row(number, name, tuple(text for text in captions.get(key, ()) if text), "")


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnusableError("it is not a JSON object")
    return value


def _id(values: Mapping[str, Any], key: str) -> int | str:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _UnusableError(f"its {key} is neither a number nor a text")
    return value


def _text(values: Mapping[str, Any], key: str, *, numbers: bool = False) -> str:
    """Return a text without white space around it, '' if there is none."""
    return _checked(values.get(key), key, numbers=numbers)


def _texts(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = values.get(key)
    several = value if isinstance(value, list) else [value]
    return tuple(text for item in several if (text := _checked(item, key)))


def _checked(value: Any, key: str, *, numbers: bool = False) -> str:
    if value is None:
        return ""
    if numbers and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _UnusableError(f"its {shorten(key)} is a {type(value).__name__}, not a text")
    if (reason := unusable(value)) is not None:
        raise _UnusableError(f"its {shorten(key)} cannot be used: {reason}")
    return value.strip()


def _refuse(reason: str) -> str:
    raise _UnusableError(reason)
