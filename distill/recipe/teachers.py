"""The sections of a recipe on teachers: one for each kind, and the list of them all."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from distill.recipe.base import Flag, Positive, Section, Text, by_kind, one_or_many

Dtype = Literal["float32", "float16", "bfloat16"]

# The names that OpenAI gave its models.
OPENAI_MODELS = (
    "RN50",
    "RN101",
    "RN50x4",
    "RN50x16",
    "RN50x64",
    "ViT-B/32",
    "ViT-B/16",
    "ViT-L/14",
    "ViT-L/14@336px",
)


class HfTeacherSection(Section):
    """A dual encoder of transformers, such as CLIPModel."""

    kind: Literal["hf"] = "hf"
    """A dual encoder of transformers."""
    model: Text
    """Name on the hub, or a local folder."""
    weight: Positive = 1.0
    """Share of this teacher where there are several."""
    dtype: Dtype = "float32"
    """Precision that the teacher computes in."""


class OpenAiTeacherSection(Section):
    """A CLIP of OpenAI, as OpenAI distributes it."""

    kind: Literal["openai"] = "openai"
    """A CLIP of OpenAI, as OpenAI distributes it."""
    model: Text
    """Name such as ViT-L/14, ViT-L/14@336px, ViT-B/32 or RN50, or the path of a .pt file."""
    weight: Positive = 1.0
    """Share of this teacher where there are several."""
    dtype: Dtype = "float32"
    """Precision that the teacher computes in."""


class OpenClipTeacherSection(Section):
    """A model of open_clip with its own tokenizer and preprocessing."""

    kind: Literal["open_clip"] = "open_clip"
    """A model of open_clip."""
    model: Text
    """Architecture such as ViT-B-32, a folder with open_clip_config.json, or hf-hub:NAME."""
    pretrained: Text | None = None
    """A tag that open_clip knows, or a weights file; null: the folder's own."""
    weights: Text | None = None
    """Local file with the weights of the tag; null: they are fetched."""
    quick_gelu: Flag | None = None
    """Whether the weights were trained with QuickGELU; null: what the tag or folder says."""
    weight: Positive = 1.0
    """Share of this teacher where there are several."""
    dtype: Dtype = "float32"
    """Precision that the teacher computes in."""


class StudentTeacherSection(Section):
    """A finished student, as the teacher of a smaller one."""

    kind: Literal["student"] = "student"
    """A finished student."""
    model: Text
    """Folder of the student, or of the run that trained it."""
    weight: Positive = 1.0
    """Share of this teacher where there are several."""
    dtype: Dtype = "float32"
    """Precision that the teacher computes in."""


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
