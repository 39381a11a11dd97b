"""Checkpoints: what resuming needs, written completely or not at all.

``checkpoints/00000200/`` holds ``student/``, a complete student; ``training.pt``, which has the
optimizers, schedules and gradient scaler; and ``state.json``. If the student is a moving average,
``training.pt`` also has the weights that training continues from. A checkpoint holds no teacher
and no random state, since every draw of training is a function of the seed and the step.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import nn

from distill.basis.files import whole_folder
from distill.train._ema import MovingAverage
from export.runtime.errors import RunError
from students.encoder import Student


@dataclass
class TrainingState:
    """The progress of training: steps done, and the best figure so far with its step."""

    step: int = 0
    best: dict[str, Any] | None = None


@dataclass(frozen=True)
class Resumable:
    """Everything except the student that a step changes; ``average`` if the run keeps one."""

    optimizers: Sequence[Any]
    schedules: Sequence[Any]
    scaler: Any | None = None
    average: MovingAverage | None = None

    def state(self) -> dict[str, Any]:
        """Return the states as tensors and plain values."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
            _lay_out_as_weights(optimizer)
        for schedule, values in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(values)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])


def _lay_out_as_weights(optimizer: Any) -> None:
    """Give an optimizer's moments the memory layout of their weights.

    Fused optimizers go through memory, not through indices, and a checkpoint may come from a run
    with another layout.
    """
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if torch.is_tensor(value) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def save_checkpoint(
    folder: Path, state: TrainingState, *, student: Student, training: Resumable
) -> Path:
    """Write a checkpoint into ``folder``, named after its step, and remove older ones.

    Its ``student/`` is the moving average if there is one. The weights that training continues from
    are then in ``training.pt``.
    """
    average = training.average
    path = folder / f"{state.step:08d}"
    with whole_folder(path) as new:
        (student if average is None else average.student).save(new / "student")
        weights = None if average is None else student.model.state_dict()
        torch.save({**training.state(), "weights": weights}, new / "training.pt")
        values = {"step": state.step, "best": state.best}
        (new / "state.json").write_text(json.dumps(values) + "\n")
    for other in _checkpoints(folder):
        if other != path:
            shutil.rmtree(other, ignore_errors=True)
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, *, model: nn.Module, training: Resumable) -> TrainingState:
    """Load a checkpoint's weights and states, and return its progress.

    Raises:
        RunError: One of its files is missing or damaged.
    """
    try:
        saved = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
        if training.average is None:
            load_model(model, path / "student" / "model.safetensors")
        else:
            load_model(training.average.student.model, path / "student" / "model.safetensors")
            model.load_state_dict(saved["weights"])
        training.restore(saved)
        values = json.loads((path / "state.json").read_text())
        return TrainingState(step=values["step"], best=values["best"])
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise RunError(
            f"{path}: the checkpoint cannot be read ({type(error).__name__}); "
            "delete that folder to train from the start"
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if (path / "state.json").exists())
