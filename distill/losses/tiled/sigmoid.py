"""The pairwise sigmoid loss, in one pass over the tiles: each logit has its own gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.losses.tiled.tiles import (
    Gradients,
    Logits,
    Plan,
    Product,
    accumulator,
    diagonal_of,
    make_plan,
    mean_over_rows,
    times,
)

# From here on, softplus equals its argument, even in float64.
_LINEAR = 40


def sigmoid_loss(student: Product, bias: Tensor, groups: Tensor | None) -> Tensor:
    """Return −log σ(y · (logits + bias)) summed over each row, the mean over rows.

    y is +1 on the diagonal and for equal ids in ``groups`` (``[N]``), and −1 elsewhere.
    """
    plan = make_plan(student, bias)
    loss: Tensor = _SigmoidLoss.apply(*student.tensors, bias, groups, plan)
    return loss


class _SigmoidLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        bias: Tensor,
        groups: Tensor | None,
        plan: Plan,
    ) -> Tensor:
        student = Product(rows, columns, scale)
        total = torch.zeros((), dtype=accumulator(rows), device=rows.device)
        of_bias = torch.zeros_like(total)
        weight = plan.processes / len(rows)
        gradients = Gradients(student, ctx.needs_input_grad[:3]) if plan.grad else None
        with torch.autocast(rows.device.type, enabled=False):
            logits = Logits(student, plan)
            for first, last in plan.tiles:
                against = _signed(logits.tile(first, last).add_(bias), first, groups)
                # Without a name, it is freed before the next tile is computed.
                total += F.softplus(against, threshold=_LINEAR).sum(dim=1).sum(dtype=total.dtype)
                if gradients is not None:
                    result = _signed(against.sigmoid_(), first, groups)
                    of_bias += result.sum(dim=1).sum(dtype=of_bias.dtype)
                    gradients.add(first, last, result, weight)
            if gradients is not None:
                of_bias = (of_bias * weight).to(bias.dtype).reshape(bias.shape)
                ctx.save_for_backward(*gradients.found(), of_bias)
        return mean_over_rows(total, rows, plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return *times(gradients[0], ctx.saved_tensors), None, None


def _signed(tile: Tensor, first: int, groups: Tensor | None) -> Tensor:
    """Multiply the tile by −y in place, and return it."""
    if groups is None:
        diagonal_of(tile, first).neg_()
    else:
        same = groups[first : first + len(tile), None] == groups[None, :]
        tile.mul_(same.to(tile.dtype).mul_(-2).add_(1))
    return tile
