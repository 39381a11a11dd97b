"""The order in which a cache is filled, which follows the tars if pictures come from tars."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.data.sample import Source, extras_of


def share_pictures(
    source: Source, numbers: Sequence[int], *, rank: int, count: int
) -> Sequence[int]:
    """Return the pictures that process ``rank`` of ``count`` embeds; tars are not split."""
    tars = _tars(source, numbers)
    if tars is None or count == 1:
        return numbers[rank::count]
    mine = np.isin(tars, np.unique(tars)[rank::count])
    chosen: list[int] = np.asarray(numbers, np.int64)[mine].tolist()
    return chosen


def shard_ends(source: Source, numbers: Sequence[int], *, rows: int) -> list[int]:
    """Return the numbers of pictures after which a shard ends, although it has fewer than ``rows``.

    A shard holds as many whole tars as fit into it. A tar larger than a shard shares none of its
    shards with other tars.
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
    """Return captions sorted by length, so batches have little padding.

    Captions from tars are sorted only within each shard of ``rows`` rows.
    """
    window = max(len(texts), 1) if extras_of(source).shard_lengths is None else rows
    return [
        text
        for first in range(0, len(texts), window)
        for text in sorted(texts[first : first + window], key=len)
    ]


def _tars(source: Source, numbers: Sequence[int]) -> NDArray[np.int64] | None:
    """Return the number of each picture's tar, None if the source has no tars."""
    lengths = extras_of(source).shard_lengths
    if lengths is None:
        return None
    return np.searchsorted(np.cumsum(lengths), np.asarray(numbers, np.int64), side="right")
