"""Folders of pictures without captions and labels."""

from pathlib import Path

from distill.data.marks import PICTURE_SUFFIXES
from distill.data.pictures import find_pictures
from distill.data.sample import Sample, Skip, Source
from distill.data.texts import Texts
from export.runtime.errors import DataError


def open_images(path: str | Path) -> Source:
    """Open a folder of pictures, with its subfolders; keys are the paths inside the folder.

    Hidden files and folders are ignored, and so are files without the suffix of a picture.

    Raises:
        DataError: There is no such folder, or no picture in it.
    """
    path = Path(path)
    if not path.is_dir():
        found = "a file" if path.is_file() else "nothing"
        raise DataError(f"{path}: expected a folder of pictures, found {found}")
    return _ImagesSource(path)


class _ImagesSource:
    """The pictures of a folder, in the order of their paths."""

    def __init__(self, path: Path) -> None:
        """List every folder, without opening a picture."""
        self.name = str(path)
        self.skipped: tuple[Skip, ...] = ()
        self._root = path
        self._keys = Texts()
        pictures, others = find_pictures(path)
        if not pictures:
            raise DataError(
                f"{path}: it has no pictures ({', '.join(PICTURE_SUFFIXES)}); found {others}"
            )
        for file in pictures:
            self._keys.append(file)
        self.rows = len(self)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[range(len(self))[index]]
        return Sample(key=key, image=self._root / key, captions=(), label=None)
