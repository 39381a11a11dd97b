"""Tiles of a matrix of logits that is never held whole: linear memory, forward and backward.

A matrix of logits is a product: ``scale · rows · columnsᵀ`` of ``[N, D]`` and ``[M, D]``. It is
computed in tiles of some rows and all columns. Where a row says all of its own gradient, one pass
is enough: _rows.py and sigmoid.py. Where columns have a softmax too, the tiles are computed once
more backward, or kept where all is one tile: softmax.py.
`tiling` sets the size of a tile, and spreads the tiles over the processes of ``torch.distributed``.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# A matrix of so few logits is one tile, and kept for the backward pass.
_WHOLE = 1 << 20
# Largest tile: on a CPU it should not leave the caches, on a GPU there should be few of them.
_CPU_ENTRIES, _CPU_ROWS = 1 << 22, 512
_GPU_ENTRIES = 1 << 26


@dataclass(frozen=True)
class _Setting:
    rows: int | None = None
    spread: bool = False


_DEFAULT = _Setting()
_setting: ContextVar[_Setting] = ContextVar("tiling", default=_DEFAULT)


@contextmanager
def tiling(*, rows: int | None = None, spread: bool = False) -> Iterator[None]:
    """Set how the losses inside are tiled.

    Args:
        rows: Rows of a tile; None: as many as are fast, at most four million logits on a CPU.
        spread: Every process of ``torch.distributed``'s default group holds the same embeddings
            and computes only its own share of the rows. The loss is the same on each; the gradient
            of each is that of its own tiles times the number of processes, so that the mean over
            the processes is the gradient of the whole. Each process must compute the same losses
            in the same order.

    Raises:
        ValueError: ``rows`` is below 1.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"tiling: rows is {rows}; it must be at least 1, or None")
    token = _setting.set(_Setting(rows, spread))
    try:
        yield
    finally:
        _setting.reset(token)


@dataclass(frozen=True)
class Product:
    """Logits ``scale · rows · columnsᵀ``: ``[N, D]``, ``[M, D]`` and a scalar."""

    rows: Tensor
    columns: Tensor
    scale: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three of them."""
        return self.rows, self.columns, self.scale

    def to(self, dtype: torch.dtype) -> "Product":
        """Return it in another precision."""
        return Product(self.rows.to(dtype), self.columns.to(dtype), self.scale.to(dtype))

    @classmethod
    def of(
        cls, rows: Tensor | None, columns: Tensor | None, scale: Tensor | None
    ) -> "Product | None":
        """Return the product of three tensors, or None where they are None."""
        if rows is None or columns is None or scale is None:
            return None
        return cls(rows, columns, scale)


@dataclass(frozen=True)
class Plan:
    """What is computed of a product, and which of its tiles in this process.

    ``tiles``: first and last row of each. ``processes``: how many share the rows. ``grad``: a
    gradient is asked for. ``keep``: the one tile is kept for the backward pass. ``columns``:
    columns are looked at too. ``diagonal``: False leaves out the entries (i, i). ``entropy``: cross
    entropy in the place of KL. ``own``: the entry (i, i) is what row i is told to be, where no
    teacher says it.
    """

    tiles: tuple[tuple[int, int], ...]
    tile_rows: int
    processes: int
    grad: bool
    keep: bool
    columns: bool
    diagonal: bool
    entropy: bool
    own: bool


def make_plan(
    student: Product,
    *further: Tensor,
    columns: bool = False,
    diagonal: bool = True,
    entropy: bool = False,
    own: bool = True,
) -> Plan:
    """Divide a product into tiles, as the setting says.

    ``further`` tensors may ask for a gradient beside those of the product.
    """
    setting = _setting.get()
    count = len(student.rows)
    rows = setting.rows or _tile_rows(student)
    processes, rank = 1, 0
    if setting.spread and dist.is_available() and dist.is_initialized():
        processes, rank = dist.get_world_size(), dist.get_rank()
    first, last = count * rank // processes, count * (rank + 1) // processes
    tiles = tuple((start, min(start + rows, last)) for start in range(first, last, rows))
    asking = any(tensor.requires_grad for tensor in (*student.tensors, *further))
    grad = torch.is_grad_enabled() and asking
    keep = grad and len(tiles) == 1 and (last - first) * len(student.columns) <= _WHOLE
    tile_rows = min(rows, last - first)
    return Plan(tiles, tile_rows, processes, grad, keep, columns, diagonal, entropy, own)


def _tile_rows(student: Product) -> int:
    count, width = len(student.rows), len(student.columns)
    if count * width <= _WHOLE:
        return max(1, count)
    if student.rows.device.type == "cpu":
        return max(1, min(_CPU_ROWS, _CPU_ENTRIES // width))
    return max(1, _GPU_ENTRIES // width)


def accumulator(values: Tensor) -> torch.dtype:
    """Return the type for running sums; Apple's GPUs have no float64."""
    return torch.float32 if values.device.type == "mps" else torch.float64


class Logits:
    """The tiles of a product, in one buffer that each tile overwrites."""

    def __init__(self, product: Product, plan: Plan) -> None:
        self._scaled = product.rows * product.scale
        self._columns = product.columns.t()
        self._plan = plan
        self.buffer = product.rows.new_empty(plan.tile_rows, len(product.columns))

    def tile(self, first: int, last: int) -> Tensor:
        """Return the logits of some rows, minus infinity where an entry is left out."""
        values = self.buffer[: last - first]
        torch.mm(self._scaled[first:last], self._columns, out=values)
        if not self._plan.diagonal:
            diagonal_of(values, first).fill_(-math.inf)
        return values


def diagonal_of(tile: Tensor, first: int) -> Tensor:
    """Return a view of the entries (i, i) of a tile that begins at a row."""
    return tile[:, first : first + len(tile)].diagonal()


class Gradients:
    """The loss's gradients by rows, columns and scale, from those by the logits of each tile."""

    def __init__(self, product: Product, needed: Sequence[bool]) -> None:
        """Begin with zeros; ``needed`` says which of rows, columns and scale ask for one."""
        self._product, self._needed = product, needed
        self._of_rows = torch.zeros_like(product.rows) if needed[0] or needed[2] else None
        self._of_columns = torch.zeros_like(product.columns) if needed[1] else None

    def add(self, first: int, last: int, tile: Tensor, factor: Tensor | float = 1.0) -> None:
        """Take in the gradient by the logits of some rows: the tile times a factor.

        The factor is a number, or one of each row, ``[R, 1]``.
        """
        if self._of_rows is not None:
            found = self._of_rows[first:last]
            torch.mm(tile, self._product.columns, out=found)
            found.mul_(factor)
        if self._of_columns is not None:
            self._of_columns.addmm_(tile.t(), self._product.rows[first:last] * factor)

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients by rows, columns and scale, None where there need be none."""
        rows, _, scale = self._product.tensors
        of_scale = None
        if self._needed[2] and self._of_rows is not None:
            products = (self._of_rows * rows).sum(dim=1)
            of_scale = products.sum(dtype=accumulator(rows)).to(scale.dtype).reshape(scale.shape)
        if self._of_columns is not None:
            self._of_columns.mul_(scale)
        of_rows = None
        if self._needed[0] and self._of_rows is not None:
            of_rows = self._of_rows.mul_(scale)
        return of_rows, self._of_columns, of_scale


def mean_over_rows(total: Tensor, rows: Tensor, plan: Plan) -> Tensor:
    """Return the mean over all rows of what this process has summed over its own."""
    if plan.processes > 1:
        dist.all_reduce(total)
    return (total / len(rows)).to(rows.dtype)


def times(gradient: Tensor, kept: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients that a forward pass has kept, times that of its loss."""
    return [None if tensor is None else tensor * gradient for tensor in kept]
