"""Folders on disk: what they hold, and the classes that their subfolders name."""

import os
from pathlib import Path

from distill.basis.words import shorten
from export.runtime.errors import DataError, visible

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
_SHOWN = 8


def class_folders(path: Path) -> tuple[str, ...]:
    """Return the names of the class folders, sorted.

    Raises:
        DataError: The folder is missing, holds no folders, or holds splits instead of classes.
    """
    if not path.is_dir():
        found = "a file" if path.is_file() else "nothing"
        raise DataError(f"{path}: expected a folder of class folders, found {found}")
    files, names = listed(path)
    if not names:
        found = ", ".join(shorten(name, limit=40) for name in files[:_SHOWN])
        more = f" and {len(files) - _SHOWN} more files" if len(files) > _SHOWN else ""
        raise DataError(
            f"{path}: it has no class folders; found {found or 'nothing'}{more}; "
            "put the pictures of each class into a folder named after it"
        )
    if _SPLITS.issuperset(name.lower() for name in names):
        raise DataError(
            f"{path}: its folders are {', '.join(names)}, which are splits of a data set, not "
            f"classes; give one of them, such as {path / names[0]}"
        )
    return tuple(names)


def listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of a folder's files, and those of its folders, without hidden ones.

    A link that leads nowhere counts as a file; pipes and devices are neither.

    Raises:
        DataError: The folder is missing or may not be read.
    """
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                elif entry.is_symlink() or entry.is_file():
                    files.append(entry.name)
    except OSError as error:
        raise DataError(
            f"{visible(str(folder))}: the folder cannot be read: {error.strerror}"
        ) from error
    return sorted(files), sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, for instance.
        return False
