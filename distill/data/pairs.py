"""Pairs: the caption that goes with a picture, and the true partners in a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.basis.draws import draw_integers, draw_permutation
from distill.data.sample import Sample, Source


@dataclass(frozen=True)
class _Caption:
    """The caption of a row, ``borrowed`` if its picture has none of its own."""

    text: str
    borrowed: bool


class Captions:
    """Chooses the caption of each row: one of its own, or one borrowed from the corpus."""

    def __init__(self, sources: Sequence[Source], *, seed: int) -> None:
        """Count the captions of every sample, so any caption can be drawn by its number."""
        self._sources = sources
        self._seed = seed
        counts = [
            np.fromiter((len(sample.captions) for sample in iterate(source)), np.int64, len(source))
            for source in sources
        ]
        self._ends = np.cumsum(np.concatenate(counts)) if counts else np.zeros(0, np.int64)
        self._starts = np.cumsum([0, *(len(source) for source in sources)])
        self.total = int(self._ends[-1]) if len(self._ends) else 0
        self.without = int(sum(int(np.count_nonzero(count == 0)) for count in counts))

    def choose(self, sample: Sample, *, times_shown: int) -> _Caption | None:
        """Return the caption for this showing of a sample, or None if the corpus has none.

        Its own captions take turns, starting from one that the key decides. A picture without
        captions borrows one from all captions of the training sources, a new one each time.
        """
        if sample.captions:
            first = draw_integers("caption", self._seed, sample.key)[0]
            return _Caption(sample.captions[(first + times_shown) % len(sample.captions)], False)
        if self.total == 0:
            return None
        number = draw_integers("borrow", self._seed, sample.key, times_shown)[0] % self.total
        return _Caption(self._caption(number), True)

    def draw(self, count: int) -> tuple[str, ...]:
        """Return ``count`` different captions drawn by the seed, or all if there are fewer."""
        order = draw_permutation(self.total, "bank", self._seed)
        drawn: dict[str, None] = {}
        for number in order:
            if len(drawn) == count:
                break
            drawn[self._caption(int(number))] = None
        return tuple(drawn)

    def _caption(self, number: int) -> str:
        row = int(np.searchsorted(self._ends, number, side="right"))
        source = int(np.searchsorted(self._starts, row, side="right")) - 1
        captions = self._sources[source][row - int(self._starts[source])].captions
        return captions[number - (int(self._ends[row]) - len(captions))]


def iterate(source: Source) -> Iterator[Sample]:
    """Yield all samples of a source in order."""
    for number in range(len(source)):
        yield source[number]


def group_rows(keys: Sequence[int], captions: Sequence[int]) -> NDArray[np.int64]:
    """Return the group id ``[B]`` of each row of the global batch.

    Rows that share a key or a caption, directly or through other rows, form a group. ``keys`` and
    ``captions`` are digests. A caption of -1 marks a borrowed one, and its row gets the id -1.
    """
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[tuple[str, int], int] = {}
    for row, (key, caption) in enumerate(zip(keys, captions, strict=True)):
        if caption == -1:
            continue
        for mark in (("key", key), ("caption", caption)):
            parent[root(row)] = root(first.setdefault(mark, row))
    return np.array(
        [-1 if caption == -1 else root(row) for row, caption in enumerate(captions)], np.int64
    )
