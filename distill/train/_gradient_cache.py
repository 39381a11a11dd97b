"""Gradient caching: contrastive batches larger than the towers can hold at once.

First all pieces are embedded without a graph. The loss of the whole batch then gives the gradient
of each embedding, and the pieces go through the towers again to carry it to the weights. For towers
without batch statistics, the gradient is that of one pass over the whole batch. Batch norm sees the
statistics of a piece, the same in both passes. Its running statistics change only in the second.

Source: Gao et al. 2021, https://arxiv.org/abs/2101.06983.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.train.piece import Outputs, Piece


def backward_in_pieces(
    model: nn.Module,
    pieces: Sequence[Piece],
    loss: Callable[[Outputs], tuple[Tensor, dict[str, Tensor]]],
    *,
    check: Callable[[Tensor], None],
    accelerator: Any,
) -> tuple[Outputs, Tensor, dict[str, Tensor]]:
    """Compute the loss of all pieces together and add its gradient to that of the weights.

    Dropout draws the same values in both passes. ``check`` sees the loss before any gradient is
    computed.

    Returns:
        The outputs of the whole batch, the loss, and the values to log.
    """
    states: list[_RandomState] = []
    parts: list[Outputs] = []
    with torch.no_grad(), running_statistics_kept(model):
        for piece in pieces:
            states.append(_RandomState(accelerator.device))
            parts.append(model(piece.pixels, piece.hidden, piece.tokens))
    whole = _join(parts)
    total, logged = loss(whole)
    check(total)
    torch.autograd.backward(total)
    first = 0
    for number, (piece, state) in enumerate(zip(pieces, states, strict=True)):
        last = number == len(pieces) - 1
        # Processes exchange gradients once, after the last piece.
        with nullcontext() if last else accelerator.no_sync(model):
            state.replay()
            outputs = model(piece.pixels, piece.hidden, piece.tokens)
            accelerator.backward(_carry(outputs, whole, first=first, scalars=last))
        first += _rows(outputs)
    return whole, total, logged


class _RandomState:
    """The states of the random generators that dropout draws from."""

    def __init__(self, device: torch.device) -> None:
        """Remember the states before a pass."""
        self._cpu = torch.get_rng_state()
        self._module = None if device.type == "cpu" else torch.get_device_module(device)
        self._device = None if self._module is None else self._module.get_rng_state()

    def replay(self) -> None:
        """Restore the states, so the next pass draws the same values."""
        torch.set_rng_state(self._cpu)
        if self._module is not None:
            self._module.set_rng_state(self._device)


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of their batch without updating the running ones."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    before = [
        (norm.momentum, None if (seen := norm.num_batches_tracked) is None else seen.clone())
        for norm in norms
    ]
    for norm in norms:
        # With momentum 0 the running statistics stay as they are.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, seen) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if seen is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(seen)


def _join(parts: Sequence[Outputs]) -> Outputs:
    """Return the outputs of the whole batch, as leaves of the graph that collect gradients."""

    def leaf(values: Tensor) -> Tensor:
        return values.detach().clone().requires_grad_()

    def rows(name: str) -> Tensor | None:
        present = [getattr(part, name) for part in parts if getattr(part, name) is not None]
        return leaf(torch.cat(present)) if present else None

    first = parts[0]
    return first._replace(
        image=rows("image"),
        text=rows("text"),
        masked=rows("masked"),
        scale=leaf(first.scale),
        bias=None if first.bias is None else leaf(first.bias),
    )


def _carry(outputs: Outputs, whole: Outputs, *, first: int, scalars: bool) -> Tensor:
    """Return a scalar whose gradient by the outputs is the cached one."""
    last = first + _rows(outputs)
    pairs = [
        (mine, None if (leaf := getattr(whole, name)).grad is None else leaf.grad[first:last])
        for name in ("image", "text", "masked")
        if (mine := getattr(outputs, name)) is not None
    ]
    if scalars:
        pairs.append((outputs.scale, whole.scale.grad))
        if outputs.bias is not None and whole.bias is not None:
            pairs.append((outputs.bias, whole.bias.grad))
    # A zero gradient keeps every weight in the graph, like a single pass over the batch.
    products = [
        (mine * (torch.zeros_like(mine) if gradient is None else gradient)).sum()
        for mine, gradient in pairs
    ]
    return torch.stack(products).sum()


def _rows(outputs: Outputs) -> int:
    rows = outputs.text if outputs.image is None else outputs.image
    return 0 if rows is None else len(rows)
