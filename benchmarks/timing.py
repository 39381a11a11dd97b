"""Time training steps in turns, and the parts of a step."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.towers import OurStep
from distill.train.batches import Batch


@dataclass
class Times:
    """The seconds of each timed step, as wall time and processor time.

    Processor time excludes the moments in which other programs had the core.
    """

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def take_turns(
    steps: Mapping[str, Callable[[int], object]], *, warmup: int, count: int
) -> dict[str, Times]:
    """Run the steps in turns (a, b, c, d, a, …); return the times of each after the warm-up."""
    times = {name: Times() for name in steps}
    for number in range(warmup + count):
        for name, step in steps.items():
            clock, processor = time.perf_counter(), time.process_time()
            step(number)
            if number >= warmup:
                times[name].clock.append(time.perf_counter() - clock)
                times[name].processor.append(time.process_time() - processor)
    return times


def split_step(
    step: OurStep, batches: Sequence[Batch], *, warmup: int, count: int
) -> dict[str, float]:
    """Return the median milliseconds of each part of our step."""
    parts: dict[str, list[float]] = {}
    for number in range(warmup + count):
        watch = Stopwatch()
        batch = batches[number % len(batches)]
        piece = batch.pieces[0]
        teacher = step.teach(batch)
        watch.lap("teacher")
        loss = step.global_loss(batch, teacher)
        watch.lap("groups")
        outputs = step.model(piece.pixels, None, piece.tokens)
        watch.lap("towers forward")
        leaves = type(outputs)(
            *(None if part is None else part.detach().requires_grad_() for part in outputs)
        )
        total, _ = loss(leaves)
        watch.lap("loss forward")
        step.accelerator.backward(total)
        watch.lap("loss backward")
        pairs = [
            (mine, leaf.grad)
            for mine, leaf in zip(outputs, leaves, strict=True)
            if mine is not None and leaf.grad is not None
        ]
        step.accelerator.backward(torch.stack([(mine * grad).sum() for mine, grad in pairs]).sum())
        watch.lap("towers backward")
        step.accelerator.clip_grad_norm_(step.model.parameters(), math.inf)
        watch.lap("gradient norm")
        for optimizer in step.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        watch.lap("optimizer")
        if number >= warmup:
            for name, seconds in watch.laps.items():
                parts.setdefault(name, []).append(seconds)
    return {name: 1000 * statistics.median(seconds) for name, seconds in parts.items()}


class Stopwatch:
    """The seconds between laps, by name."""

    def __init__(self) -> None:
        """Start."""
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a lap and start the next."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
