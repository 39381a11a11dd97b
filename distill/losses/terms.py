"""Losses: pure functions of tensors, one per published term, and their weighted sum.

S stands for a model's logits ``scale · I Tᵀ + bias`` (``[B, B]``, images in rows), Ss the
student's and St the teacher's, P for a softmax over rows. Every term is a scalar: the mean over the
batch and over the two directions, image to text and text to image. Similarities, softmax and norms
are computed in the precision of the inputs and never below float32, under autocast too. No gradient
reaches a teacher's tensor. No ``[B, B]`` is ever held: distill/losses/tiled computes it in tiles.
docs/losses.md says when to use which term.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from distill.losses.embeddings import (
    DISTANCES,
    Embeddings,
    both_towers,
    check_groups,
    check_same_batch,
    check_same_width,
    check_temperature,
    common_towers,
    detached,
    full_precision,
    product,
    with_gradient_by,
    zero_of,
)
from distill.losses.pieces import bank_kl, info_nce, over_corpus, partner_info_nce
from distill.losses.tiled.sigmoid import sigmoid_loss
from distill.losses.tiled.softmax import distribution_loss
from distill.losses.weighted import Banks, Mask, Term, WeightedTerms

__all__ = [
    "TERMS",
    "Banks",
    "Embeddings",
    "Mask",
    "Term",
    "WeightedLoss",
    "contrastive",
    "corpus_contrastive",
    "corpus_kl",
    "corpus_relational",
    "embedding_alignment",
    "interactive_contrastive",
    "kl_divergence",
    "prompt_kl",
    "relational",
    "sigmoid_contrastive",
    "soft_target",
]


def kl_divergence(student: Embeddings, teacher: Embeddings, temperature: float = 1.0) -> Tensor:
    """Match the teacher's distributions over the batch.

    ``T² · ½ [KL(Pt ‖ Ps) of S's rows + KL(Pt ‖ Ps) of Sᵀ's rows]``, P the row softmax of S / T,
    each model at its own scale. The widths of the two models may differ.

    Raises:
        ValueError: a tower is missing, the batches differ, or the temperature is not above 0.

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531; over the batch as the CRD term of
    CLIP-KD, https://arxiv.org/abs/2307.12732.
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


def embedding_alignment(
    student: Embeddings,
    teacher: Embeddings,
    kind: Literal["cosine", "mse", "smooth_l1"] = "cosine",
) -> Tensor:
    """Pull each of the student's vectors to the teacher's of the same row.

    The mean over the towers that both models have, and over the batch, of ``1 − cos`` (cosine), of
    the squared error summed over D (mse), or of the Huber error at beta 1 summed over D
    (smooth_l1).

    Raises:
        ValueError: the models have no tower in common, their batches or widths differ, or the kind
            is unknown.

    Source: the FD term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    term = "embedding_alignment"
    if kind not in DISTANCES:
        raise ValueError(f"{term}: kind is {kind!r}; it must be one of {', '.join(DISTANCES)}")
    distances = []
    for tower, ours, theirs in common_towers(term, student, detached(teacher)):
        check_same_width(term, ours, theirs, tower=tower)
        with full_precision(ours):
            lifted = [
                rows.to(torch.promote_types(rows.dtype, torch.float32)) for rows in (ours, theirs)
            ]
            distances.append(DISTANCES[kind](*lifted))
    return torch.stack(distances).mean()


def contrastive(student: Embeddings, groups: Tensor | None = None) -> Tensor:
    """Tell the true pairs of the batch from all others (InfoNCE in both directions).

    ``½ [CE(P of S's rows, Y) + CE(P of Sᵀ's rows, Y)]``; the target Y is the identity, or with
    ``groups`` (integers ``[B]``, the same for the same image or caption) uniform over the rows of
    one group. A row of group -1 has no true partner and is left out, as a row and as a column; the
    term is 0 where no row remains.

    Raises:
        ValueError: a tower is missing, or ``groups`` is not ``[B]``.

    Source: CLIP, https://arxiv.org/abs/2103.00020; the groups answer the remark on several captions
    of an image in the simple-CLIP tutorial, https://github.com/moein-shariatnia/OpenAI-CLIP.
    """
    image, text = both_towers("contrastive", "student", student)
    groups = check_groups("contrastive", groups, image)
    with full_precision(image):
        value = info_nce(image, text, student.scale, groups, columns_too=True)
        return with_gradient_by(student.bias, value)


def interactive_contrastive(
    student: Embeddings, teacher: Embeddings, groups: Tensor | None = None
) -> Tensor:
    """Tell the teacher's true partners of the student's rows from all others.

    ``½ [CE(P of scale · Is Ttᵀ, Y) + CE(P of scale · Ts Itᵀ, Y)]``: InfoNCE of the student's
    images against the teacher's texts and of its texts against the teacher's images, at the
    student's scale. Y and ``groups`` as in `contrastive`.

    Raises:
        ValueError: a tower is missing, batches or widths differ, or ``groups`` is not ``[B]``.

    Source: the ICL term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    term = "interactive_contrastive"
    image, text = both_towers(term, "student", student)
    teacher_image, teacher_text = both_towers(term, "teacher", detached(teacher))
    check_same_batch(term, image, teacher_image)
    check_same_width(term, image, teacher_image)
    groups = check_groups(term, groups, image)
    with full_precision(image):
        image_to_text = info_nce(image, teacher_text, student.scale, groups, columns_too=False)
        text_to_image = info_nce(text, teacher_image, student.scale, groups, columns_too=False)
        return with_gradient_by(student.bias, (image_to_text + text_to_image) / 2)


def relational(student: Embeddings, teacher: Embeddings, temperature: float = 1.0) -> Tensor:
    """Match how the teacher relates the pictures to each other, and the texts.

    ``T² · `` the mean over the towers that both models have of KL(Pt ‖ Ps), P the softmax of a row
    of ``scale · X Xᵀ / T`` without the diagonal, each model at its own scale. 0 at B = 1. The
    widths of the two models may differ.

    Raises:
        ValueError: the models have no tower in common, the batches differ, or the temperature is
            not above 0.

    Source: the intra-modal distances of DIME-FM, https://arxiv.org/abs/2303.18232; relations
    instead of vectors as in RKD, https://arxiv.org/abs/1904.05068.
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


def soft_target(student: Embeddings, temperature: float = 1.0) -> Tensor:
    """Contrast with a target that knows which rows of the batch resemble each other.

    ``½ [CE(P of S's rows, Q) + CE(P of Sᵀ's rows, Q)]``, the target Q the row softmax of
    ``scale · (I Iᵀ + T Tᵀ) / 2 / temperature``, detached. S is not divided by the temperature.

    Raises:
        ValueError: a tower is missing, or the temperature is not above 0.

    Source: the simple-CLIP tutorial, https://github.com/moein-shariatnia/OpenAI-CLIP, corrected:
    there the vectors are not normalised and gradients flow through the target.
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


def sigmoid_contrastive(student: Embeddings, groups: Tensor | None = None) -> Tensor:
    """Judge every picture and caption of the batch by itself: a pair or not.

    ``−log σ(y · S)`` summed over an image's row, the mean over the rows; y is +1 for a pair (or
    the same group) and −1 else. ``groups`` as in `contrastive`.

    Raises:
        ValueError: a tower is missing, or ``groups`` is not ``[B]``.

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


def prompt_kl(
    student_image: Tensor,
    teacher_image: Tensor,
    bank: Tensor,
    student_scale: Tensor,
    teacher_scale: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Match the teacher's distribution of each picture over a fixed bank of its text embeddings.

    ``T² · KL(Pt ‖ Ps)``, the mean over B, P the softmax of a row of ``scale · I bankᵀ / T``. The
    bank is ``[M, D]``, of the teacher. For pictures without captions.

    Raises:
        ValueError: the batches differ, a width is not the bank's, the bank is empty, or the
            temperature is not above 0.

    Source: distillation on class prompts, as in https://arxiv.org/abs/2303.18232.
    """
    check_temperature("prompt_kl", temperature)
    return bank_kl(
        "prompt_kl",
        (student_image, teacher_image),
        bank,
        (student_scale, teacher_scale),
        temperature,
    )


def corpus_kl(
    student: Embeddings,
    teacher: Embeddings,
    corpus_image: Tensor | None,
    corpus_text: Tensor | None,
    temperature: float = 1.0,
) -> Tensor:
    """Match the teacher's distributions over its embeddings of the corpus.

    The mean, over the towers that the student has, of `prompt_kl` of the student's images against
    the teacher's texts of the corpus ``[M, D]`` and of the student's texts against its pictures.
    The bank of a tower that the student lacks may be None.

    Raises:
        ValueError: the student has no tower, the teacher lacks one of the student's, a bank is
            missing, or what `prompt_kl` raises.

    Source: our own; the corpus stands in the teacher's cache.
    """
    banks = {"image": ("texts", corpus_text), "text": ("pictures", corpus_image)}
    return over_corpus("corpus_kl", student, teacher, banks, temperature)


def corpus_contrastive(
    student: Embeddings,
    corpus_image: Tensor | None,
    corpus_text: Tensor | None,
    image_partners: Tensor | None,
    text_partners: Tensor | None,
) -> Tensor:
    """Tell each row's true partners in the teacher's corpus from everything else there.

    The mean, over the towers that the student has, of InfoNCE of its images over the teacher's
    texts ``[M, D]`` and of its texts over the teacher's pictures, at the student's scale. The
    target of a row is uniform over its partners; a row without any is left out, and where all are
    so, a tower's part is 0.

    Args:
        student: The student's embeddings.
        corpus_image: Pictures of the corpus as the teacher sees them, for the texts.
        corpus_text: Texts of the corpus, for the images.
        image_partners: Int64 ``[P, 2]``: a row of ``student.image`` and a row of ``corpus_text``
            that belong together.
        text_partners: The same for ``student.text`` and ``corpus_image``.

    Raises:
        ValueError: the student has no tower, a bank or its partners are missing, or a width is
            not the bank's.

    Source: our own; within a batch it is the ICL term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    values = []
    for tower, rows, bank, partners in (
        ("image", student.image, corpus_text, image_partners),
        ("text", student.text, corpus_image, text_partners),
    ):
        if rows is None:
            continue
        if bank is None or partners is None:
            raise ValueError(f"corpus_contrastive: the {tower} tower needs a bank and partners")
        check_same_width("corpus_contrastive", rows, bank, tower=tower)
        with full_precision(rows):
            values.append(partner_info_nce(rows, bank, student.scale, partners))
    if not values:
        raise ValueError("corpus_contrastive: the student has no tower")
    return with_gradient_by(student.bias, torch.stack(values).mean())


def corpus_relational(
    student: Embeddings,
    teacher: Embeddings,
    corpus_image: Tensor | None,
    corpus_text: Tensor | None,
    temperature: float = 1.0,
) -> Tensor:
    """Match how the teacher relates each row to what is of its own kind in the corpus.

    As `corpus_kl`, but the student's images against the teacher's pictures of the corpus and its
    texts against the teacher's texts.

    Raises:
        ValueError: as `corpus_kl`.

    Source: our own; within a batch, and with the student's rows on both sides, it is `relational`.
    """
    banks = {"image": ("pictures", corpus_image), "text": ("texts", corpus_text)}
    return over_corpus("corpus_relational", student, teacher, banks, temperature)


TERMS: Mapping[str, Callable[..., Tensor]] = {
    "kl_divergence": kl_divergence,
    "embedding_alignment": embedding_alignment,
    "contrastive": contrastive,
    "interactive_contrastive": interactive_contrastive,
    "relational": relational,
    "soft_target": soft_target,
    "sigmoid_contrastive": sigmoid_contrastive,
    "prompt_kl": prompt_kl,
    "corpus_kl": corpus_kl,
    "corpus_contrastive": corpus_contrastive,
    "corpus_relational": corpus_relational,
}


class WeightedLoss(WeightedTerms):
    """The weighted sum of a recipe's terms."""

    functions = TERMS
