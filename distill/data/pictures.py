"""Files of pictures: what tells them from others, and how folders are searched for them."""

from collections.abc import Iterator
from pathlib import Path

from distill.data.marks import PICTURE_SUFFIXES
from distill.labels.folders import listed
from export.runtime.errors import DataError, visible


def is_picture(name: str) -> bool:
    """Tell by its suffix whether a file is a picture."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def walk(folder: Path, *, outside: Path | None = None) -> Iterator[str]:
    """Give the path of each file that is not hidden, relative to the folder, with "/".

    Links to folders are followed; a folder that links lead to more than once is listed once, and
    ``outside`` never.

    Raises:
        DataError: a folder may not be read.
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
