"""What the towers take at once, as tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """What the student's towers take at once: a micro-batch, or a process's whole share.

    ``pixels`` is uint8 ``[b, H, W, 3]``; ``hidden`` bool ``[b, H, W]`` marks what masking hides;
    ``tokens`` are padded to the longest text of the piece. None where there is no such input.
    """

    pixels: Tensor | None
    hidden: Tensor | None
    tokens: dict[str, Tensor] | None

    def __len__(self) -> int:
        """Return the number of its rows."""
        rows = [self.pixels, *(self.tokens or {}).values()]
        return next((len(values) for values in rows if values is not None), 0)

    def to(self, device: torch.device) -> "Piece":
        """Return the piece on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Piece":
        """Return the piece in page-locked memory; the loader asks for it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Piece":
        return Piece(
            pixels=None if self.pixels is None else change(self.pixels),
            hidden=None if self.hidden is None else change(self.hidden),
            tokens=None
            if self.tokens is None
            else {name: change(tensor) for name, tensor in self.tokens.items()},
        )
