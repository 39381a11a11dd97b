"""The columns of a set's table: a heading, what it means, and a cell for each model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.evaluate.metrics import METRICS, Metric, metric_title, metrics_of
from distill.evaluate.tasks import TASKS

_MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One column; ``cells`` holds finished texts by model, ``meaning`` may be empty."""

    title: str
    meaning: str
    cells: Mapping[str, str]
    is_size: bool = False
    is_strong: bool = False


def columns_of(entry: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns of one set of a report, in their order.

    Args:
        entry: The set, as in ``report.json``.
        models: The models, as in ``report.json``.
    """
    results = entry["results"]
    meanings = {metric.name: meaning_of(metric) for metric in METRICS}
    columns = [
        Column(
            metric_title(name),
            meanings.get(name, ""),
            {model["name"]: format_percent(results[model["name"]].get(name)) for model in models},
        )
        for name in _metric_names(entry)
    ]
    columns += [
        Column(
            name,
            meaning,
            {model["name"]: format_percent(entry[name][model["name"]]) for model in models},
            is_strong=name == "retained",
        )
        for name, meaning in _shares(entry["task"]).items()
    ]
    parameters = {model["name"]: format_count(model["parameters"]) for model in models}
    sizes = {model["name"]: format_bytes(model["bytes"]) for model in models}
    return [
        *columns,
        Column("parameters", "", parameters, is_size=True),
        Column("size", "", sizes, is_size=True),
    ]


def legend_of(tables: Sequence[Sequence[Column]]) -> list[tuple[str, str]]:
    """Return heading and meaning of each column that needs an explanation, once."""
    return list(
        dict.fromkeys(
            (column.title, column.meaning)
            for columns in tables
            for column in columns
            if column.meaning
        )
    )


def task_title(name: str) -> str:
    """Return what a report calls a task, or the name itself if no row has it."""
    return next((task.title for task in TASKS if task.name == name), name)


def _metric_names(entry: Mapping[str, Any]) -> list[str]:
    """Return the metrics that a set has: those of its task in their order, then any others."""
    there = list(dict.fromkeys(name for found in entry["results"].values() for name in found))
    known = [metric.name for metric in metrics_of(entry["task"]) if metric.name in there]
    return [*known, *(name for name in there if name not in known)]


def meaning_of(metric: Metric) -> str:
    """Return what a metric means, with a remark if less is better."""
    return metric.meaning if metric.more_is_better else f"{metric.meaning} Less is better."


def _shares(task: str) -> dict[str, str]:
    """Return the shares that compare a model with the reference, and what they mean."""
    if any(row.name == task and not row.retained for row in TASKS):
        return {}  # The metrics of this task compare with the teacher already.
    headlines = ", ".join(
        f"{metric_title(row.headline)} in {row.title}" for row in TASKS if row.retained
    )
    return {
        "retained": f"The headline figure as a share of the reference model's: {headlines}.",
        "agreement": "How often the model's first answer is the reference model's, right or wrong.",
    }


def format_percent(share: float | None) -> str:
    """Return a fraction of 1 in per cent with one decimal, or a dash if there is no number."""
    return _MISSING if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def format_count(count: int | None) -> str:
    """Return a number of weights in thousands, millions or billions."""
    return _MISSING if count is None else _scale(count).strip()


def format_bytes(size: int | None) -> str:
    """Return a size in B, kB, MB or GB, in powers of 1,000."""
    return _MISSING if size is None else f"{_scale(size)}B"


def _scale(value: int) -> str:
    """Return a number with three digits and the letter of its unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            decimals = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:.{decimals}f} {unit}"
    return f"{value} "
