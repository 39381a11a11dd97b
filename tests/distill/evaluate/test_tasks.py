"""The rows of the tasks."""

from typing import get_args

from distill.evaluate.metrics import metrics_of
from distill.recipe.evaluate import EvaluationEntry
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.tasks import TASKS


def test_each_row_is_complete() -> None:
    for task in TASKS:
        row = f"distill/evaluate/tasks.py: the row of {task.name}"
        assert task.title, f"{row} has no title"
        metrics = {metric.name: metric for metric in metrics_of(task.name)}
        assert metrics, f"{row} has no metric: no row of METRICS names it in tasks"
        assert task.headline in metrics, f"{row}: its headline must be one of {list(metrics)}"
        # The best student is the one with the highest headline.
        assert metrics[task.headline].more_is_better, f"{row}: less of its headline is better"


def test_recipes_may_name_exactly_these_tasks() -> None:
    allowed = get_args(EvaluationEntry.model_fields["task"].annotation)
    assert list(allowed) == [task.name for task in TASKS]
