"""Losses over the softmax of logits, tile by tile.

A constant that is added to all logits cancels in a softmax, so there is no bias here. Losses that
take the softmax of rows alone are in distill/losses/tiled/_rows.py. A softmax of columns is known
only after the last tile. One pass forward keeps running statistics of each column, its log-sum-exp
and a weighted mean; the gradient takes a second pass over the tiles.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.losses._tensors import zero_of
from distill.losses.tiled._rows import row_loss
from distill.losses.tiled.tiles import (
    Gradients,
    Logits,
    Plan,
    Product,
    accumulator,
    diagonal_of,
    make_plan,
)


def identity_loss(student: Product, *, columns: bool) -> Tensor:
    """Return the mean over rows of the cross entropy with the row's own number as the target.

    With ``columns``, return the mean of this and the same for the columns.
    """
    return _softmax_loss(student, None, make_plan(student, columns=columns))


def mean_log_sum(student: Product) -> Tensor:
    """Return the mean over rows of the log-sum-exp."""
    return row_loss(student, None, make_plan(student, own=False))


def distribution_loss(
    student: Product,
    teacher: Product,
    *,
    columns: bool,
    diagonal: bool = True,
    entropy: bool = False,
) -> Tensor:
    """Return the mean over rows of KL(softmax of the teacher's row ‖ softmax of the student's).

    No gradient reaches the teacher's product.

    Args:
        student: The student's logits.
        teacher: The logits of the target, of the same size.
        columns: Whether to return the mean of this and the same for the columns.
        diagonal: Whether the entries (i, i) count.
        entropy: Whether to add the target's entropy, which gives the cross entropy.
    """
    entries = len(student.columns) - (0 if diagonal else 1)
    if entries == 1 and (len(student.rows) == 1 or not columns):
        # Every softmax has one entry, so the loss is exactly 0.
        return zero_of(*student.tensors)
    dtype = torch.promote_types(student.rows.dtype, teacher.rows.dtype)
    student = student.to(dtype)
    plan = make_plan(student, columns=columns, diagonal=diagonal, entropy=entropy)
    return _softmax_loss(student, teacher.to(dtype), plan)


def _softmax_loss(student: Product, teacher: Product | None, plan: Plan) -> Tensor:
    if not plan.columns:
        return row_loss(student, teacher, plan)
    target = (None, None, None) if teacher is None else teacher.tensors
    loss: Tensor = _SoftmaxLoss.apply(*student.tensors, *target, plan)
    return loss


@dataclass
class _Statistics:
    """The log-sum-exp of lines (rows or columns), and a mean over each line's softmax."""

    log_sum: Tensor
    mean: Tensor | None = None

    @classmethod
    def none_yet(cls, count: int, like: Tensor, *, mean: bool) -> "_Statistics":
        sums = torch.full((count,), -math.inf, dtype=accumulator(like), device=like.device)
        return cls(sums, torch.zeros_like(sums) if mean else None)

    def add(self, other: "_Statistics") -> None:
        """Add the statistics of further entries of the same lines."""
        total = torch.logaddexp(self.log_sum, other.log_sum)
        if self.mean is not None and other.mean is not None:
            self.mean.mul_((self.log_sum - total).exp())
            self.mean.add_((other.log_sum - total).exp() * other.mean)
        self.log_sum = total


def _statistics(
    tile: Tensor, *, work: Tensor, values: Tensor | None = None
) -> tuple[_Statistics, _Statistics]:
    """Return the statistics of a tile's rows and columns, with the means of ``values``.

    ``work`` is overwritten. Rows and columns share one exponential, unless a line is so far below
    the tile's largest logit that its exponentials would vanish.
    """
    peak = tile.max()
    powers = torch.sub(tile, peak, out=work).exp_()
    sums = [powers.sum(dim) for dim in (1, 0)]
    if min(float(sums[0].min()), float(sums[1].min())) > math.exp(-_reach(tile)):
        if values is not None:
            powers.mul_(values)
        rows, columns = (
            _line_statistics(total, peak, None if values is None else powers.sum(dim))
            for dim, total in zip((1, 0), sums, strict=True)
        )
        return rows, columns
    found = []
    for dim in (1, 0):
        peak = tile.amax(dim, keepdim=True)
        powers = torch.sub(tile, peak, out=work).exp_()
        total = powers.sum(dim)
        weighted = None if values is None else powers.mul_(values).sum(dim)
        found.append(_line_statistics(total, peak.squeeze(dim), weighted))
    return found[0], found[1]


def _line_statistics(total: Tensor, peak: Tensor, weighted: Tensor | None) -> _Statistics:
    wide = accumulator(total)
    total = total.to(wide)
    mean = None if weighted is None else weighted.to(wide) / total
    return _Statistics(total.log() + peak.to(wide), mean)


def _reach(tile: Tensor) -> float:
    """Return how far below the largest logit an exponential is still accurate."""
    return 600.0 if tile.dtype == torch.float64 else 60.0


def _merge(columns: list[_Statistics], total: Tensor, processes: int) -> Tensor:
    """Merge the statistics of columns over all processes, in place; return the summed total."""
    if processes == 1:
        return total
    peaks = torch.stack([line.log_sum for line in columns])
    dist.all_reduce(peaks, op=dist.ReduceOp.MAX)
    parts = []
    for line, peak in zip(columns, peaks, strict=True):
        power = (line.log_sum - peak).exp()
        parts.append(power)
        parts.append(torch.zeros_like(power) if line.mean is None else power * line.mean)
    sums = torch.cat([*parts, total.reshape(1)])
    dist.all_reduce(sums)
    lines = sums[:-1].reshape(len(columns), 2, -1)
    for line, peak, (power, weighted) in zip(columns, peaks, lines, strict=True):
        line.log_sum = power.log() + peak
        line.mean = None if line.mean is None else weighted / power
    return sums[-1]


def _loss(
    student: _Statistics, teacher: _Statistics | None, diagonal: Tensor, *, entropy: bool
) -> Tensor:
    """Return the loss summed over the lines of the given statistics."""
    if teacher is None:
        return (student.log_sum - diagonal).sum()
    # The mean is that of the teacher's logits minus the student's, or of minus the student's.
    own = student.log_sum if entropy else student.log_sum - teacher.log_sum
    return own.sum() if teacher.mean is None else (own + teacher.mean).sum()


class _SoftmaxLoss(torch.autograd.Function):
    """Cross entropy or KL of rows and columns; the target is a product or the diagonal."""

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
        with torch.autocast(rows.device.type, enabled=False):
            loss, lines, kept = _forward(student, teacher, plan)
        ctx.plan, ctx.kept, ctx.taught = plan, kept, teacher is not None
        ctx.save_for_backward(*student.tensors, *(teacher.tensors if teacher else ()), *lines)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        tensors = list(ctx.saved_tensors)
        student = Product(*tensors[:3])
        teacher = Product(*tensors[3:6]) if ctx.taught else None
        lines = tensors[6:] if ctx.taught else tensors[3:]
        needed = ctx.needs_input_grad
        with torch.no_grad(), torch.autocast(gradients[0].device.type, enabled=False):
            found = Gradients(student, needed[:3])
            _add_gradients(found, (student, teacher), lines, ctx.plan, ctx.kept, gradients[0])
        return *found.found(), None, None, None, None


def _forward(
    student: Product, teacher: Product | None, plan: Plan
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the loss, the log-sum-exps (both models' rows, then columns), and the kept tiles."""
    count, width = len(student.rows), len(student.columns)
    wide = accumulator(student.rows)
    models = [student] if teacher is None else [student, teacher]
    logits = [Logits(model, plan) for model in models]
    work = student.rows.new_empty(plan.tile_rows, width)
    in_columns = [
        _Statistics.none_yet(width, student.rows, mean=number == 1) for number in range(len(models))
    ]
    log_sums: list[list[Tensor]] = [[] for _ in models]
    total = torch.zeros((), dtype=wide, device=student.rows.device)
    diagonal = torch.zeros(count, dtype=wide, device=student.rows.device)
    for first, last in plan.tiles:
        tiles = [product.tile(first, last) for product in logits]
        if teacher is None:
            diagonal[first:last] = diagonal_of(tiles[0], first)
        found = _tile_statistics(tiles, first, work[: last - first], plan)
        for number, (of_rows, of_columns) in enumerate(found):
            log_sums[number].append(of_rows.log_sum)
            in_columns[number].add(of_columns)
        taught = found[1][0] if teacher is not None else None
        total += _loss(found[0][0], taught, diagonal[first:last], entropy=plan.entropy)
    # The diagonal is known to the process that has its row, for the columns too.
    total = _merge(in_columns, total / count - diagonal.sum() / width, plan.processes)
    taught = in_columns[1] if teacher is not None else None
    lines = _loss(in_columns[0], taught, torch.zeros_like(total), entropy=plan.entropy)
    total = (total + lines / width) / 2
    empty = torch.zeros(0, dtype=wide, device=student.rows.device)
    saved = [torch.cat([*sums, empty]) for sums in log_sums]
    kept = tiles if plan.keep else []
    return total.to(student.rows.dtype), [*saved, *(x.log_sum for x in in_columns)], kept


def _tile_statistics(
    tiles: list[Tensor], first: int, work: Tensor, plan: Plan
) -> list[tuple[_Statistics, _Statistics]]:
    student = tiles[0]
    found = [_statistics(student, work=work)]
    if len(tiles) == 1:
        return found
    teacher = tiles[1]
    if plan.entropy:
        values = student.neg() if plan.keep else student.neg_()
    else:
        values = torch.sub(teacher, student, out=None if plan.keep else student)
    if not plan.diagonal:
        diagonal_of(values, first).zero_()
    return [*found, _statistics(teacher, work=work, values=values)]


def _add_gradients(
    found: Gradients,
    models: tuple[Product, Product | None],
    lines: list[Tensor],
    plan: Plan,
    kept: list[Tensor],
    gradient: Tensor,
) -> None:
    """Add the gradients of this process's tiles."""
    products = [model for model in models if model is not None]
    logits = [] if kept else [Logits(product, plan) for product in products]
    count, width = len(products[0].rows), len(products[0].columns)
    dtype = products[0].rows.dtype
    part = float(gradient) * plan.processes / 2
    softmax = [
        _Softmax(row_sums, column_sums, part / count, part / width, dtype)
        for row_sums, column_sums in zip(
            lines[: len(products)], lines[len(products) :], strict=True
        )
    ]
    out = products[0].rows.new_empty(plan.tile_rows, width)
    start = plan.tiles[0][0] if plan.tiles else 0
    for first, last in plan.tiles:
        result = out[: last - first].zero_()
        tiles = kept or [product.tile(first, last) for product in logits]
        for number, (tile, model) in enumerate(zip(tiles, softmax, strict=True)):
            model.add(result, tile, first - start, sign=-1 if number else 1, keep=bool(kept))
        if len(products) == 1:
            diagonal_of(result, first).sub_(part * (1 / count + 1 / width))
        found.add(first, last, result)


class _Softmax:
    """The softmax of rows and of columns, each times a weight, from log-sum-exps."""

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        row_weight: float,
        column_weight: float,
        dtype: torch.dtype,
    ) -> None:
        self._rows, self._columns, self._dtype = rows, columns, dtype
        self._row_weight, self._column_weight = row_weight, column_weight
        self._shared = False
        if len(rows):
            low = min(float(rows.min()), float(columns.min()))
            limit = 600.0 if dtype == torch.float64 else 60.0
            self._shared = float(rows.max()) - low < limit

    def add(self, result: Tensor, tile: Tensor, first: int, *, sign: int, keep: bool) -> None:
        """Add both to ``result``, for a tile from row ``first`` on; overwrite it unless kept."""
        rows = self._rows[first : first + len(tile), None]
        weighted = [(rows, self._row_weight), (self._columns[None, :], self._column_weight)]
        # Both share one exponential: no logit is above the largest log-sum-exp of its tile.
        shared = rows.max().to(self._dtype) if self._shared else None
        powers = tile if shared is None else _powers(tile, shared, keep=keep)
        for number, (sums, weight) in enumerate(weighted, start=1):
            # A factor corrects the rounding of a log-sum-exp to the tile's type.
            level = sums.to(self._dtype) if shared is None else shared
            factor = (level.to(sums.dtype) - sums).exp_().mul_(weight).to(self._dtype)
            if shared is None:
                powers = _powers(tile, level, keep=keep or number < len(weighted))
            result.addcmul_(powers, factor, value=sign)


def _powers(tile: Tensor, level: Tensor, *, keep: bool) -> Tensor:
    return torch.sub(tile, level, out=None if keep else tile).exp_()
