"""Embedding pictures with a bundle, for `clip-distill embed`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.basis.progress import progress_bar
from distill.cli._embed_lines import embed_lines
from distill.cli._embedded import BATCH, Embedded
from distill.data.marks import PICTURE_SUFFIXES
from export.runtime import EdgeModel
from export.runtime.decode import decode
from export.runtime.errors import BundleError, DataError

_LINE_SUFFIXES = (".tsv", ".txt")


def embed_places(bundle: Path, places: Sequence[Path], *, schema: str | None) -> Embedded:
    """Embed pictures and folders of pictures, or the lines of one ``.tsv`` or ``.txt`` file.

    ``schema`` names the columns of such a file; the default is ``image:str:1``.

    Raises:
        DataError: There is nothing to embed, or a schema is given without a file of lines.
        BundleError: The bundle cannot be loaded, or has no image tower.
    """
    lines = [place for place in places if place.suffix.lower() in _LINE_SUFFIXES]
    if lines and len(places) > 1:
        raise DataError(f"{lines[0]}: a file of lines cannot be mixed with others; give it alone")
    if schema is not None and not lines:
        raise DataError(
            f"--schema {schema}: {places[0]} is not a file of lines "
            f"({', '.join(_LINE_SUFFIXES)}); leave --schema out"
        )
    files = find_pictures(places)
    if not lines:
        return _embed_files(EdgeModel.load(bundle), files)
    return embed_lines(EdgeModel.load(bundle), lines[0], schema=schema or "image:str:1")


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """Return the files among ``places`` and the pictures in the folders, each folder sorted.

    Raises:
        DataError: A place does not exist, or no place has a picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(
                Path(folder, name)
                for folder, _, names in os.walk(place)
                for name in names
                if Path(name).suffix.lower() in PICTURE_SUFFIXES
            )
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place}: there is no such file or folder")
    if not found:
        looked = ", ".join(map(str, places))
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise DataError(f"{looked}: no picture in it; looked for files ending in {suffixes}")
    return found


def _embed_files(model: EdgeModel, files: Sequence[Path]) -> Embedded:
    """Embed the pictures that can be read, with a progress bar."""
    if model.manifest.image is None:
        raise BundleError("the bundle has no image tower, so it cannot embed pictures")
    parts: list[NDArray[np.float32]] = []
    kept: list[Path] = []
    unreadable: list[str] = []
    with progress_bar("embedding", len(files)) as bar:
        for batch in _batches(files):
            images = []
            for file in batch:
                try:
                    images.append(decode(file))
                    kept.append(file)
                except DataError as error:
                    unreadable.append(str(error))
            if images:
                parts.append(model.embed_images(images, batch_size=BATCH))
            bar.update(len(kept) + len(unreadable))
    if not parts:
        raise DataError(
            f"none of the {len(files)} pictures can be read; the first: {unreadable[0]}"
        )
    return Embedded(np.concatenate(parts), kept, unreadable)


def _batches(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for first in range(0, len(files), BATCH):
        yield files[first : first + BATCH]
