"""Where the shards of a cache begin and end: with the tars, where the pictures come from tars."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.data.sample import Source
from distill.data.shards.source import shard_lengths


def share_pictures(
    source: Source, numbers: Sequence[int], *, rank: int, count: int
) -> Sequence[int]:
    """Return what process ``rank`` of ``count`` embeds of some pictures: of tars, whole ones."""
    tars = _tars(source, numbers)
    if tars is None or count == 1:
        return numbers[rank::count]
    mine = np.isin(tars, np.unique(tars)[rank::count])
    chosen: list[int] = np.asarray(numbers, np.int64)[mine].tolist()
    return chosen


def shard_ends(source: Source, numbers: Sequence[int], *, rows: int) -> list[int]:
    """Return after how many of these pictures a shard of the cache ends, beside every ``rows``.

    A shard holds whole tars, as many as fit into it; of a larger tar it holds nothing else.
    """
    tars = _tars(source, numbers)
    if tars is None:
        return []
    ends: list[int] = []
    waiting = 0
    edges = [*np.flatnonzero(np.diff(tars)) + 1, len(numbers)]
    for first, end in zip([0, *edges], edges, strict=False):
        if waiting and waiting + end - first > rows:
            ends.append(int(first))
            waiting = 0
        waiting += end - first
    return ends


def in_order(source: Source, texts: Sequence[str], *, rows: int) -> list[str]:
    """Return captions with those of one length together, so that little of a batch is padding.

    Captions of tars move no further than within a shard of ``rows``.
    """
    window = max(len(texts), 1) if shard_lengths(source) is None else rows
    return [
        text
        for first in range(0, len(texts), window)
        for text in sorted(texts[first : first + window], key=len)
    ]


def _tars(source: Source, numbers: Sequence[int]) -> NDArray[np.int64] | None:
    """Return the tar of each picture, None where the source has none."""
    lengths = shard_lengths(source)
    if lengths is None:
        return None
    return np.searchsorted(np.cumsum(lengths), np.asarray(numbers, np.int64), side="right")
