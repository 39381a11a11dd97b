"""What a dual encoder says about a batch."""

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
    """What a dual encoder says about a batch.

    ``image`` and ``text`` are L2-normalised ``[B, D]``, either None for a model of one tower;
    ``scale`` is a scalar, already exponentiated; ``bias`` a scalar that is added to the logits.
    """

    image: Tensor | None
    text: Tensor | None
    scale: Tensor
    bias: Tensor | None = None


def detached(teacher: Embeddings) -> Embeddings:
    """Return the embeddings out of reach of any gradient."""
    return Embeddings(
        image=None if teacher.image is None else constant(teacher.image),
        text=None if teacher.text is None else constant(teacher.text),
        scale=constant(teacher.scale),
        bias=None if teacher.bias is None else constant(teacher.bias),
    )


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
