"""Names of labels and classes: lists, files of them, and the label set ``imagenet``."""

import json
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from distill.basis.words import shorten
from distill.labels._open_clip import zero_shot_metadata
from distill.labels.folders import class_folders
from export.runtime.errors import DataError

_IMAGENET = "imagenet"
# The WordNet number of a class, which lists of ImageNet's classes put before its name.
_SYNSET = re.compile(r"n[0-9]{8}\s+(?=\S)")
# A text with one of these endings names a file and is not a label.
_FILES = (".txt", ".json", ".csv", ".tsv", ".lst")


def label_in_words(name: str) -> str:
    """Return a label as people write it, with spaces for "_"."""
    return " ".join(name.replace("_", " ").split())


def class_in_words(name: str) -> str:
    """Return the name of a class folder as people write it, with spaces for "_" and "-"."""
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def are_labels(classes: Collection[str], labels: Collection[str]) -> bool:
    """Tell whether every class is one of the labels, comparing them in words."""
    known = {class_in_words(name) for name in labels}
    return all(class_in_words(name) in known for name in classes)


def read_lines(path: Path, *, field: str) -> tuple[str, ...]:
    """Return the lines of a text file that are not empty.

    Raises:
        DataError: The file cannot be read or has no such line; the message names ``field``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"{field}: there is no file {path}; give a file with one entry per line"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{field}: {path} cannot be read as a text file; give a file with one entry per line"
        ) from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise DataError(f"{field}: {path} is empty; give a file with one entry per line")
    return lines


def read_labels(name: str, *, field: str) -> tuple[str, ...]:
    """Return a label set: ``imagenet``, a text file, a JSON list, or the names of class folders.

    ``imagenet`` means OpenAI's 1,000 names in the order of the classes, as open_clip ships them. A
    text file has one label per line, which may begin with a WordNet number if all lines do. For a
    folder, the labels are the sorted names of its subfolders.

    Raises:
        DataError: The labels cannot be read; the message names ``field``.
    """
    path = Path(name)
    if name == _IMAGENET:
        return tuple(zero_shot_metadata().IMAGENET_CLASSNAMES)
    if path.is_dir():
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
        raise DataError(f"{field}: {path} must hold a JSON list of texts, one for each label")
    return tuple(value.strip() for value in values)


def listed_labels(given: str, *, field: str) -> tuple[str, ...]:
    """Return the labels of a command-line option: ``cat,dog``, or what `read_labels` reads.

    Raises:
        DataError: The option holds no label, or the file is missing.
    """
    place, exists = Path(given), False
    # A long list of labels cannot be the name of a file.
    with suppress(OSError, ValueError):
        exists = place.exists()
    if exists or place.suffix.lower() in _FILES:
        return read_labels(given, field=field)
    labels = tuple(name.strip() for name in given.split(",") if name.strip())
    if not labels:
        raise DataError(f"{field} {given}: it has no label; give a,b or a file with one per line")
    return labels


def name_labels(given: tuple[str, ...] | str, *, field: str) -> tuple[str, ...]:
    """Return the labels of a list, or those that `read_labels` reads from a file or folder.

    Raises:
        DataError: They cannot be read, are fewer than two, or one is empty or given twice.
    """
    names = read_labels(given, field=field) if isinstance(given, str) else given
    where = f"{field}: {given}" if isinstance(given, str) else field
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise DataError(f"{where}: a label is empty; write what people call it")
        spoken = label_in_words(name)
        if spoken in seen:
            as_well = "" if seen[spoken] == name else f", once as {seen[spoken]!r}"
            raise DataError(f"{where}: the label {name!r} is given twice{as_well}; give it once")
        seen[spoken] = name
    if len(names) < 2:
        raise DataError(
            f"{where}: there is only one label, {names[0]!r}, and nothing to tell it apart from; "
            "give two or more"
        )
    return tuple(names)


def name_folders(folders: Sequence[str], names: str, *, field: str = "classes") -> tuple[str, ...]:
    """Return the class names of folders, in the order of the folders.

    ``names`` is one of three things: a JSON map from folder to class; a text file whose lines begin
    with WordNet numbers, if the folders are named by these numbers; or a label set with one name
    per folder, in the order of the folders.

    Raises:
        DataError: A folder has no name, or there are more or fewer names than folders.
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
    if names != _IMAGENET and path.is_file() and path.suffix.lower() != ".json":
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
