"""Embedding pictures, or lines of text, through a bundle, for `clip-distill embed`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill.basis.files import whole_file, write_whole
from distill.basis.progress import progress_bar
from distill.data.folder import PICTURE_SUFFIXES
from export.runtime import EdgeModel
from export.runtime.decode import decode
from export.runtime.errors import BundleError, DataError

BATCH = 32
LINE_SUFFIXES = (".tsv", ".txt")


@dataclass(frozen=True)
class Embedded:
    """Embeddings float32 ``[N, D]``, the file or text of each row, and what could not be read."""

    features: NDArray[np.float32]
    rows: Sequence[Path | str]
    unreadable: Sequence[str] = ()
    kind: Literal["files", "texts"] = "files"


def check_place(out: Path) -> None:
    """See that embeddings can be written to ``out``.

    Raises:
        DataError: it is no name of a ``.npy``, or there is no folder for it.
    """
    if out.suffix != ".npy":
        raise DataError(f"--out {out}: found the ending {out.suffix!r}, must be .npy")
    if not out.parent.is_dir():
        raise DataError(f"--out {out}: there is no folder {out.parent}; make it first")


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """Return the files among ``places``, and the pictures in the folders among them, sorted.

    Raises:
        DataError: a place does not exist, or there is no picture at all.
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


def embed_places(bundle: Path, places: Sequence[Path], *, schema: str | None) -> Embedded:
    """Embed pictures and folders of them, or the lines of one ``.tsv`` or ``.txt``, by a bundle.

    ``schema`` names the columns of such a file, ``image:str:1`` unless given.

    Raises:
        DataError: there is nothing to embed, or a schema without a file of lines.
        BundleError: the bundle cannot be loaded, or lacks the tower.
    """
    lines = [place for place in places if place.suffix.lower() in LINE_SUFFIXES]
    if lines and len(places) > 1:
        raise DataError(f"{lines[0]}: a file of lines is embedded by itself; give it alone")
    if schema is not None and not lines:
        raise DataError(
            f"--schema {schema}: {places[0]} is no file of lines ({', '.join(LINE_SUFFIXES)}); "
            "leave it out"
        )
    files = find_pictures(places)
    if not lines:
        return embed_files(EdgeModel.load(bundle), files)
    from distill.cli.embed_lines import embed_lines

    return embed_lines(EdgeModel.load(bundle), lines[0], schema=schema or "image:str:1")


def embed_files(model: EdgeModel, files: Sequence[Path]) -> Embedded:
    """Embed the pictures that can be read, with a progress bar.

    Raises:
        DataError: none of them can be read.
        BundleError: the bundle has no image tower.
    """
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


def write_embedded(embedded: Embedded, out: Path) -> Path:
    """Write ``out`` and, beside it, the file or text of each row; return the latter's path.

    Each is written whole or not at all, the embeddings last.
    """
    names = out.with_suffix(f".{embedded.kind}.txt")
    lines = "".join(f"{row}\n" for row in embedded.rows)
    with whole_file(out) as temporary:
        with temporary.open("wb") as file:
            np.save(file, embedded.features)
        write_whole(names, lines.encode("utf-8", "surrogateescape"))
    return names


def _batches(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for first in range(0, len(files), BATCH):
        yield files[first : first + BATCH]
