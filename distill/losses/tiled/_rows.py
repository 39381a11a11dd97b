"""Losses over the softmax of each row of the logits, in one pass over the tiles.

A tile holds whole rows, so the softmax of a row and the gradient by its logits are known within the
tile. The gradient goes on to the factors of the product while the tile exists. Nothing is computed
again, and the backward pass needs only tensors as large as the embeddings.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.losses.tiled.tiles import (
    Gradients,
    Logits,
    Plan,
    Product,
    accumulator,
    diagonal_of,
    mean_over_rows,
    times,
)


def row_loss(student: Product, teacher: Product | None, plan: Plan) -> Tensor:
    """Return the mean over rows of cross entropy or KL, as the plan says.

    Without a teacher, it is the cross entropy with the row's own number as the target, or the
    log-sum-exp alone if ``plan.own`` is False.
    """
    target = (None, None, None) if teacher is None else teacher.tensors
    loss: Tensor = _RowLoss.apply(*student.tensors, *target, plan)
    return loss


class _RowLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        teacher_rows: Tensor | None,
        teacher_columns: Tensor | None,
        teacher_scale: Tensor | None,
        plan: Plan,
    ) -> Tensor:
        student = Product(rows, columns, scale)
        teacher = Product.of(teacher_rows, teacher_columns, teacher_scale)
        gradients = Gradients(student, ctx.needs_input_grad[:3]) if plan.grad else None
        with torch.autocast(rows.device.type, enabled=False):
            total = _one_pass(student, teacher, plan, gradients)
            if gradients is not None:
                ctx.save_for_backward(*gradients.found())
        return mean_over_rows(total, rows, plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return *times(gradients[0], ctx.saved_tensors), None, None, None, None


def _one_pass(
    student: Product, teacher: Product | None, plan: Plan, gradients: Gradients | None
) -> Tensor:
    """Return the loss summed over this process's rows; add the mean's to ``gradients``."""
    logits = [Logits(model, plan) for model in (student, teacher) if model is not None]
    work = torch.empty_like(logits[0].buffer) if teacher is not None else None
    total = torch.zeros((), dtype=accumulator(student.rows), device=student.rows.device)
    weight = plan.processes / max(1, len(student.rows))
    for first, last in plan.tiles:
        tiles = [product.tile(first, last) for product in logits]
        if work is None:
            losses, sums = _cross_entropy(tiles[0], first, plan)
        else:
            losses, sums = _divergence(tiles[0], tiles[1], first, work[: last - first], plan)
        total += losses.sum()
        if gradients is not None:
            gradients.add(first, last, tiles[0], weight / sums[:, None])
    return total


def _cross_entropy(tile: Tensor, first: int, plan: Plan) -> tuple[Tensor, Tensor]:
    """Return each row's loss and its sum of exponentials.

    The tile becomes the gradient by its logits times that sum. Dividing a product with the tile is
    cheaper than dividing the tile.
    """
    own = diagonal_of(tile, first).clone() if plan.own else None
    log_sums, sums = _exponentials(tile)
    if own is None:
        return log_sums, sums
    diagonal_of(tile, first).sub_(sums)
    return log_sums - own, sums


def _divergence(
    tile: Tensor, teacher: Tensor, first: int, work: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Return the same as `_cross_entropy` for KL; the teacher's tile is overwritten too."""
    values = torch.neg(tile, out=work) if plan.entropy else torch.sub(teacher, tile, out=work)
    if not plan.diagonal:
        diagonal_of(values, first).zero_()
    log_sums, sums = _exponentials(tile)
    target_log_sums, target_sums = _exponentials(teacher)
    means = values.mul_(teacher).sum(dim=1).to(log_sums.dtype) / target_sums
    if plan.grad:
        tile.addcmul_(teacher, (sums / target_sums)[:, None], value=-1)
    return (log_sums if plan.entropy else log_sums - target_log_sums) + means, sums


def _exponentials(tile: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the tile by its exponentials, relative to each row's largest logit.

    Returns:
        The log-sum-exp of each row, and the sum of its exponentials.
    """
    peaks = tile.amax(dim=1)
    sums = tile.sub_(peaks[:, None]).exp_().sum(dim=1)
    return sums.to(accumulator(tile)).log() + peaks, sums
