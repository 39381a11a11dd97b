"""Searching folders for pictures."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distill.data.marks import PICTURE_SUFFIXES
from distill.labels.folders import listed
from export.runtime.errors import DataError, visible

_SHOWN = 8


def is_picture(name: str) -> bool:
    """Tell by its suffix whether a file is a picture."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def find_pictures(folder: Path, *, outside: Path | None = None) -> tuple[list[str], str]:
    """Return the sorted paths of a folder's pictures, and what its other files are.

    The paths are those of :func:`walk`. The second value counts other files by suffix, for
    messages.
    """
    pictures: list[str] = []
    others: Counter[str] = Counter()
    for file in sorted(walk(folder, outside=outside)):
        if is_picture(file):
            pictures.append(file)
        else:
            others[Path(file).suffix.lower() or "no suffix"] += 1
    told = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(_SHOWN))
    return pictures, told or "nothing"


def walk(folder: Path, *, outside: Path | None = None) -> Iterator[str]:
    """Yield the path of each file that is not hidden, relative to the folder and with "/".

    Links to folders are followed. A folder that several links lead to is listed once, and
    ``outside`` is never listed.

    Raises:
        DataError: A folder cannot be read.
    """
    seen = set() if outside is None else {_identity(outside)}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        here = folder / prefix
        identity = _identity(here)
        if identity in seen:
            continue
        seen.add(identity)
        files, folders = listed(here)
        for name in files:
            yield prefix + name
        waiting += [f"{prefix}{name}/" for name in reversed(folders)]


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(
            f"{visible(str(folder))}: the folder cannot be read: {error.strerror}"
        ) from error
    return status.st_dev, status.st_ino
