"""Precision, scale and gradients of the tensors that losses work with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from distill.losses.tiled.tiles import Product


@contextmanager
def full_precision(rows: Tensor) -> Iterator[None]:
    """Turn autocast off, which would compute similarities in half precision."""
    with torch.autocast(rows.device.type, enabled=False):
        yield


def product(rows: Tensor, columns: Tensor, scale: Tensor, *, temperature: float = 1.0) -> Product:
    """Return ``scale · rows · columnsᵀ / temperature`` in one precision of at least float32."""
    dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    scale = scale.to(rows.device, dtype).reshape(())
    lifted = rows.to(dtype)
    # If rows and columns are the same, a half precision gradient is rounded only once.
    others = lifted if columns is rows else columns.to(dtype)
    return Product(lifted, others, scale / temperature)


def constant(values: Tensor) -> Tensor:
    """Return the values without a gradient, in a tensor that a backward pass may save."""
    # Autograd cannot save tensors of inference mode, but it can save copies of them.
    return values.clone() if values.is_inference() else values.detach()


def zero_of(*tensors: Tensor | None) -> Tensor:
    """Return a 0 that has a gradient of zeros by each of the tensors."""
    # An empty sum stays in the graph, and is 0 even if a tensor has NaN.
    parts = [tensor.reshape(-1)[:0].sum() for tensor in tensors if tensor is not None]
    zero = parts[0].to(torch.promote_types(parts[0].dtype, torch.float32))
    for part in parts[1:]:
        zero = zero + part.to(zero.device, zero.dtype)
    return zero


def with_gradient_by(bias: Tensor | None, value: Tensor) -> Tensor:
    """Return the value with a gradient of 0 by the bias, which cancels in every softmax."""
    return value if bias is None else value + zero_of(bias).to(value.device, value.dtype)
