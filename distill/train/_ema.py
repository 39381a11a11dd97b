"""A moving average of the student's weights, which is validated and becomes the result."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from students.encoder import Student


class MovingAverage:
    """The exponential moving average of a student, with a decay that rises to its full value.

    After step s the decay is ``min(decay, 1 − s^(−2/3))``, timm's warmup, so the start does not
    dominate a short run. Parameters and floating-point buffers (the running mean and variance of
    batch norms) are averaged alike; counters are copied. The average is in evaluation mode and on
    the student's device.

    Args:
        student: The student before the first step, on its device.
        decay: The share of the average that a step keeps, in (0, 1).
    """

    def __init__(self, student: Student, decay: float) -> None:
        self._model = student.model
        self._average = _Average(
            student.model, decay=decay, use_warmup=True, stochastic_rounding=False
        )
        self._average.module.requires_grad_(False)
        self.student = replace(student, model=self._average.module)

    def update(self, step: int) -> None:
        """Add the weights after a step to the average; ``step`` counts from 1."""
        self._average.update(self._model, step=step)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what resuming needs: the averaged weights and buffers by name."""
        state: dict[str, Tensor] = self._average.module.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            RuntimeError: A tensor is missing or has another shape.
        """
        self._average.module.load_state_dict(state)


class _Average(ModelEmaV3):
    """timm's average, made safe for tied weights: each tensor moves once, whatever its names."""

    @torch.no_grad()
    def apply_update_(self, model: nn.Module, decay: float) -> None:
        averages: dict[int, Tensor] = {}
        currents: dict[int, Tensor] = {}
        for average, current in zip(
            self.module.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                averages[average.data_ptr()], currents[average.data_ptr()] = average, current
            else:
                average.copy_(current)
        values: list[Any] = [list(averages.values()), list(currents.values())]
        self._foreach_lerp_(*values, weight=1.0 - decay)
