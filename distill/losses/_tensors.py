"""How the losses lift, scale and detach tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from distill.losses.tiled.tiles import Product


@contextmanager
def full_precision(rows: Tensor) -> Iterator[None]:
    """Turn autocast off: it would compute similarities in half precision, whatever their inputs."""
    with torch.autocast(rows.device.type, enabled=False):
        yield


def product(rows: Tensor, columns: Tensor, scale: Tensor, *, temperature: float = 1.0) -> Product:
    """Return ``scale · rows · columnsᵀ / temperature`` in one precision, at least float32."""
    dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    scale = scale.to(rows.device, dtype).reshape(())
    lifted = rows.to(dtype)
    # A half precision gradient is rounded once, where rows and columns are the same.
    others = lifted if columns is rows else columns.to(dtype)
    return Product(lifted, others, scale / temperature)


def constant(values: Tensor) -> Tensor:
    """Return a tensor out of reach of any gradient, which a backward pass may keep."""
    # Tensors of inference mode refuse to be kept; a copy made outside of it does not.
    return values.clone() if values.is_inference() else values.detach()


def zero_of(*tensors: Tensor | None) -> Tensor:
    """Return a 0 whose gradients by the tensors are zeros, and not absent."""
    # An empty sum keeps its place in the graph, and no number of a tensor can spoil it.
    parts = [tensor.reshape(-1)[:0].sum() for tensor in tensors if tensor is not None]
    zero = parts[0].to(torch.promote_types(parts[0].dtype, torch.float32))
    for part in parts[1:]:
        zero = zero + part.to(zero.device, zero.dtype)
    return zero


def with_gradient_by(bias: Tensor | None, value: Tensor) -> Tensor:
    """Return the value with a gradient of 0 by a bias, which cancels in every softmax."""
    return value if bias is None else value + zero_of(bias).to(value.device, value.dtype)
