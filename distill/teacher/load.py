"""A teacher from the recipe's entry that names it."""

from typing import TYPE_CHECKING, assert_never

from distill.teacher.hf import load_hf_teacher
from distill.teacher.protocol import Teacher

if TYPE_CHECKING:
    from distill.config import HfTeacher


def load_teacher(config: "HfTeacher", *, device: str, dtype: str) -> Teacher:
    """Load the teacher that one entry of a recipe's ``teacher`` describes.

    Args:
        config: The entry.
        device: Where it runs.
        dtype: What its weights become: ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Raises:
        TeacherError: It cannot be loaded; one line.
    """
    match config.kind:
        case "hf":
            return load_hf_teacher(config.model, device=device, dtype=dtype)
        case unknown:
            assert_never(unknown)
