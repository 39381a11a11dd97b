"""Class folders: one folder for each class, with its pictures anywhere inside."""

from array import array
from collections.abc import Sequence
from pathlib import Path

from distill.data.marks import PICTURE_SUFFIXES
from distill.data.pictures import find_pictures, is_picture
from distill.data.sample import Sample, Skip, Source
from distill.data.texts import Texts
from distill.labels.folders import class_folders, listed
from distill.labels.names import name_folders
from distill.labels.templates import DEFAULT_TEMPLATES, fill
from export.runtime.errors import DataError, visible


def open_folder(
    path: str | Path,
    *,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    classes: str | None = None,
) -> Source:
    """Open a folder of class folders; captions are the templates, filled with the class.

    The label is the name of the class folder, or the name that ``classes`` gives it (see
    :func:`distill.labels.names.name_folders`). In captions, "_" and "-" become spaces. A template
    holds ``{}`` or ``{c}`` where the class goes. Hidden files and folders are ignored. Pictures
    outside the class folders are in the source's ``skipped``.

    Raises:
        DataError: There are no class folders, a class folder has no pictures, or a template has no
            place for the class.
    """
    return _FolderSource(Path(path), templates=templates, classes=classes)


class _FolderSource:
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
            Skip(str(path / name), "it lies outside the class folders")
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
        pictures, others = find_pictures(folder, outside=self._root)
        if not pictures:
            raise DataError(
                f"{visible(str(folder))}: this class folder holds no pictures "
                f"({', '.join(PICTURE_SUFFIXES)}); found there: {others}; add some or remove the "
                "folder"
            )
        for file in pictures:
            self._keys.append(f"{name}/{file}")
            self._classes.append(number)
