"""CSV and TSV, read by Python's csv module: every field is a string, and none means missing."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from distill.basis.words import shorten
from distill.data.marks import PICTURE_SUFFIXES
from distill.data.sample import Skip
from distill.data.tables.rows import ColumnNames, ColumnPlaces, Row, find_columns
from export.runtime.errors import DataError

_SAVE_AGAIN = "save the table as UTF-8 text"
_NO_HEADER = (
    "; if the first line is not a header, name the columns with columns: [...]; if the file holds "
    "the pictures themselves, use kind: base64"
)


def read_delimited(
    path: Path, names: ColumnNames, columns: Sequence[str] | None = None
) -> Iterator[Row | Skip]:
    """Read a CSV (strict quotes), a TSV (no quotes at all), or a ``.txt`` that is one of them.

    ``columns`` are the names of the columns if the file has no header. A ``.csv`` whose first line
    has tabs and no comma is a TSV, as open_clip's are. One that has bars instead is separated by
    bars, also without quotes, as Flickr30k's is. A row with the wrong number of fields is a skip.
    Blank lines are ignored, and white space around a field is dropped.

    Raises:
        DataError: The table cannot be read, is empty or lacks a column; the message names file
            and line.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _read(path, file, names, columns)
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read: {error.strerror}") from error


def _read(
    path: Path, file: TextIO, names: ColumnNames, columns: Sequence[str] | None
) -> Iterator[Row | Skip]:
    lines = _lines(path, file)
    first = next(lines, None)
    if first is None:
        raise DataError(_empty(path, columns))
    separator = _separator(path, first, columns)
    quotes = separator == ","
    records = _records(path, itertools.chain([first], lines), separator=separator)
    header = next(records, (0, []))[1] if columns is None else columns
    if not header:
        raise DataError(_empty(path, columns))
    places = find_columns(
        header, names, table=str(path), header_hint=_NO_HEADER if columns is None else ""
    )
    empty = True
    for line, fields in records:
        empty = False
        if len(fields) == len(header):
            swallowed = _swallowed(fields, len(header), places.image) if quotes else []
            for name in swallowed:
                reason = f"the row of {shorten(name)} is inside its quotes; is a quote missing?"
                yield Skip(f"{path}:{line}", reason, kind="row")
            # It is unclear which row a caption belongs to.
            yield (
                Skip(f"{path}:{line}", "its quotes contain other rows", kind="row")
                if swallowed
                else _row(path, line, fields, places)
            )
        else:
            way_out = "; a field with a comma or a quote must be in quotes" if quotes else ""
            yield Skip(
                f"{path}:{line}",
                f"{len(fields)} fields, but the header has {len(header)}{way_out}"
                if columns is None
                else f"{len(fields)} fields for {len(header)} columns{way_out}",
                kind="row",
            )
    if empty:
        raise DataError(
            f"{path}: the table has a header and no rows below it"
            if columns is None
            else _empty(path, columns)
        )


def _swallowed(fields: list[str], columns: int, image: int) -> list[str]:
    """Return the pictures of rows that a stray quote has made part of another row's field.

    Such a row is a line of a field that has all columns and a picture's name in the right one.
    """
    lines = [line.split(",") for field in fields for line in field.splitlines()[1:]]
    names = [line[image].strip(' "') for line in lines if len(line) >= columns]
    return [name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]


def _empty(path: Path, columns: Sequence[str] | None) -> str:
    must = "; its first line must name the columns" if columns is None else ""
    return f"{path}: the table is empty{must}"


def _separator(path: Path, first: str, columns: Sequence[str] | None) -> str:
    """Return what separates the columns, by a table's name and first line: comma, tab or bar."""
    suffix = path.suffix.lower()
    if suffix == ".tsv" or (suffix == ".txt" and "\t" in first):
        return "\t"
    if suffix != ".csv":
        return ","
    if columns is None:
        return next((mark for mark in ",\t|" if mark in first), ",")
    # Captions contain bars more often than tabs.
    fits = (mark for mark in "\t,|" if mark in first and first.count(mark) == len(columns) - 1)
    return next(fits, ",")


def _row(path: Path, line: int, fields: list[str], places: ColumnPlaces) -> Row | Skip:
    image = fields[places.image]
    if not image:
        return Skip(f"{path}:{line}", "its picture has no name", kind="row")
    caption = "" if places.caption is None else fields[places.caption]
    label = "" if places.label is None else fields[places.label]
    group = "" if places.id is None else fields[places.id]
    return Row(line, image, (caption,) if caption else (), label, group)


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield the lines with their ends, and stop at anything that is not text."""
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise DataError(f"{path}: line {number} contains a NUL byte; {_SAVE_AGAIN}")
        if not line.isascii():
            try:
                line.encode("utf-8")
            except UnicodeEncodeError as error:
                byte = ord(line[error.start]) - 0xDC00
                raise DataError(
                    f"{path}: line {number}, character {error.start + 1} is not UTF-8 "
                    f"(byte 0x{byte:02x}); {_SAVE_AGAIN}"
                ) from error
        yield line


def _records(
    path: Path, lines: Iterator[str], *, separator: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each record that is not blank, with the number of its first line."""
    quotes = separator == ","
    if quotes:
        reader = csv.reader(lines, strict=True, skipinitialspace=True)
    else:
        reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
    while True:
        begin = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that begins in line {begin} cannot be read "
                f"({_reason(error, quotes=quotes)})"
            ) from error
        fields = [field.strip() for field in fields]
        if len(fields) > 1 or (fields and fields[0]):
            yield begin, fields


def _reason(error: csv.Error, *, quotes: bool) -> str:
    limit = csv.field_size_limit()
    if "field larger" in str(error):
        quote = "; is a closing quote missing?" if quotes else ""
        return f"a field of more than {limit} characters{quote}"
    if "expected after" in str(error):
        return 'text after a closing quote; write a quote inside a quoted field as ""'
    if "unexpected end" in str(error):
        return "its quote is never closed"
    return shorten(str(error))
