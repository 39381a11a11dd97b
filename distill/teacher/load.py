"""A teacher from the recipe's entry that names it."""

from typing import TYPE_CHECKING, assert_never

from distill.teacher.hf import load_hf_teacher, load_student_teacher
from distill.teacher.open_clip import load_open_clip_teacher
from distill.teacher.openai import load_openai_teacher
from distill.teacher.protocol import Teacher

if TYPE_CHECKING:
    from distill.config import Teacher as TeacherConfig


def load_teacher(config: "TeacherConfig", *, device: str, dtype: str) -> Teacher:
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
        case "openai":
            return load_openai_teacher(config.model, device=device, dtype=dtype)
        case "open_clip":
            return load_open_clip_teacher(
                config.model,
                pretrained=config.pretrained,
                weights=config.weights,
                quick_gelu=config.quick_gelu,
                device=device,
                dtype=dtype,
            )
        case "student":
            return load_student_teacher(config.model, device=device, dtype=dtype)
        case unknown:
            assert_never(unknown)
