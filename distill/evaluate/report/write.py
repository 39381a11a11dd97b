"""The report of a run: ``report.json``, ``report.html`` and a table for the terminal."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distill.basis.files import write_whole
from distill.evaluate.report.curves import draw_curves, read_history
from distill.evaluate.report.grids import Grid
from distill.evaluate.result import METRIC_TITLES

MISSING = "–"
# With so many numbers a set's table has narrow titles.
MANY_COLUMNS = 4
TASKS = {
    "zero_shot": "zero-shot classification",
    "retrieval": "retrieval",
    "agreement": "agreement with the teacher about labels",
}


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
        history: The run's ``metrics.jsonl`` for the curves; left out where it is missing.
        grids: Pictures that stand below the tables of their sets.
        notes: Sentences that stand above the tables.
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
    page: str = environment.from_string(template).render(
        title=title,
        notes=notes,
        curves=curves,
        sets=[
            {
                **_describe_set(entry, report["models"]),
                "grids": [grid for grid in grids if grid.set_name == entry["name"]],
            }
            for entry in report["sets"]
        ],
    )
    return page


def _describe_set(entry: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a set as a table for people: columns, and a row of finished cells per model."""
    metrics = list(next(iter(entry["results"].values()), {}))
    # Where agreement is what is measured, its share says all.
    shares_shown = [] if entry["task"] == "agreement" else ["retained", "agreement"]
    columns = [
        *(METRIC_TITLES.get(name, name) for name in metrics),
        *shares_shown,
        "parameters",
        "size",
    ]
    rows = []
    for model in models:
        name = model["name"]
        shares = [
            *(entry["results"][name][metric] for metric in metrics),
            *(entry[share][name] for share in shares_shown),
        ]
        sizes = [format_count(model["parameters"]), format_bytes(model["bytes"])]
        rows.append((name, [*(format_percent(share) for share in shares), *sizes]))
    return {
        "name": entry["name"],
        "task": TASKS.get(entry["task"], entry["task"]),
        "samples": f"{entry['samples']:,}",
        "columns": columns,
        "rows": rows,
        "borrowed": [
            f"{name}: the {side} are the teacher's"
            for name, side in entry.get("borrowed", {}).items()
        ],
    }


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
            Text(f"{described['name']}: ", style="bold").append(
                f"{described['task']}, {described['samples']} pictures, in %", style="not bold"
            )
        )
        table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("model", overflow="fold", max_width=16)
        shown = described["columns"][:-2]
        gap = " " if len(shown) < MANY_COLUMNS else "\n"
        for column in shown:
            table.add_column(column.replace(" ", gap), justify="right", no_wrap=True)
        for name, cells in described["rows"]:
            table.add_row(name, *cells[: len(shown)])
        console.print(table)
        for line in described["borrowed"]:
            console.print(Text(line))


def format_percent(share: float | None) -> str:
    """Return a fraction of 1 in percent with one decimal, a dash where there is none."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def format_count(count: int | None) -> str:
    """Return a number of weights in thousands, millions or billions."""
    return MISSING if count is None else _scale(count).strip()


def format_bytes(size: int | None) -> str:
    """Return a size in B, kB, MB or GB, of 1,000 each."""
    return MISSING if size is None else f"{_scale(size)}B"


def _scale(value: int) -> str:
    """Return a number with three digits and the letter of its unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            decimals = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:.{decimals}f} {unit}"
    return f"{value} "


def _finite(value: Any) -> Any:
    """Return the same values with None for what is no finite number."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
