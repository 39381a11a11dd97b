"""Lanes: shards are read side by side, so few are open at once and processes share almost none.

In an epoch of N samples, L lanes each give n samples:

1. The shards get an order that is drawn for the epoch.
2. The sequence of N samples is cut into L stretches of at least n samples, one for each lane. It
   is cut into f equal parts, each part again, and so on, where f runs through the prime factors of
   L, largest first. If the lanes of a stretch are those with remainder r modulo m, part i of it
   gets the lanes with remainder r + i·m modulo f·m. A cut is moved to the nearest boundary between
   two shards if all lanes keep n samples.
3. A lane reads its stretch in blocks of ``BLOCK_SHARDS`` shards. The samples of a block are
   shuffled. The last samples of a stretch, beyond n, are left out of the epoch.

Sample i of an epoch is number ⌊i / L⌋ of lane i mod L. If L divides the batch size, a batch takes
the same number of samples from each lane. If the number of processes W divides L, process p, which
has the rows p, p + W, … of every batch, reads the lanes p, p + W, …. Because of step 2 these lanes
are one contiguous part of the sequence, for every W that is a product of the largest factors. So at
most W - 1 shards are read by two processes in an epoch, and none if the shards divide evenly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.basis.draws import draw_permutation

_MOST_LANES = 64
BLOCK_SHARDS = 4


def default_lanes(batch_size: int, shards: int) -> int:
    """Return the largest power of two up to 64 that divides the batch and is at most ``shards``."""
    lanes = 1
    while lanes < _MOST_LANES and 2 * lanes <= shards and batch_size % (2 * lanes) == 0:
        lanes *= 2
    return lanes


class Lanes:
    """The order of the samples of one source of shards, a pure function of its arguments."""

    def __init__(
        self, lengths: NDArray[np.int64], *, lanes: int, per_lane: int, draw: tuple[str | int, ...]
    ) -> None:
        """Take the number of samples in each shard, and how many each lane gives in an epoch.

        The order follows from ``draw``.
        """
        self._lengths = lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        self._draw = draw
        self._per_lane = per_lane
        self.lanes = lanes
        self.period = lanes * per_lane
        self._epochs: dict[int, _Epoch] = {}
        self._blocks: dict[int, tuple[tuple[int, int], NDArray[np.int64]]] = {}

    def at(self, rank: int) -> tuple[int, int]:
        """Return the index of sample number ``rank``, counted over all epochs, and its epoch."""
        epoch, offset = divmod(rank, self.period)
        number, lane = divmod(offset, self.lanes)
        found = self._epoch(epoch)
        edges = found.edges[lane]
        block = int(np.searchsorted(edges, edges[0] + number, side="right")) - 1
        position = int(self._block(epoch, lane, block)[edges[0] + number - edges[block]])
        place = int(np.searchsorted(found.starts, position, side="right")) - 1
        shard = found.order[place]
        return int(self._starts[shard] + position - found.starts[place]), epoch

    def after(self, rank: int) -> int:
        """Return the rank of the next sample of the same lane."""
        return rank + self.lanes

    def _epoch(self, epoch: int) -> "_Epoch":
        if epoch not in self._epochs:
            # A batch spans at most two epochs.
            self._epochs.pop(epoch - 2, None)
            order = draw_permutation(len(self._lengths), "shards", *self._draw, epoch)
            ends = np.cumsum(self._lengths[order])
            starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
            edges = _cut(starts, int(ends[-1]), lanes=self.lanes, needed=self._per_lane)
            self._epochs[epoch] = _Epoch(order, starts, edges)
        return self._epochs[epoch]

    def _block(self, epoch: int, lane: int, block: int) -> NDArray[np.int64]:
        """Return the positions of a block in the epoch's sequence, shuffled."""
        held, positions = self._blocks.get(lane, ((-1, -1), np.zeros(0, np.int64)))
        if held != (epoch, block):
            edges = self._epoch(epoch).edges[lane]
            first, end = int(edges[block]), int(edges[block + 1])
            order = draw_permutation(end - first, "block", *self._draw, epoch, lane, block)
            positions = first + order
            self._blocks[lane] = (epoch, block), positions
        return positions


@dataclass(frozen=True)
class _Epoch:
    """One epoch: the order of the shards, their starts, and the edges of each lane's blocks."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    edges: list[NDArray[np.int64]]


def _cut(
    starts: NDArray[np.int64], total: int, *, lanes: int, needed: int
) -> list[NDArray[np.int64]]:
    """Return the edges of each lane's blocks in a sequence of shards that begin at ``starts``.

    The first edge of a lane is the beginning of its stretch, the last edge is its end.
    """
    stretches = [(0, total)] * lanes
    width = 1
    for factor in _prime_factors(lanes):
        below = lanes // (width * factor)
        for lane in range(width):
            first, end = stretches[lane]
            bounds = [first]
            for part in range(1, factor):
                low = bounds[-1] + below * needed
                high = end - (factor - part) * below * needed
                bounds.append(_bound(starts, first + (end - first) * part // factor, low, high))
            bounds.append(end)
            for part in range(factor):
                stretches[lane + part * width] = (bounds[part], bounds[part + 1])
        width *= factor
    edges = []
    for first, end in stretches:
        inside = starts[(starts > first) & (starts < end)]
        inner = np.unique(inside)[BLOCK_SHARDS - 1 :: BLOCK_SHARDS]
        edges.append(np.concatenate([[first], inner, [end]]).astype(np.int64))
    return edges


def _bound(starts: NDArray[np.int64], wanted: int, low: int, high: int) -> int:
    """Return the start of a shard between low and high that is nearest to ``wanted``.

    If there is none, return ``wanted``, limited to low and high.
    """
    near = starts[(starts >= low) & (starts <= high)]
    if not len(near):
        return min(max(wanted, low), high)
    return int(near[np.argmin(np.abs(near - wanted))])


def _prime_factors(number: int) -> list[int]:
    """Return the prime factors of a number, largest first."""
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors[::-1]
