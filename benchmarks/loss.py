"""Measure time and memory of the tiled losses against plain forms with whole matrices.

    python -m benchmarks.loss

The script alternates between the forms, runs the forward and backward pass of each term, and
reports medians of wall time and of the process's own processor time. The latter excludes the
moments in which other programs had the core. The plain form keeps whole ``[B, B]`` matrices for
autograd. It is measured up to 8,192 rows; beyond that, its memory and time are extrapolated with
the square of B and marked in the table. Each memory figure is the peak of a separate process, minus
what it held before the step: gradients count, the embeddings do not.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distill.losses.contrastive import (
    contrastive,
    interactive_contrastive,
    sigmoid_contrastive,
    soft_target,
)
from distill.losses.distributions import kl_divergence, relational
from distill.losses.embeddings import Embeddings

Step = Callable[[Embeddings, Embeddings], Tensor]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--terms", nargs="+", choices=list(TERMS), default=list(TERMS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    parser.add_argument("--memory", nargs="+", type=int, default=[8192, 32768])
    parser.add_argument("--plain-up-to", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--one", nargs=3, metavar=("FORM", "TERM", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        form, term, rows = options.one
        print(json.dumps(measure_peak(form, term, int(rows), options.width)))
        return
    if options.quick:
        options.sizes, options.memory, options.plain_up_to = [256, 512], [1024, 2048], 1024
        options.repeats = 3
    console = Console()
    times = [
        measure_time(term, rows, options.width, options.repeats)
        for term in options.terms
        for rows in options.sizes
        if rows <= options.plain_up_to
    ]
    console.print(time_table(times, options))
    peaks = [line for term in options.terms for line in memory_lines(term, options)]
    console.print(memory_table(peaks, options))
    figures = {
        "machine": f"{platform.machine()}, {options.threads} thread(s), torch {torch.__version__}",
        "width": options.width,
        "time": times,
        "memory": peaks,
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


def make(rows: int, width: int, *, seed: int, grad: bool) -> Embeddings:
    """Return random unit vectors with a scale of 20."""
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        F.normalize(torch.randn(rows, width, generator=generator), dim=1).requires_grad_(grad)
        for _ in range(2)
    )
    return Embeddings(image, text, torch.tensor(20.0, requires_grad=grad))


def seconds(step: Step, student: Embeddings, teacher: Embeddings) -> tuple[float, float]:
    """Return wall time and processor time of one forward and backward pass."""
    for tensor in (student.image, student.text, student.scale):
        if tensor is not None:
            tensor.grad = None
    start, processor = time.perf_counter(), time.process_time()
    torch.autograd.backward(step(student, teacher))
    return time.perf_counter() - start, time.process_time() - processor


def measure_time(term: str, rows: int, width: int, repeats: int) -> dict[str, Any]:
    """Return the medians of both forms, which take turns."""
    student = make(rows, width, seed=0, grad=True)
    teacher = make(rows, width, seed=1, grad=False)
    found: dict[str, list[tuple[float, float]]] = {"tiled": [], "plain": []}
    for turn in range(repeats + 1):
        for form, taken in found.items():
            value = seconds(TERMS[term][form], student, teacher)
            if turn:  # the first turn warms up
                taken.append(value)
    line: dict[str, Any] = {"term": term, "rows": rows}
    for kind, number in (("clock", 0), ("processor", 1)):
        tiled, plain = (statistics.median(one[number] for one in found[form]) for form in found)
        line[kind] = {"tiled": tiled, "plain": plain, "ratio": tiled / plain}
    return line


def measure_peak(form: str, term: str, rows: int, width: int) -> dict[str, float]:
    """Return the peak bytes of a step, minus what was held before, and its seconds."""
    step = TERMS[term][form]
    seconds(step, make(64, width, seed=0, grad=True), make(64, width, seed=1, grad=False))
    student = make(rows, width, seed=0, grad=True)
    teacher = make(rows, width, seed=1, grad=False)
    before = _held("VmRSS")
    clock, processor = seconds(step, student, teacher)
    return {"bytes": _held("VmHWM") - before, "clock": clock, "processor": processor}


def _held(field: str) -> int:
    """Return the bytes that the process holds now (VmRSS) or held at its peak (VmHWM).

    Without /proc both are the peak, which a child inherits from its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines[field].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_lines(term: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return both forms at every size; the plain form is extrapolated beyond its limit."""
    lines = []
    known: dict[str, float] = {}
    for rows in options.memory:
        line: dict[str, Any] = {
            "term": term,
            "rows": rows,
            "tiled": _in_a_process("tiled", term, rows, options),
        }
        if rows <= options.plain_up_to:
            known = _in_a_process("plain", term, rows, options)
            known_rows = rows
            line |= {"plain": known, "extrapolated": False}
        elif known:
            growth = (rows / known_rows) ** 2
            scaled = {name: value * growth for name, value in known.items()}
            line |= {"plain": scaled, "extrapolated": True}
        lines.append(line)
    return lines


def _in_a_process(form: str, term: str, rows: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", form, term, str(rows)]
    command += ["--width", str(options.width), "--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def time_table(times: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """Return the medians as a table."""
    title = f"Forward and backward, D = {options.width}, {options.threads} thread(s), medians"
    table = Table(title=title)
    columns = ("term", "B", "tiled", "plain", "tiled / plain", "in processor time")
    for column in columns:
        table.add_column(column, justify="left" if column == "term" else "right")
    for line in times:
        table.add_row(
            line["term"],
            f"{line['rows']:,}",
            f"{line['clock']['tiled'] * 1000:.0f} ms",
            f"{line['clock']['plain'] * 1000:.0f} ms",
            f"{line['clock']['ratio']:.2f}",
            f"{line['processor']['ratio']:.2f}",
        )
    return table


def memory_table(lines: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """Return peaks and times of single steps as a table."""
    title = (
        f"Extra peak memory, processor time of one step (~ extrapolated, {options.plain_up_to:,})"
    )
    table = Table(title=title)
    for column in ("term", "B", "tiled", "plain", "tiled time", "plain time"):
        table.add_column(column, justify="left" if column == "term" else "right")
    for line in lines:
        tiled, plain = line["tiled"], line.get("plain")
        mark = "~ " if line.get("extrapolated") else ""
        table.add_row(
            line["term"],
            f"{line['rows']:,}",
            f"{tiled['bytes'] / 1e9:.2f} GB",
            f"{mark}{plain['bytes'] / 1e9:.2f} GB" if plain else "–",
            f"{tiled['processor']:.1f} s",
            f"{mark}{plain['processor']:.1f} s" if plain else "–",
        )
    return table


# --- the plain forms: whole matrices, torch's own losses ------------------------------------------


def _logits(model: Embeddings) -> Tensor:
    assert model.image is not None
    assert model.text is not None
    return model.scale * model.image @ model.text.T


def _row_kl(target: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(
        F.log_softmax(logits, dim=-1),
        F.log_softmax(target, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def _plain_kl(student: Embeddings, teacher: Embeddings) -> Tensor:
    ours, theirs = _logits(student), _logits(teacher)
    return (_row_kl(theirs, ours) + _row_kl(theirs.T, ours.T)) / 2


def _plain_info_nce(rows: Tensor, columns: Tensor, scale: Tensor, *, both: bool) -> Tensor:
    logits = scale * rows @ columns.T
    labels = torch.arange(len(rows))
    value = F.cross_entropy(logits, labels)
    return (value + F.cross_entropy(logits.T, labels)) / 2 if both else value


def _plain_contrastive(student: Embeddings, _: Embeddings) -> Tensor:
    assert student.image is not None
    assert student.text is not None
    return _plain_info_nce(student.image, student.text, student.scale, both=True)


def _plain_interactive(student: Embeddings, teacher: Embeddings) -> Tensor:
    assert student.image is not None
    assert student.text is not None
    assert teacher.image is not None
    assert teacher.text is not None
    to_text = _plain_info_nce(student.image, teacher.text, student.scale, both=False)
    return (to_text + _plain_info_nce(student.text, teacher.image, student.scale, both=False)) / 2


def _plain_relational(student: Embeddings, teacher: Embeddings) -> Tensor:
    values = []
    for ours, theirs in ((student.image, teacher.image), (student.text, teacher.text)):
        assert ours is not None
        assert theirs is not None
        # -1000 on the diagonal vanishes in the softmax, and is finite, unlike -inf, for KL.
        out = torch.diag(torch.full((len(ours),), 1000.0))
        values.append(
            _row_kl(teacher.scale * theirs @ theirs.T - out, student.scale * ours @ ours.T - out)
        )
    return (values[0] + values[1]) / 2


def _plain_soft_target(student: Embeddings, _: Embeddings) -> Tensor:
    assert student.image is not None
    assert student.text is not None
    with torch.no_grad():
        alike = student.image @ student.image.T + student.text @ student.text.T
        target = F.softmax(student.scale * alike / 2, dim=-1)
    logits = _logits(student)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _plain_sigmoid(student: Embeddings, _: Embeddings) -> Tensor:
    logits = _logits(student)
    sign = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(sign * logits).sum(dim=-1).mean()


TERMS: dict[str, dict[str, Step]] = {
    "kl_divergence": {"tiled": kl_divergence, "plain": _plain_kl},
    "contrastive": {
        "tiled": lambda student, _: contrastive(student),
        "plain": _plain_contrastive,
    },
    "interactive_contrastive": {
        "tiled": interactive_contrastive,
        "plain": _plain_interactive,
    },
    "relational": {"tiled": relational, "plain": _plain_relational},
    "soft_target": {
        "tiled": lambda student, _: soft_target(student),
        "plain": _plain_soft_target,
    },
    "sigmoid_contrastive": {
        "tiled": lambda student, _: sigmoid_contrastive(student),
        "plain": _plain_sigmoid,
    },
}


if __name__ == "__main__":
    main()
