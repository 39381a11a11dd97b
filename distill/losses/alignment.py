"""Terms that pull the student's embeddings towards the teacher's."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses._checks import check_same_width, common_towers
from distill.losses._tensors import full_precision
from distill.losses.embeddings import Embeddings, detached


def embedding_alignment(
    student: Embeddings,
    teacher: Embeddings,
    kind: Literal["cosine", "mse", "smooth_l1"] = "cosine",
) -> Tensor:
    """Pull each of the student's embeddings towards the teacher's embedding of the same row.

    The mean over the batch, and over the towers that both models have, of the distance ``kind``.

    Args:
        student: The student's embeddings ``[B, D]``.
        teacher: The teacher's embeddings ``[B, D]``.
        kind: "cosine" is ``1 − cos``, "mse" the squared error summed over D, and "smooth_l1" the
            Huber error with beta 1 summed over D.

    Raises:
        ValueError: The models have no tower in common, their batches or widths differ, or the kind
            is unknown.

    Source: the FD term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    term = "embedding_alignment"
    if kind not in _DISTANCES:
        raise ValueError(f"{term}: kind is {kind!r}; it must be one of {', '.join(_DISTANCES)}")
    distances = []
    for tower, ours, theirs in common_towers(term, student, detached(teacher)):
        check_same_width(term, ours, theirs, tower=tower)
        with full_precision(ours):
            lifted = [
                rows.to(torch.promote_types(rows.dtype, torch.float32)) for rows in (ours, theirs)
            ]
            distances.append(_DISTANCES[kind](*lifted))
    return torch.stack(distances).mean()


def _cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return the mean over rows of one minus the cosine."""
    return (1 - F.cosine_similarity(student_BD, teacher_BD, dim=-1)).mean()


def _squared_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return the mean over rows of the squared error summed over D."""
    return (student_BD - teacher_BD).square().sum(dim=-1).mean()


def _huber_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return the mean over rows of the Huber error with beta 1 summed over D."""
    return F.smooth_l1_loss(student_BD, teacher_BD, reduction="none", beta=1.0).sum(dim=-1).mean()


_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": _cosine_distance,
    "mse": _squared_distance,
    "smooth_l1": _huber_distance,
}
