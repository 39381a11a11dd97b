"""A dual encoder's embeddings of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses._tensors import constant
from distill.teacher.shares import Share


@dataclass(frozen=True)
class Embeddings:
    """A dual encoder's embeddings of a batch, and the scale and bias of its logits.

    Attributes:
        image: Image embeddings ``[B, D]``, L2-normalised; None without an image tower.
        text: Text embeddings ``[B, D]`` of the same rows, L2-normalised; None without a text tower.
        scale: The factor of the similarities, a scalar that is already exponentiated.
        bias: A scalar added to the logits, as in SigLIP; None counts as 0.
    """

    image: Tensor | None
    text: Tensor | None
    scale: Tensor
    bias: Tensor | None = None


def detached(teacher: Embeddings) -> Embeddings:
    """Return a teacher's embeddings without their gradients."""
    return Embeddings(
        image=None if teacher.image is None else constant(teacher.image),
        text=None if teacher.text is None else constant(teacher.text),
        scale=constant(teacher.scale),
        bias=None if teacher.bias is None else constant(teacher.bias),
    )


def split(whole: Embeddings, shares: Sequence[Share]) -> list[Embeddings]:
    """Return each teacher's embeddings and scale; reverses `distill.teacher.shares.join`."""
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
