"""Text files with base64 pictures and tab-separated fields, as in EasyNLP's data sets."""

import binascii
import hashlib
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pybase64

from distill.basis.words import shorten
from distill.data.sample import Sample, Skip, Source
from distill.data.tables._columns import SampleColumns, fill_row
from distill.data.tables.rows import LABEL_COLUMN, Row, unusable
from distill.data.tables.schema import parse_schema
from export.runtime.errors import DataError

_SCHEMA = "text:str:1,image:str:1"
IMAGE_COLUMN = "image"
_CAPTION_COLUMN = "text"
# No picture is that large; a longer line is read in pieces and skipped.
_LONGEST_LINE = 256 * 2**20
_DIGEST_BYTES = 16
_STANDARD = bytes.maketrans(b"-_", b"+/")


def open_base64(
    path: str | Path,
    *,
    input_schema: str = _SCHEMA,
    image_column: str = IMAGE_COLUMN,
    caption_column: str | None = _CAPTION_COLUMN,
    label_column: str | None = LABEL_COLUMN,
) -> Source:
    """Open a file whose lines have tab-separated fields, the columns of a schema.

    There is no header and no quoting. The picture is in base64, in the standard or the URL-safe
    alphabet, padded or not. The columns ``text`` and ``label`` may be missing. Lines with the same
    picture are one sample with several captions; its key is a digest of the base64 text.

    Raises:
        DataError: The file cannot be read, lacks a column, or has no line that can be used.
    """
    try:
        names = parse_schema(input_schema)
    except ValueError as error:
        raise DataError(f"input_schema: found {shorten(input_schema)}, {error}") from error
    asked = {"image_column": image_column, "caption_column": caption_column}
    asked["label_column"] = label_column
    optional = (_CAPTION_COLUMN, LABEL_COLUMN)
    places = [
        _place(names, field, name, optional=name in optional and field != "image_column")
        for field, name in asked.items()
    ]
    image, caption, label = places
    assert image is not None
    return _Base64Source(Path(path), _Columns(len(names), image, caption, label))


@dataclass(frozen=True)
class _Columns:
    """The number of columns, and the places of those that are read."""

    count: int
    image: int
    caption: int | None
    label: int | None


@dataclass(frozen=True)
class _StoredLine:
    """A base64 picture: its file and line, and the place and digest of its field.

    ``version`` is the file's size and modification time; if both are the same, the file has not
    changed.
    """

    path: Path
    version: tuple[int, int]
    line: int
    begin: int
    length: int
    digest: str

    @property
    def name(self) -> str:
        """File and line."""
        return f"{self.path}:{self.line}"

    @property
    def size(self) -> int:
        """Approximate number of bytes: three for four characters."""
        return self.length * 3 // 4

    def read(self) -> bytes:
        """Return the picture's bytes.

        Raises:
            DataError: The file is missing or has changed, or the field is not base64.
        """
        try:
            with self.path.open("rb") as file:
                same = _version(file) == self.version
                file.seek(self.begin)
                field = file.read(self.length)
        except OSError as error:
            raise DataError(f"{self.name}: it cannot be read: {error.strerror}") from error
        if not same and _digest(field) != self.digest:
            raise DataError(f"{self.name}: the file has changed since it was opened")
        return decode_field(field, name=self.name)


def decode_field(field: bytes, *, name: str) -> bytes:
    """Return the bytes of a base64 picture, in either alphabet, padded or not.

    Raises:
        DataError: It is not base64; the message begins with ``name``.
    """
    digits = field.strip().rstrip(b"=")
    if b"-" in digits or b"_" in digits:
        digits = digits.translate(_STANDARD)
    try:
        return pybase64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise DataError(f"{name}: its picture is not base64 ({error})") from error


class _Base64Source:
    """The pictures of a file of lines; places and texts are in memory, the rest stays on disk."""

    def __init__(self, path: Path, columns: _Columns) -> None:
        """Read the file once, to find every line."""
        self.name = str(path)
        self._path = path
        self._texts = SampleColumns()
        self._places = array("q")
        self.rows = 0
        skipped: list[Skip] = []
        try:
            with path.open("rb") as file:
                self._version = _version(file)
                self._gather(file, columns, skipped)
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read: {error.strerror}") from error
        self.skipped = tuple(skipped)
        self._texts.freeze()
        if not self.rows:
            raise DataError(f"{path}: the file is empty")
        if not len(self):
            first = skipped[0]
            raise DataError(
                f"{path}: no line can be used; the first is {first.where}: {first.reason}; name "
                f"the columns in input_schema, such as {_SCHEMA} or image:str:1"
            )

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Sample:
        number = range(len(self))[index]
        key = self._texts.key(number)
        line, begin, length = self._places[3 * number : 3 * number + 3]
        return Sample(
            key=key,
            image=_StoredLine(self._path, self._version, line, begin, length, key),
            captions=self._texts.captions(number),
            label=self._texts.label(number),
        )

    def _gather(self, file: BinaryIO, columns: _Columns, skipped: list[Skip]) -> None:
        by_key: dict[str, int] = {}
        for number, begin, line in numbered_lines(file):
            self.rows += 1
            where = f"{self._path}:{number}"
            found = _row(number, line, columns)
            if isinstance(found, str):
                skipped.append(Skip(where, found, kind="row"))
                continue
            row, first, length = found
            if row.image not in by_key:
                by_key[row.image] = self._texts.add(row.image)
                self._places.extend((number, begin + first, length))
            clash = fill_row(self._texts, by_key[row.image], row)
            if clash is not None:
                skipped.append(Skip(where, clash, kind="row"))


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield number, offset and content of each line that is not blank; None if it is too long."""
    number = begin = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        length = len(line)
        if length == _LONGEST_LINE and not line.endswith(b"\n"):
            while rest := file.readline(_LONGEST_LINE):
                length += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, begin, None
        else:
            text = line.rstrip(b"\r\n")
            if text.strip(b" "):
                yield number, begin, text
        begin += length


def _row(number: int, line: bytes | None, columns: _Columns) -> tuple[Row, int, int] | str:
    """Return a row with offset and length of its picture in the line, or why there is none.

    The name of the picture is its digest.
    """
    if line is None:
        return f"it is longer than {_LONGEST_LINE} bytes"
    fields = line.split(b"\t")
    if len(fields) != columns.count:
        return f"{len(fields)} fields, but the schema has {columns.count}"
    image = fields[columns.image]
    if not image.strip():
        return "it has no picture"
    begin = sum(len(field) + 1 for field in fields[: columns.image])
    if number == 1 and columns.image == 0 and image.startswith(b"\xef\xbb\xbf"):
        image, begin = image[3:], begin + 3
    texts = []
    for place in (columns.caption, columns.label):
        try:
            text = "" if place is None else fields[place].decode("utf-8")
        except UnicodeDecodeError as error:
            return f"it is not UTF-8 (byte 0x{fields[place or 0][error.start]:02x})"
        if (reason := unusable(text)) is not None:
            return reason
        texts.append((text.removeprefix("\ufeff") if number == 1 else text).strip())
    caption, label = texts
    row = Row(number, _digest(image), (caption,) if caption else (), label)
    return row, begin, len(image)


def _version(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _digest(field: bytes) -> str:
    return hashlib.blake2b(field, digest_size=_DIGEST_BYTES).hexdigest()


def _place(names: tuple[str, ...], field: str, name: str | None, *, optional: bool) -> int | None:
    if name is None or (optional and name not in names):
        return None
    if name not in names:
        raise DataError(
            f"{field}: the schema has no column {shorten(name)}; it has {', '.join(names)}"
        )
    return names.index(name)
