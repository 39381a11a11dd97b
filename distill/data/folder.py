"""Folders of classes: one folder for each class, its pictures anywhere inside."""

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill.basis.words import shorten
from distill.data.sample import Sample, Skip, Source
from distill.data.texts import Texts
from distill.labels.names import name_folders
from export.runtime.errors import DataError, visible

# Forms that this Pillow cannot read are listed too: they are counted as skipped, not passed over.
_COMMON = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_RARE = (".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif")
PICTURE_SUFFIXES = _COMMON + _RARE
DEFAULT_TEMPLATES = ("a photo of a {}.",)
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
SHOWN = 8


def open_folder(
    path: str | Path,
    *,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    classes: str | None = None,
) -> Source:
    """Open a folder of class folders; captions are the templates, filled with the class.

    The label is the name of the class folder, or what ``classes`` calls it (see
    :func:`distill.labels.names.name_folders`); in captions "_" and "-" of it are spaces. A
    template holds ``{}`` or ``{c}`` where the class goes. Hidden files and folders are passed
    over; pictures that lie outside of the class folders are in the source's ``skipped``.

    Raises:
        DataError: there are no class folders, or one has no pictures; a template has no place for
            the class.
    """
    return FolderSource(Path(path), templates=templates, classes=classes)


class FolderSource:
    """The pictures of class folders, in the order of their paths."""

    def __init__(self, path: Path, *, templates: Sequence[str], classes: str | None) -> None:
        """List every folder, without opening a picture."""
        self.name = str(path)
        self._root = path
        self._templates = tuple(templates)
        for template in self._templates:
            fill(template, "class")
        self._keys = Texts()
        self._classes = array("q")
        folders = class_folders(path)
        self.class_names = folders if classes is None else name_folders(folders, classes)
        for number, name in enumerate(folders):
            self._gather(path / name, name, number)
        self.skipped = tuple(
            Skip(str(path / name), "it lies outside of the class folders")
            for name in listed(path)[0]
            if is_picture(name)
        )
        self.rows = len(self) + len(self.skipped)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        number = range(len(self))[index]
        key = self._keys[number]
        label = self.class_names[self._classes[number]]
        return Sample(
            key=key,
            image=self._root / key,
            captions=tuple(dict.fromkeys(fill(text, label) for text in self._templates)),
            label=label,
        )

    def _gather(self, folder: Path, name: str, number: int) -> None:
        others: Counter[str] = Counter()
        empty = True
        for file in sorted(walk(folder, outside=self._root)):
            if is_picture(file):
                empty = False
                self._keys.append(f"{name}/{file}")
                self._classes.append(number)
            else:
                others[Path(file).suffix.lower() or "no suffix"] += 1
        if empty:
            found = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(SHOWN))
            raise DataError(
                f"{visible(str(folder))}: this class folder holds no pictures "
                f"({', '.join(PICTURE_SUFFIXES)}); found there: {found or 'nothing'}; add some or "
                "remove the folder"
            )


def class_folders(path: Path) -> tuple[str, ...]:
    """Return the names of the class folders, sorted.

    Raises:
        DataError: there is no such folder, or no folder in it, or they are splits, not classes.
    """
    if not path.is_dir():
        found = "a file" if path.is_file() else "nothing"
        raise DataError(f"{path}: a folder of class folders was expected, but there is {found}")
    files, names = listed(path)
    if not names:
        found = ", ".join(shorten(name, limit=40) for name in files[:SHOWN])
        more = f" and {len(files) - SHOWN} more files" if len(files) > SHOWN else ""
        raise DataError(
            f"{path}: there are no class folders in it; found {found or 'nothing'}{more}; "
            "put the pictures of each class into a folder of its name"
        )
    if SPLITS.issuperset(name.lower() for name in names):
        raise DataError(
            f"{path}: its folders are {', '.join(names)}, which are parts of a data set and no "
            f"classes; give one of them, such as {path / names[0]}"
        )
    return tuple(names)


def fill(template: str, name: str) -> str:
    """Return a template with the name of a class folder in its place, spoken as words.

    Raises:
        DataError: the template has no ``{}`` and no ``{c}``.
    """
    return insert(template, " ".join(name.replace("_", " ").replace("-", " ").split()))


def insert(template: str, name: str) -> str:
    """Return a template with a name in its place, as it is.

    Raises:
        DataError: the template has no ``{}`` and no ``{c}``.
    """
    if "{}" not in template and "{c}" not in template:
        raise DataError(
            f"templates: {shorten(template)} has no {{}} where the class goes; "
            "write for example 'a photo of a {}.'"
        )
    return template.replace("{}", name).replace("{c}", name)


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


def listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of a folder's files and of its folders, without the hidden ones.

    A link that leads nowhere counts as a file; pipes and devices are neither.

    Raises:
        DataError: the folder is missing or may not be read.
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
