"""Position: the samples of step s, a pure function of the seed and s."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.basis.draws import draw_permutation
from distill.data.order._lanes import Lanes, default_lanes
from export.runtime.errors import DataError

# Sources with weights are mixed in cycles of this many samples; a share is exact to 1 / _CYCLE.
_CYCLE = 10_000
# If a list has shards, runs of this many rows come from one source, so every process gets equally
# many of them.
_GROUP, _LEAST_GROUPS = 8, 8


@dataclass(frozen=True)
class Place:
    """One row of a batch: a sample of a source, and how often it has been shown before."""

    source: int
    index: int
    times_shown: int
    rank: int  # number of the row in its source's own order, to continue from if it is unreadable


class Position:
    """The order of samples: an epoch visits every sample once, in an order drawn for the epoch.

    With one source, the last incomplete batch of an epoch is dropped. With several, each source
    runs through its own permutations, and its share of every batch follows its weight; without
    weights it is the source's share of all samples. Shards are read in lanes
    (``distill.data.order._lanes``).
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        weights: Sequence[float | None],
        seed: int,
        batch_size: int,
        shards: Sequence[NDArray[np.int64] | None] | None = None,
        lanes: int | None = None,
    ) -> None:
        """Check that a batch fits.

        ``shards`` holds the number of samples in each shard of each source, None for a source
        without shards. ``lanes`` is the number of shards that are read side by side; None chooses
        it.

        Raises:
            DataError: The batch is larger than the data set, or the lanes do not fit the batch or
                the shards; the message gives both numbers.
        """
        total = sum(lengths)
        if batch_size > total:
            raise DataError(
                f"train.batch_size: {batch_size} is larger than the data set of {total} samples; "
                f"set it to at most {total}, as in --set train.batch_size={max(1, total // 4)}, or "
                "give more data"
            )
        self._batch_size = batch_size
        self.steps_per_epoch = total // batch_size
        self._cycles: dict[int, NDArray[np.int64]] = {}
        self._seed = seed
        self._orders: list[Lanes | _Shuffled] = []
        for number, length in enumerate(lengths):
            of_source = None if shards is None else shards[number]
            if of_source is None:
                self._orders.append(_Shuffled(length, draw=("order", seed, number)))
                continue
            count = _lanes(lanes, batch_size, shards=int(np.count_nonzero(of_source)))
            # An epoch of a single source is whole batches; in a list it is all that the lanes have.
            used = self.steps_per_epoch * batch_size if len(lengths) == 1 else length
            draw = ("lanes", seed, number)
            self._orders.append(Lanes(of_source, lanes=count, per_lane=used // count, draw=draw))
        self._group = 1 if self.lanes is None else _group(batch_size)
        shares = [
            length / total if weight is None else weight
            for length, weight in zip(lengths, weights, strict=True)
        ]
        self._quota = _quota(shares)

    @property
    def lanes(self) -> int | None:
        """The smallest number of lanes of any source of shards, None without shards."""
        lanes = [order.lanes for order in self._orders if isinstance(order, Lanes)]
        return min(lanes, default=None)

    def batch(self, step: int, rows: slice | None = None) -> list[Place]:
        """Return the rows (all, or the slice of one process) of the global batch of a step.

        Process p of W takes the rows p, p + W, …. Other processes do not read their shards.
        """
        slots = range(self._batch_size)[rows or slice(None)]
        if len(self._orders) == 1:
            # The incomplete batch is dropped, so each batch is within one epoch's permutation.
            epoch, first = divmod(step, self.steps_per_epoch)
            start = epoch * self._orders[0].period + first * self._batch_size
            return [self.place(0, start + slot) for slot in slots]
        return [self._mixed(step * self._batch_size + slot) for slot in slots]

    def place(self, source: int, rank: int) -> Place:
        """Return the place of row number ``rank`` in a source's own endless order."""
        index, epoch = self._orders[source].at(rank)
        return Place(source, index, epoch, rank)

    def after(self, place: Place) -> Place:
        """Return the place of the sample that replaces one that cannot be read."""
        return self.place(place.source, self._orders[place.source].after(place.rank))

    def _mixed(self, number: int) -> Place:
        group, row = divmod(number, self._group)
        cycle, offset = divmod(group, _CYCLE)
        pattern = self._cycle(cycle)
        source = int(pattern[offset])
        before = int(np.count_nonzero(pattern[:offset] == source))
        rank = (cycle * int(self._quota[source]) + before) * self._group + row
        return self.place(source, rank)

    def _cycle(self, cycle: int) -> NDArray[np.int64]:
        if cycle not in self._cycles:
            order = draw_permutation(_CYCLE, "cycle", self._seed, cycle)
            self._cycles = {cycle: np.repeat(np.arange(len(self._quota)), self._quota)[order]}
        return self._cycles[cycle]


class _Shuffled:
    """The order of a source without shards: a permutation of all its samples for each epoch."""

    def __init__(self, length: int, *, draw: tuple[str | int, ...]) -> None:
        self.period = length
        self._draw = draw
        self._permutations: dict[int, NDArray[np.int64]] = {}

    def at(self, rank: int) -> tuple[int, int]:
        epoch, offset = divmod(rank, self.period)
        if epoch not in self._permutations:
            # A batch spans at most two epochs of a source.
            self._permutations.pop(epoch - 2, None)
            self._permutations[epoch] = draw_permutation(self.period, *self._draw, epoch)
        return int(self._permutations[epoch][offset]), epoch

    def after(self, rank: int) -> int:
        return rank + 1


def _lanes(given: int | None, batch_size: int, *, shards: int) -> int:
    """Return the number of lanes: the given one if it fits, or the default."""
    if given is None:
        return default_lanes(batch_size, shards)
    if given > shards:
        raise DataError(
            f"data.lanes: {given}, but there are {shards} shards to read side by side; set it to "
            f"at most {shards}, or leave it out"
        )
    if batch_size % given:
        raise DataError(
            f"data.lanes: {given} does not divide train.batch_size: {batch_size}; a batch takes "
            "the same number of samples from each lane; change one of them, or leave data.lanes out"
        )
    return given


def _group(batch_size: int) -> int:
    group = 1
    while group < _GROUP and batch_size % (2 * group) == 0 and batch_size // group > _LEAST_GROUPS:
        group *= 2
    return group


def _quota(shares: Sequence[float]) -> NDArray[np.int64]:
    """Return each source's number of samples in a cycle: largest remainders, at least one."""
    exact = np.asarray(shares, dtype=np.float64) / sum(shares) * _CYCLE
    quota = np.maximum(np.floor(exact).astype(np.int64), 1)
    while quota.sum() != _CYCLE:
        step = 1 if quota.sum() < _CYCLE else -1
        gap = np.where(quota + step >= 1, (exact - quota) * step, -np.inf)
        quota[int(np.argmax(gap))] += step
    return quota
