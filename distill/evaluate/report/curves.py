"""The curves of a run, from ``metrics.jsonl`` to inline SVG."""

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.evaluate.metrics import metric_title

# Colours that occur nowhere else. They are replaced by variables of the page, so dark mode applies.
_INK, _GRID, _FIRST, _SECOND = "#010101", "#020202", "#030303", "#040404"
_PAGE_COLOURS = {
    _INK: "var(--muted)",
    _GRID: "var(--line)",
    _FIRST: "var(--first)",
    _SECOND: "var(--second)",
}
# The most points that a curve can show; longer runs are averaged over windows.
_MOST_POINTS = 400


@dataclass(frozen=True)
class _History:
    """What a run logged, as (step, value) in the order of the steps."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    headline: list[tuple[int, float]] = field(default_factory=list)
    headline_name: str = ""


def read_history(path: Path) -> _History:
    """Read ``metrics.jsonl``. The last line of a step counts, and broken lines are ignored.

    A killed run may leave its last line incomplete, and a run that resumed from an earlier
    checkpoint has logged some steps twice.
    """
    loss: dict[int, float] = {}
    validation: dict[int, float] = {}
    headline: dict[int, float] = {}
    name = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _parse(line)
        step = entry.get("step")
        if not isinstance(step, int):
            continue
        _note(loss, step, entry.get("loss"))
        measured = entry.get("validation")
        if not isinstance(measured, dict):
            continue
        _note(validation, step, measured.get("loss"))
        best = measured.get("headline")
        if isinstance(best, dict):
            _note(headline, step, best.get("value"))
            metric = str(best.get("metric", ""))
            name = f"{metric_title(metric)} on {best.get('set', '')}"
    return _History(
        sorted(loss.items()), sorted(validation.items()), sorted(headline.items()), name
    )


def _parse(line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _note(values: dict[int, float], step: int, value: object) -> None:
    if isinstance(value, int | float) and math.isfinite(value):
        values[step] = float(value)


def draw_curves(history: _History) -> list[tuple[str, str]]:
    """Return (caption, SVG) for the loss and for the headline, if there are points to draw."""
    curves = []
    if len(history.loss) > 1:
        lines = {"training": thin(history.loss), "validation": history.validation}
        curves.append(("Loss", _draw("loss", lines)))
    if len(history.headline) > 1:
        percent = [(step, 100 * value) for step, value in history.headline]
        caption = f"{history.headline_name}, in %, while training"
        curves.append((caption, _draw("headline", {"student": percent})))
    return curves


def thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most ``_MOST_POINTS`` points, each the mean of a window of ``points``."""
    window = math.ceil(len(points) / _MOST_POINTS)
    parts = [points[start : start + window] for start in range(0, len(points), window)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _draw(name: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        # Text stays text, so it has the page's font and can be searched.
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 11,
        "text.color": _INK,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _GRID,
    }
    drawn = {label: points for label, points in lines.items() if points}
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for (label, points), colour in zip(drawn.items(), (_FIRST, _SECOND), strict=False):
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) < 40 else None
            axes.plot(
                steps, values, color=colour, label=label, linewidth=1.8, marker=marker, markersize=4
            )
        axes.set_xlabel("step")
        axes.grid(visible=True, axis="y", linewidth=0.8)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if len(drawn) > 1:
            axes.legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """Turn an SVG document into an element of a page, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"font:[^;\"]*?(\d+)px[^;\"]*", r"font-size: \1px", svg)
    # Two drawings on one page must not share ids.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg.strip()
