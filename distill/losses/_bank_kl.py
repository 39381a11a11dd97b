"""KL divergence over a bank of the teacher's embeddings."""

from torch import Tensor

from distill.losses._checks import check_same_batch
from distill.losses._tensors import constant, full_precision, product
from distill.losses.tiled.softmax import distribution_loss


def bank_kl(
    term: str,
    rows: tuple[Tensor, Tensor],
    bank: Tensor,
    scales: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """Return ``τ² · KL(Pt ‖ Ps)`` over a bank ``[M, D]``, for rows ``[B, D]`` of both models.

    ``rows`` and ``scales`` are the student's and the teacher's; ``term`` begins the errors.
    """
    check_same_batch(term, *rows)
    if bank.ndim != 2 or not len(bank):
        raise ValueError(f"{term}: the bank is {list(bank.shape)}; it must be [M, D], M at least 1")
    for model, its_rows in zip(("student", "teacher"), rows, strict=True):
        if its_rows.shape[-1] != bank.shape[-1]:
            raise ValueError(
                f"{term}: the {model}'s width is {its_rows.shape[-1]}, but the bank's is "
                f"{bank.shape[-1]}; they must be equal"
            )
    with full_precision(rows[0]):
        student = product(rows[0], constant(bank), scales[0], temperature=temperature)
        teacher = product(
            constant(rows[1]), constant(bank), constant(scales[1]), temperature=temperature
        )
        return temperature**2 * distribution_loss(student, teacher, columns=False)
