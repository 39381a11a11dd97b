"""The teacher sections of a recipe: one for each kind of teacher, and the list of all kinds."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from distill.recipe.base import Flag, Positive, Section, Text, by_kind, one_or_many
from distill.teacher.openai_names import OPENAI_MODELS, OPENAI_SUFFIXES

_Dtype = Literal["float32", "float16", "bfloat16"]

# MODEL:PRETRAINED, as open_clip lists its weights; hf-hub:NAME and local-dir:FOLDER have no tag.
_TAGGED = re.compile(r"(?!hf-hub:|local-dir:)([^:]+):(.+)")


class TeacherRow(Section):
    """A kind of teacher: its fields, and the function that loads the teacher from them."""

    loader: ClassVar[str]
    """The function that loads it, as ``module:function``; imported only when it is called."""

    @classmethod
    def recognises(cls, _name: str, /) -> bool:
        """Tell whether a bare name on the command line, without a kind, is of this kind."""
        return False

    @classmethod
    def named(cls, name: str) -> dict[str, Any]:
        """Return the fields that a name on the command line gives."""
        return {"model": name}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the loader, except the device."""
        return self.model_dump(exclude={"kind", "weight"})


class HfTeacherSection(TeacherRow):
    """A dual encoder of transformers, such as CLIPModel."""

    loader = "distill.teacher.hf:load_hf_teacher"

    kind: Literal["hf"] = "hf"
    """A dual encoder of transformers."""
    model: Text
    """Name on the hub, or local folder."""
    weight: Positive = 1.0
    """Weight of this teacher among several; only proportions matter."""
    dtype: _Dtype = "float32"
    """Precision that the teacher computes in."""


class OpenAiTeacherSection(TeacherRow):
    """One of OpenAI's CLIP models, as OpenAI distributes them."""

    loader = "distill.teacher.openai:load_openai_teacher"

    kind: Literal["openai"] = "openai"
    """One of OpenAI's CLIP models, as OpenAI distributes them."""
    model: Text
    """Name such as ViT-L/14, ViT-L/14@336px, ViT-B/32 or RN50, or the path of a .pt file."""
    weight: Positive = 1.0
    """Weight of this teacher among several; only proportions matter."""
    dtype: _Dtype = "float32"
    """Precision that the teacher computes in."""

    @classmethod
    def recognises(cls, name: str, /) -> bool:
        """Tell whether a name is one of OpenAI's, or a file with the suffix of OpenAI's."""
        file = Path(name)
        return not file.is_dir() and (name in OPENAI_MODELS or file.suffix in OPENAI_SUFFIXES)


class OpenClipTeacherSection(TeacherRow):
    """A model of open_clip, with its own tokenizer and preprocessing."""

    loader = "distill.teacher.open_clip:load_open_clip_teacher"

    kind: Literal["open_clip"] = "open_clip"
    """A model of open_clip."""
    model: Text
    """Architecture such as ViT-B-32, a folder with open_clip_config.json, or hf-hub:NAME."""
    pretrained: Text | None = None
    """A tag that open_clip knows, or a weights file; null: the weights in the folder."""
    weights: Text | None = None
    """Local file with the weights of the tag; null: fetch them."""
    quick_gelu: Flag | None = None
    """Whether the weights were trained with QuickGELU; null: as the tag or folder states."""
    weight: Positive = 1.0
    """Weight of this teacher among several; only proportions matter."""
    dtype: _Dtype = "float32"
    """Precision that the teacher computes in."""

    @classmethod
    def named(cls, name: str) -> dict[str, Any]:
        """Return the model and the tag of ``MODEL:PRETRAINED``."""
        tagged = _TAGGED.fullmatch(name)
        if tagged is None:
            return {"model": name}
        return {"model": tagged.group(1), "pretrained": tagged.group(2)}


class StudentTeacherSection(TeacherRow):
    """A finished student, as the teacher of a smaller one."""

    loader = "distill.teacher.hf:load_student_teacher"

    kind: Literal["student"] = "student"
    """A finished student."""
    model: Text
    """Folder of the student, or of the run that trained it."""
    weight: Positive = 1.0
    """Weight of this teacher among several; only proportions matter."""
    dtype: _Dtype = "float32"
    """Precision that the teacher computes in."""

    @classmethod
    def recognises(cls, name: str, /) -> bool:
        """Tell whether a name is a run folder: it has a student folder but no config.json."""
        folder = Path(name)
        return not (folder / "config.json").exists() and (folder / "student").is_dir()


DEFAULT_TEACHER_KIND = "hf"
# Every kind of teacher, in the order in which messages list them.
TeacherSection = (
    HfTeacherSection | OpenAiTeacherSection | OpenClipTeacherSection | StudentTeacherSection
)
TEACHERS = get_args(TeacherSection)
_TeacherField = Annotated[
    TeacherSection,
    Field(discriminator="kind"),
    by_kind(*TEACHERS, default=DEFAULT_TEACHER_KIND),
]
TeachersField = Annotated[
    _TeacherField | tuple[_TeacherField, ...], one_or_many(_TeacherField, "a teacher")
]
