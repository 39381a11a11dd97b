"""Terms that compare the student with the teacher's embeddings of the corpus."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from distill.losses._bank_kl import bank_kl
from distill.losses._checks import check_same_width, check_temperature
from distill.losses._tensors import (
    constant,
    full_precision,
    product,
    with_gradient_by,
    zero_of,
)
from distill.losses.embeddings import Embeddings
from distill.losses.tiled.softmax import mean_log_sum

_CALLED = {"image": "an image tower", "text": "a text tower"}


def corpus_kl(
    student: Embeddings,
    teacher: Embeddings,
    corpus_image: Tensor | None,
    corpus_text: Tensor | None,
    temperature: float = 1.0,
) -> Tensor:
    """Match the teacher's distributions over its embeddings of the corpus.

    ``τ² · KL(Pt ‖ Ps)``, the mean over rows and over the student's towers. For images, P is the row
    softmax of ``scale · I corpus_textᵀ / τ``. For texts, it is that of
    ``scale · T corpus_imageᵀ / τ``. τ is the temperature.

    Args:
        student: The student's embeddings ``[B, D]``.
        teacher: The teacher's embeddings of the same rows, ``[B, D]``.
        corpus_image: The teacher's embeddings of images of the corpus, ``[M, D]``; may be None for
            a student without a text tower.
        corpus_text: The teacher's embeddings of texts of the corpus, ``[M, D]``; may be None for a
            student without an image tower.
        temperature: Divides the logits of both models.

    Raises:
        ValueError: The student has no tower, the teacher lacks one of the student's towers, a bank
            is missing or empty, the batches or widths differ, or the temperature is not above 0.

    Source: our own. The corpus comes from the teacher's cache.
    """
    banks = {"image": ("texts", corpus_text), "text": ("pictures", corpus_image)}
    return _over_corpus("corpus_kl", student, teacher, banks, temperature)


def corpus_contrastive(
    student: Embeddings,
    corpus_image: Tensor | None,
    corpus_text: Tensor | None,
    image_partners: Tensor | None,
    text_partners: Tensor | None,
) -> Tensor:
    """Tell each row's true partners in the teacher's corpus from everything else there.

    InfoNCE of the student's images over the teacher's texts, and of its texts over the teacher's
    images, at the student's scale; the mean over the student's towers. The target of a row is
    uniform over its partners. A row without partners is left out; a tower whose rows have none
    counts as 0.

    Args:
        student: The student's embeddings ``[B, D]``.
        corpus_image: The teacher's embeddings of images of the corpus, ``[M, D]``.
        corpus_text: The teacher's embeddings of texts of the corpus, ``[M, D]``.
        image_partners: Int64 ``[P, 2]``: a row of ``student.image`` and a row of ``corpus_text``
            that belong together.
        text_partners: Int64 ``[P, 2]``: a row of ``student.text`` and a row of ``corpus_image``
            that belong together.

    Raises:
        ValueError: The student has no tower, a bank or its partners are missing, or a width is
            not that of the bank.

    Source: our own. Within a batch, it is the ICL term of CLIP-KD,
    https://arxiv.org/abs/2307.12732.
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
            values.append(_partner_info_nce(rows, bank, student.scale, partners))
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
    """Match how the teacher relates images to images of the corpus, and texts to texts.

    `corpus_kl` with the banks exchanged: images are compared with ``corpus_image``, and texts with
    ``corpus_text``.

    Raises:
        ValueError: For the same reasons as `corpus_kl`.

    Source: our own. Within a batch, and with the student's rows on both sides, it is
    `distill.losses.distributions.relational`.
    """
    banks = {"image": ("pictures", corpus_image), "text": ("texts", corpus_text)}
    return _over_corpus("corpus_relational", student, teacher, banks, temperature)


def _over_corpus(
    term: str,
    student: Embeddings,
    teacher: Embeddings,
    banks: Mapping[str, tuple[str, Tensor | None]],
    temperature: float,
) -> Tensor:
    """Return the mean over the student's towers of KL over the tower's bank."""
    check_temperature(term, temperature)
    scales = (student.scale, teacher.scale)
    values = []
    for tower, ours, theirs in (
        ("image", student.image, teacher.image),
        ("text", student.text, teacher.text),
    ):
        if ours is None:
            continue
        if theirs is None:
            raise ValueError(f"{term}: the student has {_CALLED[tower]}, but the teacher has none")
        kind, bank = banks[tower]
        if bank is None:
            raise ValueError(f"{term}: needs the corpus's {kind}, but none are given")
        values.append(bank_kl(term, (ours, theirs), bank, scales, temperature))
    if not values:
        raise ValueError(f"{term}: the student has no tower")
    return with_gradient_by(student.bias, torch.stack(values).mean())


def _partner_info_nce(rows: Tensor, bank: Tensor, scale: Tensor, partners: Tensor) -> Tensor:
    """Return InfoNCE of rows over a bank; the target is uniform over a row's partners.

    ``partners`` is ``[P, 2]``, pairs of row and column. A row without partners is left out.
    """
    logits = product(rows, constant(bank), scale)
    row, column = partners.to(rows.device).unbind(dim=1)
    counts = torch.bincount(row, minlength=len(rows))
    kept = counts > 0
    if not len(partners):
        return zero_of(*logits.tensors)
    sums = torch.zeros_like(logits.rows).index_add(0, row, logits.columns[column])
    means = sums[kept] / counts[kept, None].to(sums.dtype)
    logits = replace(logits, rows=logits.rows[kept])
    pulled = logits.scale * (logits.rows * means).sum(dim=1).mean()
    return mean_log_sum(logits) - pulled
