"""Rows, which every form of table is read into, and the lookup of their columns."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from distill.basis.words import shorten
from export.runtime.errors import DataError

IMAGE_COLUMN = "image"
CAPTION_COLUMN = "caption"
LABEL_COLUMN = "label"
# What open_clip calls these columns.
_OTHER_NAMES = {IMAGE_COLUMN: "filepath", CAPTION_COLUMN: "title"}
_SHOWN_COLUMNS = 12


@dataclass(frozen=True)
class Row:
    """One row: its number, the picture as written, its captions, label and id ('' for none).

    ``number`` is the line in CSV, TSV and JSON lines, otherwise the row; both begin at 1.
    """

    number: int
    image: str
    captions: tuple[str, ...]
    label: str
    id: str = ""


@dataclass(frozen=True)
class ColumnNames:
    """The names of the columns to read; None for a column that is not read.

    A label column with the default name, ``label``, may be missing from a table. If the default
    ``image`` or ``caption`` is missing, ``filepath`` or ``title`` is read instead.
    """

    image: str = IMAGE_COLUMN
    caption: str | None = CAPTION_COLUMN
    label: str | None = LABEL_COLUMN
    id: str | None = None


@dataclass(frozen=True)
class ColumnPlaces:
    """The places of the columns in a table; None for a column that is not read."""

    image: int
    caption: int | None
    label: int | None
    id: int | None


def find_columns(
    columns: Sequence[str], names: ColumnNames, *, table: str, header_hint: str = ""
) -> ColumnPlaces:
    """Return the places of the named columns; ``header_hint`` ends the message of a missing one.

    Raises:
        DataError: A column is missing or appears twice; the message lists the columns.
    """
    label = names.label
    if label == LABEL_COLUMN and LABEL_COLUMN not in columns:
        label = None
    hint = ", or set caption_column: null for pictures without captions"
    return ColumnPlaces(
        image=_find(
            columns,
            _called(columns, names.image),
            field="image_column",
            table=table,
            hint=header_hint,
        ),
        caption=None
        if names.caption is None
        else _find(
            columns,
            _called(columns, names.caption),
            field="caption_column",
            table=table,
            hint=hint + header_hint,
        ),
        label=None
        if label is None
        else _find(columns, label, field="label_column", table=table, hint=header_hint),
        id=None
        if names.id is None
        else _find(columns, names.id, field="id_column", table=table, hint=header_hint),
    )


def unusable(text: str) -> str | None:
    """Return why a text cannot be a caption, label or name; None if it can."""
    if "\0" in text:
        return "it contains a NUL byte"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return "it contains half a character (a lone surrogate)"
    return None


def _called(columns: Sequence[str], name: str) -> str:
    """Return what the table calls a column."""
    other = _OTHER_NAMES.get(name)
    return name if other is None or name in columns or other not in columns else other


def _find(columns: Sequence[str], name: str, *, field: str, table: str, hint: str = "") -> int:
    count = list(columns).count(name)
    if count == 1:
        return list(columns).index(name)
    if count > 1:
        raise DataError(
            f"{table}: {count} columns are called {shorten(name)} ({field}); rename all but one"
        )
    shown = ", ".join(shorten(column, limit=40) for column in columns[:_SHOWN_COLUMNS])
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    folded = {column.casefold(): column for column in reversed(columns)}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1)
    guess = f" (the nearest is {shorten(folded[nearest[0]])})" if nearest else ""
    raise DataError(
        f"{table}: it has no column {shorten(name)}; it has {shown}{more}{guess}; "
        f"set {field} to one of these{hint}"
    )
