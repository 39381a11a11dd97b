"""KL divergence over a bank of the teacher's embeddings."""

from torch import Tensor

from distill.losses._checks import check_same_batch
from distill.losses._tensors import constant, full_precision, product
from distill.losses.tiled.softmax import distribution_loss


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
