"""Terms that match the teacher's distributions over the batch."""

import torch
from torch import Tensor

from distill.losses._checks import both_towers, check_same_batch, check_temperature, common_towers
from distill.losses._tensors import full_precision, product, with_gradient_by, zero_of
from distill.losses.embeddings import Embeddings, detached
from distill.losses.tiled.softmax import distribution_loss


def kl_divergence(student: Embeddings, teacher: Embeddings, temperature: float = 1.0) -> Tensor:
    """Match the teacher's distributions over the batch.

    ``τ² · ½ [KL(Pt ‖ Ps) of S's rows + KL(Pt ‖ Ps) of Sᵀ's rows]``, where P is the row softmax of
    S / τ and τ the temperature. Each model has its own scale.

    Args:
        student: The student's embeddings ``[B, D]``.
        teacher: The teacher's embeddings of the same rows; their width may differ.
        temperature: Divides the logits of both models.

    Raises:
        ValueError: A tower is missing, the batches differ, or the temperature is not above 0.

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531. Over the batch of a dual encoder,
    it is the CRD term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    term = "kl_divergence"
    check_temperature(term, temperature)
    teacher = detached(teacher)
    ours, theirs = both_towers(term, "student", student), both_towers(term, "teacher", teacher)
    check_same_batch(term, ours[0], theirs[0])
    with full_precision(ours[0]):
        value = distribution_loss(
            product(*ours, student.scale, temperature=temperature),
            product(*theirs, teacher.scale, temperature=temperature),
            columns=True,
        )
        return with_gradient_by(student.bias, temperature**2 * value)


def relational(student: Embeddings, teacher: Embeddings, temperature: float = 1.0) -> Tensor:
    """Match how the teacher relates images to each other, and texts to each other.

    ``τ² · KL(Pt ‖ Ps)``, the mean over the towers that both models have. P is the row softmax of
    ``scale · X Xᵀ / τ`` without the diagonal, for a tower's embeddings X and the temperature τ.
    Each model has its own scale, and their widths may differ. The term is 0 for a single row.

    Raises:
        ValueError: The models have no tower in common, the batches differ, or the temperature is
            not above 0.

    Source: the intra-modal distances of DIME-FM, https://arxiv.org/abs/2303.18232. RKD also matches
    relations instead of vectors, https://arxiv.org/abs/1904.05068.
    """
    check_temperature("relational", temperature)
    teacher = detached(teacher)
    values = []
    for _, ours, theirs in common_towers("relational", student, teacher):
        with full_precision(ours):
            models = [
                product(rows, rows, scale, temperature=temperature)
                for rows, scale in ((ours, student.scale), (theirs, teacher.scale))
            ]
            if len(ours) == 1:
                values.append(zero_of(*models[0].tensors))
            else:
                values.append(distribution_loss(*models, columns=False, diagonal=False))
    return with_gradient_by(student.bias, temperature**2 * torch.stack(values).mean())
