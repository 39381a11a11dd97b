"""Rows: what every form of table is read into, and how its columns are found."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from export.runtime.errors import DataError

LABEL_COLUMN = "label"
SHOWN_COLUMNS = 12


@dataclass(frozen=True)
class Row:
    """One row: where it stands, the picture as written, its captions and its label ('' for none).

    ``number`` is the line in CSV and TSV, else the row; both begin at 1.
    """

    number: int
    image: str
    captions: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class ColumnNames:
    """The names of the columns to read; None where a column is not to be read.

    The label column of the name that is the default (``label``) may be missing from a table.
    """

    image: str = "image"
    caption: str | None = "caption"
    label: str | None = LABEL_COLUMN


@dataclass(frozen=True)
class ColumnPlaces:
    """The places of the columns in a table; None where there is no such column."""

    image: int
    caption: int | None
    label: int | None


def find_columns(columns: Sequence[str], names: ColumnNames, *, table: str) -> ColumnPlaces:
    """Return the places of the named columns.

    Raises:
        DataError: a column is missing or stands there twice; the message lists the columns.
    """
    label = names.label
    if label == LABEL_COLUMN and LABEL_COLUMN not in columns:
        label = None
    hint = ", or set caption_column: null for pictures without captions"
    return ColumnPlaces(
        image=_find(columns, names.image, field="image_column", table=table),
        caption=None
        if names.caption is None
        else _find(columns, names.caption, field="caption_column", table=table, hint=hint),
        label=None if label is None else _find(columns, label, field="label_column", table=table),
    )


def shorten(text: str, *, limit: int = 80) -> str:
    """Return a text in quotes on one line, cut where it is long."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _find(columns: Sequence[str], name: str, *, field: str, table: str, hint: str = "") -> int:
    count = list(columns).count(name)
    if count == 1:
        return list(columns).index(name)
    if count > 1:
        raise DataError(
            f"{table}: {count} columns are called {shorten(name)} ({field}); rename all but one"
        )
    shown = ", ".join(shorten(column, limit=40) for column in columns[:SHOWN_COLUMNS])
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    folded = {column.casefold(): column for column in reversed(columns)}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1)
    guess = f" (the nearest is {shorten(folded[nearest[0]])})" if nearest else ""
    raise DataError(
        f"{table}: there is no column {shorten(name)}; its columns are {shown}{more}{guess}; "
        f"set {field} to one of these{hint}"
    )
