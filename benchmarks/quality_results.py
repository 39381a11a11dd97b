"""Finished runs of ``benchmarks/quality.py`` and their tables."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.photographs import RECALLS

COLUMNS = {**RECALLS, "mean_recall": "mean recall", "top1": "top-1"}


class Results:
    """Finished runs, one line each, identified by everything that affects their numbers."""

    def __init__(self, path: Path) -> None:
        """Read the existing lines."""
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the line with this key, or None."""
        plain = json.loads(json.dumps(key))
        return next((line for line in self.lines if line["key"] == plain), None)

    def add(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Append a line immediately, so no finished run is lost."""
        line: dict[str, Any] = json.loads(json.dumps({"key": key, **values}))
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line


def table_lines(
    runs_of: Mapping[str, Sequence[Mapping[str, Any]]],
    teacher: Mapping[str, float],
    *,
    against: str,
    seeds: int,
) -> list[str]:
    """Return one Markdown table; mean recalls are also shown as multiples of ``against``'s."""
    counted = any("steps" in run for runs in runs_of.values() for run in runs)
    more = ["of teacher's", f"× {against}"] + (["steps"] if counted else [])
    lines = ["| method | " + " | ".join([*COLUMNS.values(), *more]) + " |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) + len(more)))
    recalls = {
        name: statistics.mean(run["scores"]["mean_recall"] for run in runs)
        for name, runs in runs_of.items()
        if runs
    }
    for name, recall in recalls.items():
        runs = runs_of[name]
        cells = [_spread([run["scores"][column] for run in runs]) for column in COLUMNS]
        cells.append(f"{100 * recall / teacher['mean_recall']:.0f} %")
        cells.append(f"{recall / recalls[against]:.2f}" if against in recalls else "–")
        if counted:
            cells.append(f"{statistics.mean(run['steps'] for run in runs):.0f}")
        missing = "" if len(runs) == seeds else f" ({len(runs)} of the seeds)"
        lines.append(f"| {name}{missing} | " + " | ".join(cells) + " |")
    cells = [f"{100 * teacher[name]:.1f}" for name in COLUMNS] + ["100 %"] + ["–"] * (len(more) - 1)
    return [*lines, "| teacher | " + " | ".join(cells) + " |"]


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"
