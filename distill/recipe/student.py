"""The sections of a recipe on the student and its towers."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from distill.recipe.base import (
    Count,
    Flag,
    Section,
    Text,
    by_kind,
    by_type,
    whole,
)

# The initial scale of CLIP's similarities (https://arxiv.org/abs/2103.00020).
LOGIT_SCALE = 1 / 0.07
_LogitScale = Annotated[float, Strict(), Field(gt=0, le=100, allow_inf_nan=False)]
_PixelSize = Annotated[int, Strict(), Field(ge=8, le=4096), BeforeValidator(whole)]
_ContextLength = Annotated[int, Strict(), Field(ge=2, le=8192), BeforeValidator(whole)]


class ImageTowerSection(Section):
    """The image side of a student: a timm backbone and a projection."""

    backbone: Text = "mobilenetv4_conv_small"
    """Name of a timm model."""
    pretrained: Flag = True
    """Whether the backbone starts from timm's weights."""
    weights: Text | None = None
    """Local file with the backbone's weights; null: from the hub."""
    image_size: _PixelSize | None = None
    """Height and width in pixels; null: the backbone's own."""
    projection: Literal["linear", "mlp"] = "linear"
    """Projection into the embedding: one layer, or two with a nonlinearity between them."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of timm's create_model."""


class TextTowerSection(Section):
    """The text side of a student: a BERT-like encoder and a projection."""

    model: Text | None = "sentence-transformers/all-MiniLM-L6-v2"
    """Name on the hub, or a local folder."""
    pretrained: Flag = True
    """Whether the tower starts from that model's weights."""
    keep_every: Count = 1
    """Keep layers 0, k, 2k, … of that model (1: all), as DistilBERT keeps every second."""
    config: dict[str, Any] | None = None
    """Fields of a BertConfig to build a new tower from; null: the model's own."""
    tokenizer: Text | None = None
    """Name or folder of the tokenizer; null: the model's."""
    pooling: Literal["mean", "cls"] = "mean"
    """How tokens become one vector: mean over the text, or the first token."""
    projection: Literal["linear", "mlp"] = "linear"
    """Projection into the embedding: one layer, or two with a nonlinearity between them."""
    context_length: _ContextLength = 64
    """Most tokens of a text; the rest is cut off."""


class StudentTowers(Section):
    """A timm image tower and a BERT-like text tower, projected into the teacher's width."""

    kind: Literal["towers"] = "towers"
    """A timm image tower and a BERT-like text tower."""
    start: Text | None = None
    """Folder of an earlier student to begin from; null: the towers below."""
    width: Count | None = None
    """Width of the embeddings; null: the teacher's."""
    logit_scale: _LogitScale | None = None
    """Initial scale of similarities; null: 14.3, or the teacher's if a tower is null."""
    projection_start: Literal["random", "ridge"] = "random"
    """How linear projections start: at random, or regressed onto the cached teacher."""
    projection_samples: Count = 4096
    """Pictures and captions in that regression."""
    image: ImageTowerSection | None = ImageTowerSection()
    """The image tower; null: a student without one."""
    text: TextTowerSection | None = TextTowerSection()
    """The text tower; null: a student without one."""

    @property
    def single(self) -> bool:
        """Whether it has only one tower, which works with the teacher's other tower."""
        return self.image is None or self.text is None

    def build_arguments(self) -> dict[str, Any]:
        """Return what ``students.build.build_towers`` takes besides width and logit scale."""
        return self.model_dump(include={"image", "text"})


class StudentHf(Section):
    """A dual encoder of transformers, kept in its own class and width."""

    kind: Literal["hf"] = "hf"
    """A dual encoder of transformers, kept in its own class and width."""
    start: Text | None = None
    """Folder of an earlier student to begin from; null: the model or config below."""
    model: Text | None = None
    """Name on the hub, or a local folder."""
    config: Annotated[
        str | dict[str, Any] | None,
        by_type(
            "a map with model_type, or the name of a JSON file, folder or hub model",
            {str: Text, dict: dict[str, Any]},
        ),
    ] = None
    """Configuration of a new model: its fields with model_type, or a file, folder or name."""
    pretrained: Flag = True
    """Whether the model's weights are loaded."""
    tokenizer: Text | None = None
    """Name or folder of the tokenizer; null: the model's."""
    image_processor: Text | None = None
    """Name or folder of the image processor; null: the model's."""
    logit_scale: _LogitScale | None = None
    """Initial scale of similarities of a new model; null: the configuration's."""

    def build_arguments(self) -> dict[str, Any]:
        """Return what ``students.build.build_hf`` takes."""
        return self.model_dump(exclude={"kind", "start"})


DEFAULT_STUDENT_KIND = "towers"
StudentSection = StudentTowers | StudentHf
StudentField = Annotated[
    StudentSection,
    Field(discriminator="kind"),
    by_kind(StudentTowers, StudentHf, default=DEFAULT_STUDENT_KIND),
]
