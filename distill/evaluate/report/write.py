"""The report of a run: ``report.json``, ``report.html`` and a table for the terminal."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distill.basis.files import write_whole
from distill.evaluate.report.columns import (
    Column,
    columns_of,
    format_bytes,
    format_count,
    legend_of,
    task_title,
)
from distill.evaluate.report.curves import draw_curves, read_history
from distill.evaluate.report.grids import Grid

# A table with this many columns breaks its headings into lines.
_MANY_COLUMNS = 4


@dataclass(frozen=True)
class _DescribedSet:
    """One set of a report in finished texts, as the page and the terminal show it."""

    name: str
    task: str
    samples: str
    columns: list[Column]
    borrowed: list[str]
    grids: list[Grid]


def write_report(
    report: Mapping[str, Any],
    folder: Path,
    *,
    history: Path | None = None,
    grids: Sequence[Grid] = (),
    notes: Sequence[str] = (),
    title: str = "Distillation report",
) -> None:
    """Write ``report.json`` and ``report.html`` into a folder, each whole or not at all.

    Args:
        report: What `compare` returns.
        folder: An existing folder.
        history: The run's ``metrics.jsonl``; if it is missing, the page has no curves.
        grids: Pictures to show below the tables of their sets.
        notes: Sentences to show above the tables.
        title: The heading.
    """
    text = json.dumps(_finite(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / "report.json", text + "\n")
    curves = draw_curves(read_history(history)) if history and history.is_file() else []
    page = render_page(report, curves=curves, grids=grids, notes=notes, title=title)
    write_whole(folder / "report.html", page)


def render_page(
    report: Mapping[str, Any],
    *,
    curves: Sequence[tuple[str, str]] = (),
    grids: Sequence[Grid] = (),
    notes: Sequence[str] = (),
    title: str = "Distillation report",
) -> str:
    """Return the page as one HTML document that loads nothing; curves are (caption, SVG)."""
    import jinja2

    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    sets = [_describe_set(entry, report["models"], grids) for entry in report["sets"]]
    page: str = environment.from_string(template).render(
        title=title,
        notes=notes,
        curves=curves,
        models=[model["name"] for model in report["models"]],
        sets=sets,
        legend=legend_of([described.columns for described in sets]),
    )
    return page


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print a table of the models and one for each set; they fit into 80 columns."""
    models = Table(box=SIMPLE, pad_edge=False)
    models.add_column("model", overflow="fold")
    models.add_column("parameters", justify="right")
    models.add_column("size", justify="right")
    for model in report["models"]:
        models.add_row(
            model["name"], format_count(model["parameters"]), format_bytes(model["bytes"])
        )
    console.print(models)
    for entry in report["sets"]:
        described = _describe_set(entry, report["models"])
        console.print(
            Text(f"{described.name}: ", style="bold").append(
                f"{described.task}, {described.samples} pictures, in %", style="not bold"
            )
        )
        table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("model", overflow="fold", max_width=16)
        shown = [column for column in described.columns if not column.is_size]
        gap = " " if len(shown) < _MANY_COLUMNS else "\n"
        for column in shown:
            table.add_column(column.title.replace(" ", gap), justify="right", no_wrap=True)
        for model in report["models"]:
            table.add_row(model["name"], *(column.cells[model["name"]] for column in shown))
        console.print(table)
        for line in described.borrowed:
            console.print(Text(line))


def _describe_set(
    entry: Mapping[str, Any], models: Sequence[Mapping[str, Any]], grids: Sequence[Grid] = ()
) -> _DescribedSet:
    return _DescribedSet(
        name=entry["name"],
        task=task_title(entry["task"]),
        samples=f"{entry['samples']:,}",
        columns=columns_of(entry, models),
        borrowed=[
            f"{name}: the {side} are the teacher's"
            for name, side in entry.get("borrowed", {}).items()
        ],
        grids=[grid for grid in grids if grid.set_name == entry["name"]],
    )


def _finite(value: Any) -> Any:
    """Return the same values, with None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
