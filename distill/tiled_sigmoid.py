"""The pairwise sigmoid loss, tile by tile."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.tiles import (
    Logits,
    Plan,
    Product,
    accumulator,
    collect_gradients,
    diagonal_of,
    make_plan,
)

# From here on softplus is its argument, exactly, in float64 too.
_LINEAR = 40


def sigmoid_loss(student: Product, bias: Tensor, groups: Tensor | None) -> Tensor:
    """Return −log σ(y · (logits + bias)) summed over each row, the mean over rows.

    y is +1 on the diagonal and where two ids of ``groups`` (``[N]``) are equal, −1 elsewhere.
    """
    plan = make_plan(student)
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
        kept = None
        with torch.autocast(rows.device.type, enabled=False):
            logits = Logits(student, plan)
            for first, last in plan.tiles:
                against = _against(logits.tile(first, last), first, bias, groups)
                kept = against if plan.keep else None
                losses = F.softplus(against, threshold=_LINEAR)
                total += losses.sum(dim=1).sum(dtype=total.dtype)
        if plan.processes > 1:
            dist.all_reduce(total)
        ctx.plan, ctx.groups, ctx.kept = plan, groups, kept
        ctx.save_for_backward(rows, columns, scale, bias)
        return (total / len(rows)).to(rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows, columns, scale, bias = ctx.saved_tensors
        student, plan = Product(rows, columns, scale), ctx.plan
        part = float(gradients[0]) * plan.processes / len(rows)
        of_bias = torch.zeros((), dtype=accumulator(rows), device=rows.device)

        def tiles() -> Iterator[tuple[int, int, Tensor]]:
            logits = None if ctx.kept is not None else Logits(student, plan)
            for first, last in plan.tiles:
                if logits is None:
                    against = torch.sigmoid(ctx.kept)
                else:
                    against = _against(logits.tile(first, last), first, bias, ctx.groups).sigmoid_()
                result = _signed(against.mul_(part), first, ctx.groups)
                of_bias.add_(result.sum(dim=1).sum(dtype=of_bias.dtype))
                yield first, last, result

        with torch.autocast(rows.device.type, enabled=False):
            found = collect_gradients(student, tiles(), (*ctx.needs_input_grad[:2], True))
        return *found, of_bias.to(bias.dtype).reshape(bias.shape), None, None


def _against(tile: Tensor, first: int, bias: Tensor, groups: Tensor | None) -> Tensor:
    """Return −y · logits in the place of the tile."""
    return _signed(tile.add_(bias), first, groups)


def _signed(tile: Tensor, first: int, groups: Tensor | None) -> Tensor:
    """Return −y times the tile, in its place."""
    if groups is None:
        diagonal_of(tile, first).neg_()
    else:
        same = groups[first : first + len(tile), None] == groups[None, :]
        tile.mul_(torch.where(same, -1, 1))
    return tile
