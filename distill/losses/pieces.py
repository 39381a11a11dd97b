"""What several losses are made of: InfoNCE with groups or partners, KL over a bank."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from distill.losses.embeddings import (
    Embeddings,
    check_same_batch,
    check_temperature,
    constant,
    full_precision,
    group_gap,
    product,
    with_gradient_by,
    zero_of,
)
from distill.losses.tiled.softmax import distribution_loss, identity_loss, mean_log_sum

_CALLED = {"image": "an image tower", "text": "a text tower"}


def info_nce(
    rows: Tensor, columns: Tensor, scale: Tensor, groups: Tensor | None, *, columns_too: bool
) -> Tensor:
    """Return InfoNCE of the rows, and of the columns too, with rows of group -1 left out."""
    logits = product(rows, columns, scale)
    if groups is None:
        return identity_loss(logits, columns=columns_too)
    kept = groups != -1
    groups = groups[kept]
    if not len(groups):
        return zero_of(*logits.tensors)
    logits = replace(logits, rows=logits.rows[kept], columns=logits.columns[kept])
    value = identity_loss(logits, columns=columns_too)
    gap = group_gap(logits, groups)
    return value if gap is None else value - gap


def over_corpus(
    term: str,
    student: Embeddings,
    teacher: Embeddings,
    banks: Mapping[str, tuple[str, Tensor | None]],
    temperature: float,
) -> Tensor:
    """Return the mean over the student's towers of KL over each one's bank."""
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
            raise ValueError(f"{term}: the student has {_CALLED[tower]} and the teacher none")
        kind, bank = banks[tower]
        if bank is None:
            raise ValueError(f"{term}: it needs the corpus's {kind} and none are given")
        values.append(bank_kl(term, (ours, theirs), bank, scales, temperature))
    if not values:
        raise ValueError(f"{term}: the student has no tower")
    return with_gradient_by(student.bias, torch.stack(values).mean())


def bank_kl(
    term: str,
    images: tuple[Tensor, Tensor],
    bank: Tensor,
    scales: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """Return `prompt_kl` of the student's and the teacher's rows, each with its scale."""
    check_same_batch(term, *images)
    if bank.ndim != 2 or not len(bank):
        raise ValueError(f"{term}: the bank is {list(bank.shape)}; it must be [M, D], M at least 1")
    for model, rows in zip(("student", "teacher"), images, strict=True):
        if rows.shape[-1] != bank.shape[-1]:
            raise ValueError(
                f"{term}: the {model}'s width is {rows.shape[-1]} and the bank's "
                f"{bank.shape[-1]}; they must be equal"
            )
    with full_precision(images[0]):
        student = product(images[0], constant(bank), scales[0], temperature=temperature)
        teacher = product(
            constant(images[1]), constant(bank), constant(scales[1]), temperature=temperature
        )
        return temperature**2 * distribution_loss(student, teacher, columns=False)


def partner_info_nce(rows: Tensor, bank: Tensor, scale: Tensor, partners: Tensor) -> Tensor:
    """Return InfoNCE of rows over a bank, the target uniform over each row's partners in it.

    ``partners`` is ``[P, 2]``, a row and a column each; a row that has none is left out.
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
