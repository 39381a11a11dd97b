"""Tiles of a matrix of logits that is never held whole: memory is linear in both passes.

A matrix of logits is a product ``scale · rows · columnsᵀ`` of ``[N, D]`` and ``[M, D]``. It is
computed in tiles of some rows and all columns. If the gradient of a row depends on that row alone,
one pass over the tiles is enough (``_rows.py`` and ``sigmoid.py``). If columns have a softmax too,
the backward pass computes the tiles again, unless a single tile is small enough to be kept
(``softmax.py``). `tiling` sets the size of a tile and spreads the tiles over the processes of
``torch.distributed``.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# A matrix of at most this many logits is one tile, and is kept for the backward pass.
_WHOLE = 1 << 20
# The largest tile: on a CPU it should fit the caches, on a GPU there should be few tiles.
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
        rows: Rows of a tile; None chooses a fast number, at most four million logits on a CPU.
        spread: Whether to share the rows among the processes of ``torch.distributed``'s default
            group, which must all hold the same embeddings and compute the same losses in the same
            order. Each process gets the whole loss, and the gradient of its own tiles times the
            number of processes: the mean over the processes is the whole gradient.

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
        """Rows, columns and scale."""
        return self.rows, self.columns, self.scale

    def to(self, dtype: torch.dtype) -> "Product":
        """Return the product in another precision."""
        return Product(self.rows.to(dtype), self.columns.to(dtype), self.scale.to(dtype))

    @classmethod
    def of(
        cls, rows: Tensor | None, columns: Tensor | None, scale: Tensor | None
    ) -> "Product | None":
        """Return the product of three tensors, or None if one of them is None."""
        if rows is None or columns is None or scale is None:
            return None
        return cls(rows, columns, scale)


@dataclass(frozen=True)
class Plan:
    """What to compute of a product, and in which tiles.

    Attributes:
        tiles: The first row of each tile of this process, and the row after its last.
        tile_rows: The rows of the largest tile.
        processes: How many processes share the rows.
        grad: Whether a gradient is needed.
        keep: Whether the only tile is kept for the backward pass.
        columns: Whether the loss takes the columns too.
        diagonal: Whether the entries (i, i) count.
        entropy: Whether the loss is the cross entropy instead of KL.
        own: Whether, without a teacher, the entry (i, i) is the target of row i.
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
    """Divide a product into tiles according to `tiling`.

    ``further`` are tensors besides those of the product that may need a gradient.
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
    """Return the type of running sums; Apple's GPUs have no float64."""
    return torch.float32 if values.device.type == "mps" else torch.float64


class Logits:
    """The tiles of a product, in one buffer that each tile overwrites."""

    def __init__(self, product: Product, plan: Plan) -> None:
        self._scaled = product.rows * product.scale
        self._columns = product.columns.t()
        self._plan = plan
        self.buffer = product.rows.new_empty(plan.tile_rows, len(product.columns))

    def tile(self, first: int, last: int) -> Tensor:
        """Return the logits of some rows; entries that are left out are minus infinity."""
        values = self.buffer[: last - first]
        torch.mm(self._scaled[first:last], self._columns, out=values)
        if not self._plan.diagonal:
            diagonal_of(values, first).fill_(-math.inf)
        return values


def diagonal_of(tile: Tensor, first: int) -> Tensor:
    """Return a view of the entries (i, i) of a tile whose first row is given."""
    return tile[:, first : first + len(tile)].diagonal()


class Gradients:
    """Adds up the gradients by rows, columns and scale from those by each tile's logits."""

    def __init__(self, product: Product, needed: Sequence[bool]) -> None:
        """Start with zeros; ``needed`` says which of rows, columns and scale need a gradient."""
        self._product, self._needed = product, needed
        self._of_rows = torch.zeros_like(product.rows) if needed[0] or needed[2] else None
        self._of_columns = torch.zeros_like(product.columns) if needed[1] else None

    def add(self, first: int, last: int, tile: Tensor, factor: Tensor | float = 1.0) -> None:
        """Add the gradient by the logits of some rows, which is the tile times a factor.

        The factor is a number, or one number for each row, ``[R, 1]``.
        """
        if self._of_rows is not None:
            found = self._of_rows[first:last]
            torch.mm(tile, self._product.columns, out=found)
            found.mul_(factor)
        if self._of_columns is not None:
            self._of_columns.addmm_(tile.t(), self._product.rows[first:last] * factor)

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients by rows, columns and scale, None for each that is not needed."""
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
    """Return the mean over all rows, given the sum over the rows of this process."""
    if plan.processes > 1:
        dist.all_reduce(total)
    return (total / len(rows)).to(rows.dtype)


def times(gradient: Tensor, kept: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients that a forward pass has saved, times that of its loss."""
    return [None if tensor is None else tensor * gradient for tensor in kept]
