"""Embedding the lines of a file: pictures in base64, or texts, as EasyNLP extracts features."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from distill.data.base64_lines import CAPTION_COLUMN, IMAGE_COLUMN, decode_field, numbered_lines
from distill.data.rows import shorten, unusable
from distill.data.schema import parse_schema
from distill.embed import BATCH, Embedded
from distill.progress import progress_bar
from export.runtime import EdgeModel
from export.runtime.errors import BundleError, DataError
from export.runtime.preprocess import decode


def embed_lines(model: EdgeModel, path: Path, *, schema: str) -> Embedded:
    """Embed the column ``image`` of a file, in base64, or its column ``text`` where that is all.

    A row of the result stands for each line that can be read, and its file is ``FILE:LINE``; lines
    that are alike have a row each, and empty lines none.

    Raises:
        DataError: the file or the schema cannot be used, or no line of it.
        BundleError: the bundle lacks the tower.
    """
    try:
        columns = parse_schema(schema)
    except ValueError as error:
        raise DataError(f"--schema: found {shorten(schema)}, {error}") from error
    pictures = IMAGE_COLUMN in columns
    if not pictures and CAPTION_COLUMN not in columns:
        raise DataError(
            f"--schema: found {shorten(schema)}, a column must be {IMAGE_COLUMN} or "
            f"{CAPTION_COLUMN}, such as image:str:1"
        )
    if pictures and model.manifest.image is None:
        raise BundleError("the bundle has no image tower, so it cannot embed pictures")
    place = columns.index(IMAGE_COLUMN if pictures else CAPTION_COLUMN)
    parts, kept, unreadable = [], [], list[str]()
    try:
        with path.open("rb") as file:
            total = sum(1 for _ in numbered_lines(file))
            file.seek(0)
            fields = _fields(path, file, len(columns), place, unreadable)
            with progress_bar("embedding", total) as bar:
                while batch := list(islice(_readable(fields, pictures, unreadable), BATCH)):
                    kept += [Path(name) for name, _, _ in batch]
                    images = [image for _, image, _ in batch if image is not None]
                    texts = [text for _, _, text in batch if text is not None]
                    parts.append(
                        model.embed_images(images, batch_size=BATCH)
                        if pictures
                        else model.embed_texts(texts)
                    )
                    bar.update(len(kept) + len(unreadable))
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror}") from error
    if not parts:
        first = f"; the first: {unreadable[0]}" if unreadable else ""
        raise DataError(f"{path}: none of its {total} lines can be read{first}")
    return Embedded(np.concatenate(parts), kept, unreadable)


_Fields = Iterator[tuple[str, bytes]]


def _fields(path: Path, file: BinaryIO, count: int, place: int, unreadable: list[str]) -> _Fields:
    """Give place and content of the field of each line that has as many as the schema."""
    for number, _, line in numbered_lines(file):
        fields = [] if line is None else line.split(b"\t")
        if len(fields) == count:
            bom = b"\xef\xbb\xbf" if number == 1 else b""
            yield f"{path}:{number}", fields[place].removeprefix(bom)
        else:
            found = "it is too long" if line is None else f"{len(fields)} fields"
            unreadable.append(f"{path}:{number}: {found} where the schema has {count}")


def _readable(
    fields: _Fields, pictures: bool, unreadable: list[str]
) -> Iterator[tuple[str, Image.Image | None, str | None]]:
    """Give the place of each field with its picture or its text."""
    for name, field in fields:
        try:
            if pictures:
                yield name, decode(decode_field(field, name=name), name=name), None
            else:
                yield name, None, _text(field, name=name)
        except DataError as error:
            unreadable.append(str(error))


def _text(field: bytes, *, name: str) -> str:
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: it is not UTF-8 (byte 0x{field[error.start]:02x})") from error
    if (reason := unusable(text)) is not None:
        raise DataError(f"{name}: {reason}")
    return text.strip()
