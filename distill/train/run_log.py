"""The log of a run: lines of ``metrics.jsonl``, which trackers get too."""

import json
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from distill.basis.files import write_whole
from distill.train.step import StepResult

_FILE = "metrics.jsonl"
_Item = TypeVar("_Item")


class RunLog:
    """Writes on the main process; measures speed, waiting and memory between its lines."""

    def __init__(self, folder: Path, accelerator: Accelerator, *, step: int) -> None:
        """Start at a step; lines of later steps, which training will repeat, are removed."""
        self._path = folder / _FILE
        self._accelerator = accelerator
        self._start = self._last = time.perf_counter()
        self._step = step
        self._waited = self._aside = 0.0
        if accelerator.is_main_process:
            drop_lines_after(self._path, step)

    def fetch(self, items: Iterator[_Item]) -> Iterator[_Item]:
        """Yield the items, and measure the time spent waiting for each."""
        while True:
            asked = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            yield item

    def training(
        self, step: int, result: StepResult, *, batch_size: int, learning_rates: Mapping[str, float]
    ) -> dict[str, Any]:
        """Write the line of a training step and return it."""
        now = time.perf_counter()
        since = max(now - self._last - self._aside, 1e-9)
        line = {
            "step": step,
            "seconds": round(now - self._start, 3),
            "loss": result.loss,
            "terms": result.terms,
            "teacher_student_cosine": result.cosines,
            "learning_rates": dict(learning_rates),
            "logit_scale": result.logit_scale,
            "gradient_norm": result.gradient_norm,
            "samples_per_second": round((step - self._step) * batch_size / since, 2),
            "data_wait_share": round(min(self._waited / since, 1.0), 4),
            "peak_memory_bytes": _peak_memory(self._accelerator.device),
        }
        self._last, self._step, self._waited, self._aside = now, step, 0.0, 0.0
        self._write(step, line)
        return line

    def validation(self, step: int, found: Mapping[str, Any]) -> None:
        """Write the line of a validation."""
        self._write(step, {"step": step, "validation": dict(found)})

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time spent in the block, such as validating or saving, out of the speed."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._aside += time.perf_counter() - began

    def _write(self, step: int, line: Mapping[str, Any]) -> None:
        if self._accelerator.is_main_process:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        # Trackers take numbers by name; on other processes this does nothing.
        self._accelerator.log(flatten({k: v for k, v in line.items() if k != "step"}), step=step)


def flatten(values: Mapping[str, Any], path: str = "") -> dict[str, int | float | str | bool]:
    """Return nested values by path, such as ``terms/kl_divergence``."""
    flat: dict[str, int | float | str | bool] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}{key}/")
        elif isinstance(value, int | float | str | bool):
            flat[f"{path}{key}"] = value
        elif isinstance(value, Sequence):
            flat[f"{path}{key}"] = json.dumps(value)
    return flat


def _peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of tensors on a CUDA device, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes.
    return most if sys.platform == "darwin" else most * 1024


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, which training will repeat."""
    if not path.exists():
        return
    lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    write_whole(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    """Return the step of a line; infinity if the line is incomplete."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
