"""Metrics of a ranking, in numpy alone, and the one row that describes each of them.

All of them follow from two numbers per query: the rank of its best right candidate, and the
candidate that comes first. Zero-shot classification ranks classes for each picture. Retrieval ranks
captions for each picture and pictures for each caption.

Ties count against the model: the rank is the number of wrong candidates that do not score strictly
less. A model that returns the same vector for everything therefore scores 0, and so does one that
returns NaN.

To add a metric, write its function and its row in `METRICS`, add its expected value to the tests
and run `make tables`, which writes the table in docs/file-formats.md. Reports, curves and legends
follow from the row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
_Direction = Literal["image_to_text", "text_to_image"]

# Scores held at a time (32 MB), however many queries and candidates there are.
_TILE_SCORES = 2**23


@dataclass(frozen=True)
class Ranking:
    """How the candidates rank for each query; each array is int64 ``[N]``.

    ``ranks`` are those of the best right candidate, 0 for the first. ``first`` is the id of the
    candidate with the highest score, the earliest if several have it. ``labels`` is the id that a
    right candidate has.
    """

    ranks: Ids
    first: Ids
    labels: Ids


# A model's rankings of one set. Only retrieval has both directions.
Rankings = Mapping[_Direction, Ranking]


def rank(queries: _Vectors, candidates: _Vectors, *, query_ids: Ids, candidate_ids: Ids) -> Ranking:
    """Rank candidates ``[M, D]`` by their dot product with each query ``[N, D]``.

    A candidate is right for a query if their ids are equal. Several may be right, and a query
    without a right candidate gets rank M. Scores are computed in tiles of rows, never as one matrix
    ``[N, M]``.
    """
    rows = max(1, _TILE_SCORES // max(1, len(candidates)))
    ranks = np.empty(len(queries), dtype=np.int64)
    first = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), rows):
        part = slice(start, start + rows)
        scores = queries[part] @ candidates.T
        right = query_ids[part, None] == candidate_ids[None, :]
        ranks[part], best = _rank_rows(scores, right)
        first[part] = candidate_ids[best]
    return Ranking(ranks, first, query_ids)


def rank_both_ways(images: _Vectors, texts: _Vectors, owners: Ids) -> Rankings:
    """Rank captions ``[M, D]`` for pictures ``[N, D]``, and pictures for captions.

    ``owners`` ``[M]`` is the row of the picture that each caption belongs to.
    """
    rows = np.arange(len(images))
    return {
        "image_to_text": rank(images, texts, query_ids=rows, candidate_ids=owners),
        "text_to_image": rank(texts, images, query_ids=owners, candidate_ids=rows),
    }


def _rank_rows(scores: NDArray[Any], right: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """Return the rank of the best right candidate and the index of the first, of ``[n, M]``."""
    np.fmax(scores, -np.inf, out=scores)  # NaN counts as less than anything.
    best_right = scores.max(axis=1, keepdims=True, where=right, initial=-np.inf)
    ahead = np.count_nonzero((scores >= best_right) & ~right, axis=1)
    return np.where(right.any(axis=1), ahead, scores.shape[1]), scores.argmax(axis=1)


# --- the functions


def share_in_top(ranks: Ids, k: int) -> float:
    """Return the share of queries whose best right candidate is among the first k.

    This is top-k accuracy for classes and recall@k for retrieval. With k candidates or fewer it is
    1 for any ranking.
    """
    return float(np.mean(ranks < k))


def mean_per_class_recall(ranks: Ids, labels: Ids) -> float:
    """Return top-1 recall averaged over the classes that occur in ``labels`` ``[N]``."""
    return float(np.mean([np.mean(ranks[labels == label] == 0) for label in np.unique(labels)]))


def share_equal(first: Ids, reference: Ids) -> float:
    """Return the share of queries for which both have the same candidate first."""
    return float(np.mean(first == reference))


# --- the rows


@dataclass(frozen=True)
class Metric:
    """One metric: everything that reports, curves, legends and documents say about it.

    Attributes:
        name: Its key in ``report.json``.
        title: The heading of its column.
        meaning: One sentence for the reader of a report.
        tasks: Names of the tasks that it belongs to.
        compute: Returns its value, a fraction of 1, from a model's rankings.
        more_is_better: False if a lower value is better.
    """

    name: str
    title: str
    meaning: str
    tasks: tuple[str, ...]
    compute: Callable[[Rankings], float]
    more_is_better: bool = True


def _share_in_top(rankings: Rankings, *, direction: _Direction, k: int) -> float:
    return share_in_top(rankings[direction].ranks, k)


def _mean_per_class_recall(rankings: Rankings) -> float:
    ranking = rankings["image_to_text"]
    return mean_per_class_recall(ranking.ranks, ranking.labels)


def _mean_recall(rankings: Rankings) -> float:
    recalls = [metric.compute(rankings) for metric in _RECALLS]
    return sum(recalls) / len(recalls)


def _recall(direction: _Direction, k: int) -> Metric:
    short, query, partner = {
        "image_to_text": ("i→t", "picture", "one of its captions"),
        "text_to_image": ("t→i", "caption", "its picture"),
    }[direction]
    place = "first" if k == 1 else f"among the first {k}"
    return Metric(
        f"{direction}_recall@{k}",
        f"{short} R@{k}",
        f"How often a {query} finds {partner} {place}.",
        tasks=("retrieval",),
        compute=partial(_share_in_top, direction=direction, k=k),
    )


_RECALLS = (
    *(_recall("image_to_text", k) for k in (1, 5, 10)),
    *(_recall("text_to_image", k) for k in (1, 5, 10)),
)

# In the order of the columns.
METRICS: tuple[Metric, ...] = (
    Metric(
        "top1",
        "top-1",
        "How often a picture's own class comes first.",
        tasks=("zero_shot",),
        compute=partial(_share_in_top, direction="image_to_text", k=1),
    ),
    Metric(
        "top5",
        "top-5",
        "How often a picture's own class is among the first five.",
        tasks=("zero_shot",),
        compute=partial(_share_in_top, direction="image_to_text", k=5),
    ),
    Metric(
        "mean_per_class_recall",
        "per class",
        "Top-1 computed for each class that occurs, then averaged over these classes.",
        tasks=("zero_shot",),
        compute=_mean_per_class_recall,
    ),
    *_RECALLS,
    Metric(
        "mean_recall",
        "mean R",
        "The mean of the six recalls, from pictures to captions and back.",
        tasks=("retrieval",),
        compute=_mean_recall,
    ),
    Metric(
        "agreement@1",
        "agrees",
        "How often the model and the teacher put the same label first, right or wrong.",
        tasks=("agreement",),
        compute=partial(_share_in_top, direction="image_to_text", k=1),
    ),
    Metric(
        "agreement@5",
        "in its top 5",
        "How often the teacher's first label is among the model's first five.",
        tasks=("agreement",),
        compute=partial(_share_in_top, direction="image_to_text", k=5),
    ),
)

Scores = dict[str, float | None]


def metrics_of(task: str) -> list[Metric]:
    """Return the metrics of a task, in the order of their columns."""
    return [metric for metric in METRICS if task in metric.tasks]


def metric_title(name: str) -> str:
    """Return the heading of a metric, or the name itself if no row has it."""
    return next((metric.title for metric in METRICS if metric.name == name), name)


def scores(task: str, rankings: Rankings | None) -> Scores:
    """Return every metric of a task by name, each None without rankings."""
    return {
        metric.name: None if rankings is None else metric.compute(rankings)
        for metric in metrics_of(task)
    }
