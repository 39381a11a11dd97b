"""Metrics on embeddings, in numpy alone.

Everything follows from two numbers of each query: the rank of its best right candidate, and the
candidate that comes first. Zero-shot classification asks pictures for classes, retrieval asks
pictures for captions and captions for pictures.

Ties count against the model: the rank is the number of wrong candidates that do not score strictly
less. So a model that gives everything the same vector reaches 0, and one that gives NaN as well.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
Ids = NDArray[np.int64]

# Scores held at a time (32 MB), however many queries and candidates there are.
TILE_SCORES = 2**23


@dataclass(frozen=True)
class Ranking:
    """Per query, int64 ``[N]``: ``ranks`` of the best right candidate (0 is first), ``first`` hits.

    ``first`` is the id of the candidate with the highest score, of equal ones the earliest.
    """

    ranks: Ids
    first: Ids


def rank(
    queries: Embeddings, candidates: Embeddings, *, query_ids: Ids, candidate_ids: Ids
) -> Ranking:
    """Rank candidates ``[M, D]`` by their dot product with each query ``[N, D]``.

    A candidate is right for a query where their ids are equal; several may be, and a query without
    any gets rank M. Scores are computed in tiles of rows, never as one matrix ``[N, M]``.
    """
    rows = max(1, TILE_SCORES // max(1, len(candidates)))
    ranks = np.empty(len(queries), dtype=np.int64)
    first = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), rows):
        part = slice(start, start + rows)
        scores = queries[part] @ candidates.T
        right = query_ids[part, None] == candidate_ids[None, :]
        ranks[part], best = _rank_rows(scores, right)
        first[part] = candidate_ids[best]
    return Ranking(ranks, first)


def rank_both_ways(images: Embeddings, texts: Embeddings, owners: Ids) -> tuple[Ranking, Ranking]:
    """Rank captions ``[M, D]`` for pictures ``[N, D]``, and the other way round.

    ``owners`` ``[M]`` is the row of the picture that each caption belongs to.
    """
    rows = np.arange(len(images))
    return (
        rank(images, texts, query_ids=rows, candidate_ids=owners),
        rank(texts, images, query_ids=owners, candidate_ids=rows),
    )


def _rank_rows(scores: NDArray[Any], right: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """Return rank of the best right candidate and index of the first hit for scores ``[n, M]``."""
    np.fmax(scores, -np.inf, out=scores)  # NaN is less than anything
    best_right = scores.max(axis=1, keepdims=True, where=right, initial=-np.inf)
    ahead = np.count_nonzero((scores >= best_right) & ~right, axis=1)
    return np.where(right.any(axis=1), ahead, scores.shape[1]), scores.argmax(axis=1)


def share_in_top(ranks: Ids, k: int) -> float:
    """Return the share of queries whose best right candidate is among the first k.

    This is top-k accuracy for classes and recall@k for retrieval. With k candidates or fewer it is
    1 for any ranking.
    """
    return float(np.mean(ranks < k))


def mean_per_class_recall(ranks: Ids, labels: Ids) -> float:
    """Return top-1 recall averaged over the classes that occur in ``labels`` ``[N]``."""
    return float(np.mean([np.mean(ranks[labels == label] == 0) for label in np.unique(labels)]))


def agreement(first: Ids, reference: Ids) -> float:
    """Return the share of queries whose first hit is the reference's."""
    return float(np.mean(first == reference))
