"""Folders of pictures that nobody captioned or labelled."""

from collections import Counter
from pathlib import Path

from distill.data.folder import SHOWN
from distill.data.marks import PICTURE_SUFFIXES
from distill.data.pictures import is_picture, walk
from distill.data.sample import Sample, Skip, Source
from distill.data.texts import Texts
from export.runtime.errors import DataError


def open_images(path: str | Path) -> Source:
    """Open a folder of pictures, with folders inside or not; keys are the paths inside of it.

    Hidden files and folders, and files that are no pictures by their suffix, are passed over.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    path = Path(path)
    if not path.is_dir():
        found = "a file" if path.is_file() else "nothing"
        raise DataError(f"{path}: a folder of pictures was expected, but there is {found}")
    return _ImagesSource(path)


class _ImagesSource:
    """The pictures of a folder, in the order of their paths."""

    def __init__(self, path: Path) -> None:
        """List every folder, without opening a picture."""
        self.name = str(path)
        self.skipped: tuple[Skip, ...] = ()
        self._root = path
        self._keys = Texts()
        others: Counter[str] = Counter()
        for file in sorted(walk(path)):
            if is_picture(file):
                self._keys.append(file)
            else:
                others[Path(file).suffix.lower() or "no suffix"] += 1
        self.rows = len(self)
        if not len(self):
            found = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(SHOWN))
            raise DataError(
                f"{path}: there are no pictures in it ({', '.join(PICTURE_SUFFIXES)}); found "
                f"{found or 'nothing'}"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[range(len(self))[index]]
        return Sample(key=key, image=self._root / key, captions=(), label=None)
