"""Metrics on matrices made by hand, and against the whole matrix."""

import re
import subprocess
import sys

import numpy as np
import pytest

from distill.evaluate import metrics
from distill.evaluate.metrics import (
    METRICS,
    Metric,
    Ranking,
    Rankings,
    mean_per_class_recall,
    metric_title,
    metrics_of,
    rank,
    scores,
    share_equal,
    share_in_top,
)
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.tasks import TASKS


def rank_scores(scores, query_ids, candidate_ids):
    """Rank by a matrix: unit queries pick their row of the scores."""
    scores = np.array(scores, dtype=np.float32)
    return rank(
        np.eye(len(scores), dtype=np.float32),
        np.ascontiguousarray(scores.T),
        query_ids=np.array(query_ids),
        candidate_ids=np.array(candidate_ids),
    )


def test_ranks_and_first_hits_of_a_matrix_made_by_hand():
    scores = [
        [0.9, 0.1, 0.3],  # own class first
        [0.8, 0.5, 0.1],  # second
        [0.7, 0.6, 0.2],  # last
        [0.1, 0.2, 0.3],
    ]
    ranking = rank_scores(scores, [0, 1, 2, 2], [0, 1, 2])
    assert ranking.ranks.tolist() == [0, 1, 2, 0]
    assert ranking.first.tolist() == [0, 0, 0, 2]
    assert share_in_top(ranking.ranks, 1) == 0.5
    assert share_in_top(ranking.ranks, 2) == 0.75
    assert share_in_top(ranking.ranks, 5) == 1.0
    # Class 0: 1 of 1, class 1: 0 of 1, class 2: 1 of 2.
    assert mean_per_class_recall(ranking.ranks, np.array([0, 1, 2, 2])) == pytest.approx(0.5)


def test_the_best_of_several_right_candidates_counts():
    # Candidates 0 and 1 belong to query 0, 2 and 3 to query 1.
    scores = [[0.1, 0.8, 0.9, 0.2], [0.5, 0.6, 0.1, 0.7]]
    ranking = rank_scores(scores, [0, 1], [0, 0, 1, 1])
    assert ranking.ranks.tolist() == [1, 0]
    assert ranking.first.tolist() == [1, 1]


def test_right_candidates_do_not_count_against_each_other():
    ranking = rank_scores([[0.5, 0.5, 0.5, 0.1]], [0], [0, 0, 0, 1])
    assert ranking.ranks.tolist() == [0]


def test_ties_count_against_the_model_in_any_order():
    for right in (0, 1, 2):
        ranking = rank_scores([[0.4, 0.4, 0.4]], [right], [0, 1, 2])
        assert ranking.ranks.tolist() == [2]
        assert ranking.first.tolist() == [0]


def test_nan_is_the_worst_there_is():
    nan = float("nan")
    queries = np.array([[1, 0], [1, 0], [nan, nan]], dtype=np.float32)
    candidates = np.array([[nan, nan], [-1, 0]], dtype=np.float32)
    ranking = rank(
        queries, candidates, query_ids=np.array([0, 1, 0]), candidate_ids=np.array([0, 1])
    )
    assert ranking.ranks.tolist() == [1, 0, 1]
    assert ranking.first.tolist() == [1, 1, 0]


def test_a_query_without_a_right_candidate_is_never_found():
    ranking = rank_scores([[0.9, 0.1]], [7], [0, 1])
    assert ranking.ranks.tolist() == [2]


def test_tiles_give_what_the_whole_matrix_gives(monkeypatch):
    generator = np.random.default_rng(0)
    images = generator.standard_normal((37, 8)).astype(np.float32)
    texts = generator.standard_normal((90, 8)).astype(np.float32)
    owners = generator.integers(0, 37, 90)
    whole = rank(texts, images, query_ids=owners, candidate_ids=np.arange(37))
    monkeypatch.setattr(metrics, "_TILE_SCORES", 5 * 37)
    tiled = rank(texts, images, query_ids=owners, candidate_ids=np.arange(37))
    assert tiled.ranks.tolist() == whole.ranks.tolist()
    assert tiled.first.tolist() == whole.first.tolist()
    scores = texts @ images.T
    expected = [int((row > row[owner]).sum()) for row, owner in zip(scores, owners, strict=True)]
    assert whole.ranks.tolist() == expected


def test_agreement_is_the_share_of_equal_first_hits():
    assert share_equal(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 0])) == 0.5


@pytest.mark.slow
def test_large_sets_never_hold_the_whole_matrix():
    # 5,000 × 25,000 scores are 500 MB in float32.
    code = (
        "import resource, numpy as np\n"
        "from distill.evaluate.metrics import rank_both_ways\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "images = np.random.default_rng(0).standard_normal((5000, 8)).astype(np.float32)\n"
        "rank_both_ways(images, np.repeat(images, 5, axis=0), np.repeat(np.arange(5000), 5))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 200_000


# --- the rows

ROWS = pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
# Three pictures with the captions 0, 0, 1 and 2; for classes and labels, the first direction.
BY_HAND: Rankings = {
    "image_to_text": Ranking(
        ranks=np.array([0, 4, 9]), first=np.array([0, 2, 0]), labels=np.array([0, 1, 1])
    ),
    "text_to_image": Ranking(
        ranks=np.array([0, 0, 1, 7]), first=np.array([0, 0, 2, 1]), labels=np.array([0, 0, 1, 2])
    ),
}
# What each metric makes of them.
EXPECTED = {
    "top1": 1 / 3,
    "top5": 2 / 3,
    "mean_per_class_recall": (1 + 0) / 2,
    "image_to_text_recall@1": 1 / 3,
    "image_to_text_recall@5": 2 / 3,
    "image_to_text_recall@10": 1.0,
    "text_to_image_recall@1": 2 / 4,
    "text_to_image_recall@5": 3 / 4,
    "text_to_image_recall@10": 1.0,
    "mean_recall": (1 / 3 + 2 / 3 + 1 + 2 / 4 + 3 / 4 + 1) / 6,
    "agreement@1": 1 / 3,
    "agreement@5": 2 / 3,
}


@ROWS
def test_each_metric_of_rankings_made_by_hand(metric: Metric) -> None:
    assert metric.name in EXPECTED, f"tests: EXPECTED lacks the value of {metric.name}"
    value = metric.compute(BY_HAND)
    assert type(value) is float
    assert value == pytest.approx(EXPECTED[metric.name])


@ROWS
def test_each_row_is_complete(metric: Metric) -> None:
    row = f"distill/evaluate/metrics.py: the row of {metric.name or metric}"
    names = [other.name for other in METRICS]
    assert metric.name, f"{row} has no name"
    assert names.count(metric.name) == 1, f"{row} is there {names.count(metric.name)} times"
    assert metric.title, f"{row} has no title"
    same = [other.name for other in METRICS if other.title == metric.title]
    assert same == [metric.name], f"{row} shares its title with another: {same}"
    assert re.fullmatch(r"[A-Z][^.]*\.", metric.meaning), f"{row} needs a meaning of one sentence"
    assert metric.tasks, f"{row} names no task"
    known = {task.name for task in TASKS}
    assert set(metric.tasks) <= known, f"{row} names tasks that do not exist; there are {known}"


def test_values_go_by_name_in_the_order_of_the_columns() -> None:
    rows = [metric for metric in METRICS if "zero_shot" in metric.tasks]
    found = scores("zero_shot", BY_HAND)
    assert list(found.items()) == [(metric.name, metric.compute(BY_HAND)) for metric in rows]
    assert scores("retrieval", None) == dict.fromkeys(m.name for m in metrics_of("retrieval"))


def test_a_metric_without_a_row_is_called_by_its_name() -> None:
    assert metric_title("top1") == "top-1"
    assert metric_title("of_another_version") == "of_another_version"
