"""What a dual encoder says about a batch, and what its losses check and lift before they use it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.tiled.tiles import Product
from distill.teacher.shares import Share


@dataclass(frozen=True)
class Embeddings:
    """What a dual encoder says about a batch.

    ``image`` and ``text`` are L2-normalised ``[B, D]``, either None for a model of one tower;
    ``scale`` is a scalar, already exponentiated; ``bias`` a scalar that is added to the logits.
    """

    image: Tensor | None
    text: Tensor | None
    scale: Tensor
    bias: Tensor | None = None


def split(whole: Embeddings, shares: Sequence[Share]) -> list[Embeddings]:
    """Return what each teacher of an ensemble says, at its own scale: the reverse of `join`."""
    ends = list(accumulate(share.width for share in shares))
    return [
        Embeddings(
            image=_part(whole.image, end - share.width, end),
            text=_part(whole.text, end - share.width, end),
            scale=torch.full_like(whole.scale, share.scale),
            bias=torch.full_like(whole.scale, share.bias),
        )
        for share, end in zip(shares, ends, strict=True)
    ]


def _part(whole: Tensor | None, start: int, end: int) -> Tensor | None:
    return None if whole is None else F.normalize(whole[:, start:end], dim=-1)


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


def both_towers(term: str, model: str, embeddings: Embeddings) -> tuple[Tensor, Tensor]:
    """Return images and texts of the same pairs.

    Raises:
        ValueError: a tower is missing, or they are not both ``[B, D]``.
    """
    if embeddings.image is None or embeddings.text is None:
        missing = "image" if embeddings.image is None else "text"
        raise ValueError(f"{term}: it needs both towers and the {model} has no {missing} tower")
    image_BD, text_BD = embeddings.image, embeddings.text
    if image_BD.shape != text_BD.shape or image_BD.ndim != 2:
        raise ValueError(
            f"{term}: the {model}'s images are {list(image_BD.shape)} and its texts "
            f"{list(text_BD.shape)}; both must be [B, D] of the same pairs"
        )
    return image_BD, text_BD


def common_towers(
    term: str, student: Embeddings, teacher: Embeddings
) -> list[tuple[str, Tensor, Tensor]]:
    """Return name, student's and teacher's embeddings of each tower that both have.

    Raises:
        ValueError: there is none, or a tower's batches differ.
    """
    towers = [
        (tower, ours, theirs)
        for tower, ours, theirs in (
            ("image", student.image, teacher.image),
            ("text", student.text, teacher.text),
        )
        if ours is not None and theirs is not None
    ]
    if not towers:
        raise ValueError(
            f"{term}: student and teacher have no tower in common; "
            "it needs the images of both or the texts of both"
        )
    for tower, ours, theirs in towers:
        check_same_batch(term, ours, theirs, what=f"{tower} rows")
    return towers


def check_same_batch(term: str, ours: Tensor, theirs: Tensor, *, what: str = "rows") -> None:
    """Raise a ValueError where student and teacher have not embedded equally many rows."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"{term}: the student has {len(ours)} {what} and the teacher {len(theirs)}; "
            "both must embed the same batch"
        )


def check_same_width(term: str, ours: Tensor, theirs: Tensor, *, tower: str = "") -> None:
    """Raise a ValueError where student and teacher are not equally wide."""
    if ours.shape[-1] != theirs.shape[-1]:
        tower = f"{tower} " if tower else ""
        raise ValueError(
            f"{term}: the student's {tower}width is {ours.shape[-1]} and the "
            f"teacher's {theirs.shape[-1]}; they must be equal"
        )


def check_temperature(term: str, temperature: float) -> None:
    """Raise a ValueError where a temperature is no finite number above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"{term}: temperature is {temperature}; it must be above 0")


def check_groups(term: str, groups: Tensor | None, rows: Tensor) -> Tensor | None:
    """Return the ids where the rows are.

    Raises:
        ValueError: they are not one id a row.
    """
    if groups is None:
        return None
    if groups.shape != rows.shape[:1]:
        raise ValueError(
            f"{term}: groups is {list(groups.shape)}; it must be [{len(rows)}], one id a row"
        )
    return groups.to(rows.device)


def detached(teacher: Embeddings) -> Embeddings:
    """Return the embeddings out of reach of any gradient."""
    return Embeddings(
        image=None if teacher.image is None else constant(teacher.image),
        text=None if teacher.text is None else constant(teacher.text),
        scale=constant(teacher.scale),
        bias=None if teacher.bias is None else constant(teacher.bias),
    )


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


def group_gap(logits: Product, groups: Tensor) -> Tensor | None:
    """Return by how much a row's mean logit over its group exceeds that of its own column.

    The mean over rows, a scalar; None where every row is a group by itself. It needs only the
    groups' mean columns: memory is linear.
    """
    _, numbers, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) == len(groups):
        return None
    means = torch.zeros_like(logits.columns[: len(counts)]).index_add(0, numbers, logits.columns)
    means = means / counts[:, None].to(means.dtype)
    gaps = logits.rows * (means[numbers] - logits.columns)
    gap: Tensor = logits.scale * gaps.sum(dim=1).mean()
    return gap


def cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return one minus the cosine of each pair of rows, the mean."""
    return (1 - F.cosine_similarity(student_BD, teacher_BD, dim=-1)).mean()


def squared_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return the squared error of each pair of rows, summed over D, the mean."""
    return (student_BD - teacher_BD).square().sum(dim=-1).mean()


def huber_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return the Huber error at beta 1 of each pair of rows, summed over D, the mean."""
    return F.smooth_l1_loss(student_BD, teacher_BD, reduction="none", beta=1.0).sum(dim=-1).mean()


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine_distance,
    "mse": squared_distance,
    "smooth_l1": huber_distance,
}
