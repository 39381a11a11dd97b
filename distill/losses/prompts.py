"""The term that compares pictures with a fixed bank of texts."""

from torch import Tensor

from distill.losses._bank_kl import bank_kl
from distill.losses._checks import check_temperature


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
