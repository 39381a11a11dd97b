"""Terms that compare images with a fixed bank of texts."""

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
    """Match the teacher's distribution of each image over a fixed bank of texts.

    ``τ² · KL(Pt ‖ Ps)``, the mean over rows, where P is the row softmax of ``scale · I bankᵀ / τ``
    and τ the temperature. Images need no captions.

    Args:
        student_image: The student's image embeddings ``[B, D]``.
        teacher_image: The teacher's embeddings of the same images, ``[B, D]``.
        bank: The teacher's embeddings of the texts, ``[M, D]``.
        student_scale: The scale of the student's logits, a scalar.
        teacher_scale: The scale of the teacher's logits, a scalar.
        temperature: Divides the logits of both models.

    Raises:
        ValueError: The batches differ, a width is not that of the bank, the bank is empty, or the
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
