"""Position: which samples make up step s, as a pure function of the seed and s."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.counter import draw_permutation
from export.runtime.errors import DataError

# Sources with weights are mixed in cycles of this many samples; a share is exact to 1 / CYCLE.
CYCLE = 10_000


@dataclass(frozen=True)
class Place:
    """One row of a batch: a sample of a source, and how often that sample came up before."""

    source: int
    index: int
    times_shown: int
    rank: int  # number of the row in its source's own order, to go on from where it is unreadable


class Position:
    """The order of samples: an epoch visits every sample once, in an order of its own.

    With one source, the last incomplete batch of an epoch is dropped. In a list of sources each
    runs through its own permutations, and its share of every batch follows its weight (its share
    of the samples where no weight is given).
    """

    def __init__(
        self, lengths: Sequence[int], *, weights: Sequence[float | None], seed: int, batch_size: int
    ) -> None:
        """Check that a batch fits.

        Raises:
            DataError: the batch is larger than the data set; the message gives both numbers.
        """
        total = sum(lengths)
        if batch_size > total:
            raise DataError(
                f"train.batch_size: {batch_size} is larger than the data set of {total} samples; "
                f"set it to at most {total} or give more data"
            )
        self._lengths = list(lengths)
        self._seed = seed
        self._batch_size = batch_size
        self.steps_per_epoch = total // batch_size
        self._permutations: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._cycles: dict[int, NDArray[np.int64]] = {}
        shares = [
            length / total if weight is None else weight
            for length, weight in zip(lengths, weights, strict=True)
        ]
        self._quota = _quota(shares)

    def batch(self, step: int, rows: slice | None = None) -> list[Place]:
        """Return the rows (all, or the slice of one process) of the global batch of a step."""
        slots = range(self._batch_size)[rows or slice(None)]
        if len(self._lengths) == 1:
            # Dropping the incomplete batch keeps an epoch's batches within its permutation.
            epoch, first = divmod(step, self.steps_per_epoch)
            start = epoch * self._lengths[0] + first * self._batch_size
            return [self.place(0, start + slot) for slot in slots]
        return [self._mixed(step * self._batch_size + slot) for slot in slots]

    def place(self, source: int, rank: int) -> Place:
        """Return the place of the row number ``rank`` in a source's own endless order."""
        epoch, offset = divmod(rank, self._lengths[source])
        return Place(source, int(self._permutation(source, epoch)[offset]), epoch, rank)

    def _mixed(self, number: int) -> Place:
        cycle, offset = divmod(number, CYCLE)
        pattern = self._cycle(cycle)
        source = int(pattern[offset])
        before = int(np.count_nonzero(pattern[:offset] == source))
        return self.place(source, cycle * int(self._quota[source]) + before)

    def _cycle(self, cycle: int) -> NDArray[np.int64]:
        if cycle not in self._cycles:
            order = draw_permutation(CYCLE, "cycle", self._seed, cycle)
            self._cycles = {cycle: np.repeat(np.arange(len(self._quota)), self._quota)[order]}
        return self._cycles[cycle]

    def _permutation(self, source: int, epoch: int) -> NDArray[np.int64]:
        if (source, epoch) not in self._permutations:
            # A batch touches two epochs of a source at most.
            self._permutations.pop((source, epoch - 2), None)
            length = self._lengths[source]
            order = draw_permutation(length, "order", self._seed, source, epoch)
            self._permutations[source, epoch] = order
        return self._permutations[source, epoch]


def _quota(shares: Sequence[float]) -> NDArray[np.int64]:
    """Return how many samples of a cycle each source gives: largest remainders, at least one."""
    exact = np.asarray(shares, dtype=np.float64) / sum(shares) * CYCLE
    quota = np.maximum(np.floor(exact).astype(np.int64), 1)
    while quota.sum() != CYCLE:
        step = 1 if quota.sum() < CYCLE else -1
        gap = np.where(quota + step >= 1, (exact - quota) * step, -np.inf)
        quota[int(np.argmax(gap))] += step
    return quota
