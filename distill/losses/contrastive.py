"""Terms that tell the true pairs of the batch from all others."""

from dataclasses import replace

import torch
from torch import Tensor

from distill.losses._checks import (
    both_towers,
    check_groups,
    check_same_batch,
    check_same_width,
    check_temperature,
)
from distill.losses._tensors import full_precision, product, with_gradient_by, zero_of
from distill.losses.embeddings import Embeddings, detached
from distill.losses.tiled.sigmoid import sigmoid_loss
from distill.losses.tiled.softmax import distribution_loss, identity_loss
from distill.losses.tiled.tiles import Product


def contrastive(student: Embeddings, groups: Tensor | None = None) -> Tensor:
    """Tell the true pairs of the batch from all others: InfoNCE in both directions.

    ``½ [CE(P of S's rows, Y) + CE(P of Sᵀ's rows, Y)]``. Without groups, the target Y is the
    identity; with groups, it is uniform over the rows of a row's group.

    Args:
        student: The student's embeddings ``[B, D]``.
        groups: Integers ``[B]``, equal for rows with the same image or caption. A row of group -1
            has no true partner and is left out, as a row and as a column. The term is 0 if no row
            remains.

    Raises:
        ValueError: A tower is missing, or ``groups`` is not ``[B]``.

    Source: CLIP, https://arxiv.org/abs/2103.00020. The groups handle images with several captions,
    which the simple-CLIP tutorial points out, https://github.com/moein-shariatnia/OpenAI-CLIP.
    """
    image, text = both_towers("contrastive", "student", student)
    groups = check_groups("contrastive", groups, image)
    with full_precision(image):
        value = _info_nce(image, text, student.scale, groups, columns_too=True)
        return with_gradient_by(student.bias, value)


def interactive_contrastive(
    student: Embeddings, teacher: Embeddings, groups: Tensor | None = None
) -> Tensor:
    """Tell the teacher's true partners of the student's rows from all others.

    ``½ [CE(P of scale · Is Ttᵀ, Y) + CE(P of scale · Ts Itᵀ, Y)]``: InfoNCE of the student's
    images with the teacher's texts, and of the student's texts with the teacher's images, at the
    student's scale. Y and ``groups`` are those of `contrastive`. The widths must be equal.

    Raises:
        ValueError: A tower is missing, batches or widths differ, or ``groups`` is not ``[B]``.

    Source: the ICL term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    term = "interactive_contrastive"
    image, text = both_towers(term, "student", student)
    teacher_image, teacher_text = both_towers(term, "teacher", detached(teacher))
    check_same_batch(term, image, teacher_image)
    check_same_width(term, image, teacher_image)
    groups = check_groups(term, groups, image)
    with full_precision(image):
        image_to_text = _info_nce(image, teacher_text, student.scale, groups, columns_too=False)
        text_to_image = _info_nce(text, teacher_image, student.scale, groups, columns_too=False)
        return with_gradient_by(student.bias, (image_to_text + text_to_image) / 2)


def sigmoid_contrastive(student: Embeddings, groups: Tensor | None = None) -> Tensor:
    """Decide for each image and caption of the batch whether they are a pair.

    ``−log σ(y · S)`` summed over an image's row, the mean over rows. y is +1 for a pair or for rows
    of the same group, and −1 otherwise. ``groups`` are those of `contrastive`.

    Raises:
        ValueError: A tower is missing, or ``groups`` is not ``[B]``.

    Source: SigLIP, https://arxiv.org/abs/2303.15343.
    """
    image, text = both_towers("sigmoid_contrastive", "student", student)
    groups = check_groups("sigmoid_contrastive", groups, image)
    with full_precision(image):
        logits = product(image, text, student.scale)
        zero = zero_of(*logits.tensors, student.bias)
        bias = zero if student.bias is None else student.bias.to(zero.device, zero.dtype)
        if groups is not None:
            kept = groups != -1
            groups = groups[kept]
            logits = replace(logits, rows=logits.rows[kept], columns=logits.columns[kept])
        return sigmoid_loss(logits, bias, groups) if len(logits.rows) else zero


def soft_target(student: Embeddings, temperature: float = 1.0) -> Tensor:
    """Contrast rows, with a target that knows which rows of the batch resemble each other.

    ``½ [CE(P of S's rows, Q) + CE(P of Sᵀ's rows, Q)]``. The target Q is the row softmax of
    ``scale · (I Iᵀ + T Tᵀ) / 2 / temperature``, without a gradient. The temperature does not divide
    S.

    Raises:
        ValueError: A tower is missing, or the temperature is not above 0.

    Source: the simple-CLIP tutorial, https://github.com/moein-shariatnia/OpenAI-CLIP, with two
    corrections: embeddings are normalised, and no gradient flows through the target.
    """
    check_temperature("soft_target", temperature)
    image, text = both_towers("soft_target", "student", student)
    with full_precision(image):
        logits = product(image, text, student.scale)
        # The target is symmetric: the softmax of its columns is the target of the texts' rows.
        mean = torch.cat([logits.rows, logits.columns], dim=1).detach() / 2**0.5
        target = product(mean, mean, student.scale.detach(), temperature=temperature)
        value = distribution_loss(logits, target, columns=True, entropy=True)
        return with_gradient_by(student.bias, value)


def _info_nce(
    rows: Tensor, columns: Tensor, scale: Tensor, groups: Tensor | None, *, columns_too: bool
) -> Tensor:
    """Return InfoNCE of the rows, or the mean of rows and columns, without rows of group -1."""
    logits = product(rows, columns, scale)
    if groups is None:
        return identity_loss(logits, columns=columns_too)
    kept = groups != -1
    groups = groups[kept]
    if not len(groups):
        return zero_of(*logits.tensors)
    logits = replace(logits, rows=logits.rows[kept], columns=logits.columns[kept])
    value = identity_loss(logits, columns=columns_too)
    gap = _group_gap(logits, groups)
    return value if gap is None else value - gap


def _group_gap(logits: Product, groups: Tensor) -> Tensor | None:
    """Return by how much a row's mean logit over its group exceeds that of its own column.

    The result is the mean over rows, or None if every row is a group of its own. Only the mean
    columns of the groups are needed, so memory is linear.
    """
    _, numbers, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) == len(groups):
        return None
    means = torch.zeros_like(logits.columns[: len(counts)]).index_add(0, numbers, logits.columns)
    means = means / counts[:, None].to(means.dtype)
    gaps = logits.rows * (means[numbers] - logits.columns)
    gap: Tensor = logits.scale * gaps.sum(dim=1).mean()
    return gap
