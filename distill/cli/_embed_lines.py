"""Embedding the lines of a file: pictures in base64, as EasyNLP reads them, or texts."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.basis.progress import progress_bar
from distill.basis.words import shorten
from distill.cli._embedded import BATCH, Embedded
from distill.data.tables.base64_lines import IMAGE_COLUMN, decode_field, numbered_lines
from distill.data.tables.rows import unusable
from distill.data.tables.schema import parse_schema
from export.runtime import EdgeModel
from export.runtime.decode import decode
from export.runtime.errors import BundleError, DataError

_Item = TypeVar("_Item")


def embed_lines(model: EdgeModel, path: Path, *, schema: str) -> Embedded:
    """Embed the column ``image``, in base64, of a file whose columns ``schema`` names.

    Each line that can be read gives one row, named ``FILE:LINE``. Empty lines give none, and equal
    lines are not merged.

    Raises:
        DataError: The schema or the file cannot be used, or no line can be read.
        BundleError: The bundle has no image tower.
    """
    try:
        columns = parse_schema(schema)
    except ValueError as error:
        raise DataError(f"--schema: found {shorten(schema)}, {error}") from error
    if IMAGE_COLUMN not in columns:
        raise DataError(
            f"--schema: found {shorten(schema)}, a column must be {IMAGE_COLUMN}, such as "
            "image:str:1; to embed a file of texts, use --texts"
        )
    if model.manifest.image is None:
        raise BundleError("the bundle has no image tower, so it cannot embed pictures")
    place = columns.index(IMAGE_COLUMN)
    unreadable: list[str] = []

    def pictures(file: BinaryIO) -> Iterator[tuple[str, Image.Image]]:
        for name, field in _fields(path, file, len(columns), place, unreadable):
            try:
                yield name, decode(decode_field(field, name=name), name=name)
            except DataError as error:
                unreadable.append(str(error))

    embed = partial(model.embed_images, batch_size=BATCH)
    return Embedded(*_embedded(path, pictures, embed, unreadable), unreadable)


def embed_texts(model: EdgeModel, path: Path) -> Embedded:
    """Embed the texts of a file, one per line; each row is named by its text.

    Empty lines give no row, and equal lines are not merged.

    Raises:
        DataError: The file cannot be used, or no line can be read.
        BundleError: The bundle has no text tower.
    """
    unreadable: list[str] = []

    def texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
        for name, field in _fields(path, file, 1, 0, unreadable):
            try:
                text = _text(field, name=name)
                yield text, text
            except DataError as error:
                unreadable.append(str(error))

    found = _embedded(path, texts, model.embed_texts, unreadable)
    return Embedded(*found, unreadable, kind="texts")


def _embedded(
    path: Path,
    read: Callable[[BinaryIO], Iterator[tuple[str, _Item]]],
    embed: Callable[[list[_Item]], NDArray[np.float32]],
    unreadable: list[str],
) -> tuple[NDArray[np.float32], list[str]]:
    """Return the embeddings of what ``read`` finds in a file, and the names of their rows."""
    parts: list[NDArray[np.float32]] = []
    names: list[str] = []
    try:
        with path.open("rb") as file:
            total = sum(1 for _ in numbered_lines(file))
            file.seek(0)
            items = read(file)
            with progress_bar("embedding", total) as bar:
                while batch := list(islice(items, BATCH)):
                    names += [name for name, _ in batch]
                    parts.append(embed([item for _, item in batch]))
                    bar.update(len(names) + len(unreadable))
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror}") from error
    if not parts:
        first = f"; the first: {unreadable[0]}" if unreadable else ""
        raise DataError(f"{path}: none of its {total} lines can be read{first}")
    return np.concatenate(parts), names


def _fields(
    path: Path, file: BinaryIO, count: int, place: int, unreadable: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield ``FILE:LINE`` and the field at ``place`` of each line with ``count`` fields."""
    for number, _, line in numbered_lines(file):
        fields = [] if line is None else line.split(b"\t")
        if len(fields) == count:
            bom = b"\xef\xbb\xbf" if number == 1 else b""
            yield f"{path}:{number}", fields[place].removeprefix(bom)
        else:
            found = "it is too long" if line is None else f"it has {len(fields)} fields"
            unreadable.append(f"{path}:{number}: {found}, and the schema has {count}")


def _text(field: bytes, *, name: str) -> str:
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: it is not UTF-8 (byte 0x{field[error.start]:02x})") from error
    if (reason := unusable(text)) is not None:
        raise DataError(f"{name}: {reason}")
    return text.strip()
