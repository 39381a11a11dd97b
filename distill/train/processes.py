"""Processes, devices and trackers, all through Accelerate."""

import os
import signal
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from export.runtime.errors import RunError

# A process may finish its share of a cache long before the others.
_PATIENCE = timedelta(days=2)

_Device = Literal["auto", "cpu", "cuda", "mps"]
_Precision = Literal["fp32", "fp16", "bf16"]
_Tracker = Literal["tensorboard", "wandb", "mlflow"]


def check_device(device: _Device, precision: _Precision = "fp32") -> None:
    """Check that a device and a precision are available here.

    Raises:
        RunError: One of them is not; the message names the field and what to set instead.
    """
    available = _available()
    if device in available and not available[device]:
        raise RunError(
            f"train.device: {device} is not available here; use --set train.device=auto or cpu"
        )
    if precision == "fp16" and not (device in ("auto", "cuda") and available["cuda"]):
        raise RunError("train.precision: fp16 needs a CUDA device; use fp32 or bf16 here")


def check_trackers(trackers: Sequence[_Tracker]) -> None:
    """Check that the packages of trackers are installed; Accelerate would silently skip one.

    Raises:
        RunError: A package is missing.
    """
    for name in trackers:
        if find_spec(name) is None:
            raise RunError(
                f"train.trackers: {name} is not installed; run `pip install {name}`, or remove it"
            )


def start_accelerator(
    *,
    device: _Device,
    precision: _Precision,
    trackers: Sequence[_Tracker] = (),
    folder: Path | None = None,
    towers_rest: bool = False,
) -> Accelerator:
    """Return the accelerator of this process.

    Args:
        device: Where to compute.
        precision: The precision of the towers.
        trackers: Trackers to log to.
        folder: The run folder; trackers write inside it.
        towers_rest: Whether some steps train only part of the towers. The wrapper for several
            processes then looks for unused parameters.

    Raises:
        RunError: The device or precision is not available here, a tracker is not installed, or
            the launcher asked for another number of processes.
    """
    check_device(device, precision)
    check_trackers(trackers)
    if not torch.distributed.is_initialized():
        # Otherwise Accelerate keeps the device and precision of an earlier stage.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device == "cpu" or not any(_available().values()),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(trackers) or None,
        project_dir=None if folder is None else folder / "trackers",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=_PATIENCE),
            DistributedDataParallelKwargs(find_unused_parameters=towers_rest),
        ],
    )
    check_processes(accelerator.num_processes, os.environ)
    return accelerator


def start_trackers(accelerator: Accelerator, *, folder: Path, values: Mapping[str, Any]) -> None:
    """Start a run in each tracker, named after the folder, with the recipe's flat values."""
    place = folder / "trackers"
    accelerator.init_trackers(
        "clip-distill",
        config=dict(values),
        init_kwargs={
            "wandb": {"name": folder.name, "dir": str(place)},
            "mlflow": {"run_name": folder.name},
        },
    )


def _available() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def check_processes(count: int, environment: Mapping[str, str]) -> None:
    """Check that there are as many processes as the launcher asked for.

    Raises:
        RunError: The numbers differ; the message says how to start several processes.
    """
    way_out = (
        "to start several processes on a CPU, run `torchrun --nproc_per_node 2 -m distill train …` "
        "or `accelerate launch --multi_gpu --num_processes 2 -m distill train …`"
    )
    world_size = int(environment.get("WORLD_SIZE", "1"))
    if world_size != count:
        raise RunError(
            f"WORLD_SIZE is {world_size}, but Accelerate runs {count} process(es); {way_out}"
        )
    # `accelerate launch --cpu --num_processes 2` leaves this behind and starts one process.
    if "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment and count == 1:
        raise RunError(
            "the launcher set MASTER_ADDR but started one process only, as "
            f"`accelerate launch --cpu --num_processes 2` does; {way_out}"
        )


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a flag, so no step is interrupted halfway."""

    def __init__(self) -> None:
        """Start without a request to stop."""
        self.asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def anywhere(self, accelerator: Accelerator) -> bool:
        """Tell whether any process was asked to stop; all processes get the same answer."""
        if accelerator.num_processes == 1:
            return self.asked
        flag = torch.tensor([int(self.asked)], device=accelerator.device)
        return bool(accelerator.reduce(flag, reduction="sum").item())
