"""Teachers from the recipe's entries that name them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from distill.teacher.ensemble import Ensemble
from distill.teacher.hf import load_hf_teacher, load_student_teacher
from distill.teacher.open_clip import load_open_clip_teacher
from distill.teacher.openai import load_openai_teacher
from distill.teacher.protocol import Teacher
from export.runtime.errors import TeacherError

if TYPE_CHECKING:
    from distill.recipe.teachers import TeacherSection

# The fields of an entry that errors name.
_FIELD = re.compile(r"\bteacher\.(?=(?:model|pretrained|weights|quick_gelu)\b)")


def load_teachers(entries: Sequence["TeacherSection"], *, device: str) -> Ensemble:
    """Load all teachers of a recipe, a single one too, as one.

    Args:
        entries: What the recipe's ``teacher`` names, at least one.
        device: Where they run.

    Raises:
        TeacherError: One cannot be loaded, or two are the same; one line, which numbers them as
            the recipe does.
    """
    members: list[Teacher] = []
    for number, entry in enumerate(entries):
        try:
            member = load_teacher(entry, device=device, dtype=entry.dtype)
        except TeacherError as error:
            if len(entries) == 1:
                raise
            raise TeacherError(_FIELD.sub(f"teacher.{number}.", str(error))) from error
        same = [place for place, one in enumerate(members) if one.fingerprint == member.fingerprint]
        if same:
            raise TeacherError(
                f"teacher.{number}.model: {entry.model} is the same as teacher.{same[0]}; name it "
                "once, with a larger weight if it should count for more"
            )
        members.append(member)
    return Ensemble(members, [entry.weight for entry in entries])


def load_teacher(config: "TeacherSection", *, device: str, dtype: str) -> Teacher:
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
