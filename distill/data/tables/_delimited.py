"""CSV and TSV, read by Python's csv module: every field a string, nothing taken for missing."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from distill.basis.words import shorten
from distill.data.pictures import PICTURE_SUFFIXES
from distill.data.sample import Skip
from distill.data.tables.rows import ColumnNames, ColumnPlaces, Row, find_columns
from export.runtime.errors import DataError

_SAVE_AGAIN = "save the table as UTF-8 text"
_NO_HEADER = (
    "; where the first line is no header, name the columns by columns: [...], or say kind: base64 "
    "where pictures stand in it"
)


def read_delimited(
    path: Path, names: ColumnNames, columns: Sequence[str] | None = None
) -> Iterator[Row | Skip]:
    """Read a CSV (strict quotes), a TSV (no quotes at all), or a ``.txt`` that is one of them.

    ``columns`` are the names of the columns where no header says them. A ``.csv`` whose first line
    has no comma but tabs is a TSV, as open_clip's are, and one that has bars instead is parted by
    these, without quotes either, as Flickr30k's is. A row with another number of fields than
    there are columns comes out as a skip. Blank lines are passed over; white space around a field
    is dropped.

    Raises:
        DataError: the table cannot be read, is empty or lacks a column; names file and line.
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
                reason = f"the row of {shorten(name)} stands within its quotes; is one missing?"
                yield Skip(f"{path}:{line}", reason, kind="row")
            # Which of them a caption belongs to is not known.
            yield (
                Skip(f"{path}:{line}", "its quotes hold other rows", kind="row")
                if swallowed
                else _row(path, line, fields, places)
            )
        else:
            way_out = "; a field that holds a comma or a quote stands in quotes" if quotes else ""
            yield Skip(
                f"{path}:{line}",
                f"{len(fields)} fields where the header has {len(header)}{way_out}"
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
    """Return the pictures of the rows that a stray quote has made a part of another row's field.

    Such a row is a line within a field that has all columns, and a picture's name in its place.
    """
    lines = [line.split(",") for field in fields for line in field.splitlines()[1:]]
    names = [line[image].strip(' "') for line in lines if len(line) >= columns]
    return [name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]


def _empty(path: Path, columns: Sequence[str] | None) -> str:
    must = "; its first line must name the columns" if columns is None else ""
    return f"{path}: the table is empty{must}"


def _separator(path: Path, first: str, columns: Sequence[str] | None) -> str:
    """Tell by a table's name and first line what parts its columns: a comma, tabs or bars."""
    suffix = path.suffix.lower()
    if suffix == ".tsv" or (suffix == ".txt" and "\t" in first):
        return "\t"
    if suffix != ".csv":
        return ","
    if columns is None:
        return next((mark for mark in ",\t|" if mark in first), ",")
    # A caption with bars in it is likelier than one with tabs.
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
    """Give the lines, their ends kept, and stop at what is no text."""
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise DataError(f"{path}: line {number} holds a NUL byte; {_SAVE_AGAIN}")
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
    """Give the fields of each record that is not blank, with the number of its first line."""
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
        quote = "; is a quote missing its partner?" if quotes else ""
        return f"a field of more than {limit} characters{quote}"
    if "expected after" in str(error):
        return 'text after a closing quote; inside a field in quotes a quote is written ""'
    if "unexpected end" in str(error):
        return "its quote is never closed"
    return shorten(str(error))
