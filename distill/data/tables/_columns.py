"""Columns: the texts of millions of samples in a few flat buffers, not in millions of objects."""

from array import array

import numpy as np
from numpy.typing import NDArray

from distill.basis.words import shorten
from distill.data.tables.rows import Row
from distill.data.texts import Texts


class SampleColumns:
    """Keys, captions, labels and groups of pictures, gathered row by row, then read by number."""

    def __init__(self) -> None:
        self._keys = Texts()
        self._captions = Texts()
        self._owners = array("q")
        self._labels = _Marks()
        self._groups = _Marks()
        self._order: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._bounds: NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str) -> int:
        """Add a picture and return its number."""
        self._keys.append(key)
        return len(self._keys) - 1

    def add_caption(self, number: int, caption: str) -> None:
        """Add a caption to a picture."""
        self._captions.append(caption)
        self._owners.append(number)

    def add_label(self, number: int, label: str) -> str:
        """Set a picture's label, unless it has one, and return the one that it has."""
        return self._labels.set(number, label)

    def add_group(self, number: int, group: str) -> str:
        """Set a picture's group, unless it has one, and return the one that it has."""
        return self._groups.set(number, group)

    def freeze(self) -> None:
        """Group the captions by picture. Call it once, after the last row."""
        owners = np.array(self._owners, dtype=np.int64)
        self._order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=len(self))
        self._bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._owners = array("q")

    def key(self, number: int) -> str:
        """Return a picture's key."""
        return self._keys[number]

    def captions(self, number: int) -> tuple[str, ...]:
        """Return a picture's captions in the order of the rows, each once."""
        rows = self._order[self._bounds[number] : self._bounds[number + 1]]
        return tuple(dict.fromkeys(self._captions[row] for row in rows))

    def label(self, number: int) -> str | None:
        """Return a picture's label."""
        return self._labels.get(number)

    def group(self, number: int) -> str | None:
        """Return a picture's group."""
        return self._groups.get(number)


def fill_row(columns: SampleColumns, number: int, row: Row) -> str | None:
    """Add a row to its picture; return why it does not fit, None if it does."""
    if row.label:
        label = columns.add_label(number, row.label)
        if label != row.label:
            return _clash("label", row.label, label)
    if row.id:
        group = columns.add_group(number, row.id)
        if group != row.id:
            return _clash("id", row.id, group)
    for caption in row.captions:
        columns.add_caption(number, caption)
    return None


class _Marks:
    """At most one text for each picture; many pictures share the same."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._marks = array("q")

    def set(self, number: int, name: str) -> str:
        self._marks.extend([-1] * (number + 1 - len(self._marks)))
        if self._marks[number] < 0:
            self._marks[number] = self._numbers.setdefault(name, len(self._names))
            if len(self._names) < len(self._numbers):
                self._names.append(name)
        return self._names[self._marks[number]]

    def get(self, number: int) -> str | None:
        place = self._marks[number] if number < len(self._marks) else -1
        return None if place < 0 else self._names[place]


def _clash(what: str, mine: str, earlier: str) -> str:
    return f"{what} {shorten(mine)}, but an earlier row of the same picture has {shorten(earlier)}"
