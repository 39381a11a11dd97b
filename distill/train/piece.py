"""What the student's towers take at once, and what they return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """What the student's towers take at once: a micro-batch, or a process's share of the batch.

    ``pixels`` is uint8 ``[b, H, W, 3]``. ``hidden`` is bool ``[b, H, W]`` and marks the pixels that
    masking hides. ``tokens`` are padded to the longest text of the piece. An input that the student
    does not take is None.
    """

    pixels: Tensor | None
    hidden: Tensor | None
    tokens: dict[str, Tensor] | None

    def __len__(self) -> int:
        """Return the number of rows."""
        rows = [self.pixels, *(self.tokens or {}).values()]
        return next((len(values) for values in rows if values is not None), 0)

    def to(self, device: torch.device) -> "Piece":
        """Return the piece on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Piece":
        """Return the piece in page-locked memory; the data loader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Piece":
        return Piece(
            pixels=None if self.pixels is None else change(self.pixels),
            hidden=None if self.hidden is None else change(self.hidden),
            tokens=None
            if self.tokens is None
            else {name: change(tensor) for name, tensor in self.tokens.items()},
        )


class Outputs(NamedTuple):
    """What the towers say about this process's rows, L2-normalised ``[b, D]``, and the scalars.

    ``masked`` embeds the pictures with their hidden patches; it is None if nothing is hidden.
    """

    image: Tensor | None
    text: Tensor | None
    masked: Tensor | None
    scale: Tensor
    bias: Tensor | None
