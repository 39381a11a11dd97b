"""How the embeddings of several teachers become those of one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """One teacher's part of an ensemble.

    ``weight`` is its share of the whole, between 0 and 1; the weights of all parts sum to 1.
    ``width`` is the width D of its embeddings, ``scale`` and ``bias`` are those of its logits.
    """

    weight: float
    width: int
    scale: float
    bias: float


def join(parts: Sequence[Tensor], shares: Sequence[Share]) -> Tensor:
    """Join the embeddings of several teachers, ``[N, D]`` each, into ``[N, ΣD]``.

    Parts and result are L2-normalised. Each part is scaled by the square root of its weight, so a
    cosine of joined rows is the weighted mean of the teachers' cosines.
    """
    if len(shares) == 1:
        return parts[0]
    scaled = [math.sqrt(share.weight) * part for share, part in zip(shares, parts, strict=True)]
    return F.normalize(torch.cat(scaled, dim=-1), dim=-1)


def mean_scale(shares: Sequence[Share]) -> tuple[float, float]:
    """Return an ensemble's logit scale and bias, the weighted means over its teachers."""
    return (
        sum(share.weight * share.scale for share in shares),
        sum(share.weight * share.bias for share in shares),
    )
