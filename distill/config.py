"""A run's configuration: checked once, never changed after.

``RunConfig`` and the sections of training here; sources and evaluation sets in
distill/config_data.py, teachers and students in distill/config_models.py, losses in
distill/config_losses.py. A recipe file becomes one through ``distill.recipe.load_recipe``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from distill.config_base import (
    Count,
    Flag,
    Natural,
    NonNegative,
    Positive,
    Section,
    Share,
    Text,
    as_tuple,
    whole,
)
from distill.config_checks import cross_errors
from distill.config_data import (
    DataSection,
    EvaluationEntry,
    Evaluations,
    FolderSource,
    ScenesSource,
    Source,
    TableSource,
    Templates,
)
from distill.config_losses import LossesField, ResolvedTerm, resolve_terms
from distill.config_models import (
    HfTeacher,
    ImageTower,
    Student,
    StudentHf,
    StudentTowers,
    Teachers,
    TextTower,
)

__all__ = [
    "CacheSection",
    "DataSection",
    "EvaluationEntry",
    "ExportSection",
    "FolderSource",
    "HfTeacher",
    "ImageTower",
    "RunConfig",
    "ScenesSource",
    "Source",
    "Student",
    "StudentHf",
    "StudentTowers",
    "TableSource",
    "TextTower",
    "TrainSection",
    "ViewsSection",
]

Beta = Annotated[float, Strict(), Field(ge=0, lt=1)]
AreaShare = Annotated[float, Strict(), Field(gt=0, le=1)]
ViewCount = Annotated[int, Strict(), Field(ge=1, le=1000), BeforeValidator(whole)]
Opset = Annotated[int, Strict(), Field(ge=18, le=23), BeforeValidator(whole)]
Tolerance = Annotated[float, Strict(), Field(gt=0, le=0.1)]


class ViewsSection(Section):
    """How a picture is cropped for training; teacher and student see the same crop."""

    seed: Natural | None = None
    """What the crops follow from; null: the run's seed."""
    kind: Literal["random", "center"] = "random"
    """Random crops, or the centre crop that evaluation uses."""
    scale: tuple[AreaShare, AreaShare] = (0.7, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest width over height of a crop."""
    flip: Flag = False
    """Whether half of the crops are mirrored; captions that say left or right speak against it."""
    color_jitter: Share = 0.0
    """Largest relative change of brightness, contrast and saturation."""


class CacheSection(Section):
    """The teacher's embeddings on disk."""

    views: ViewCount = 4
    """How many crops of each picture are embedded."""
    folder: Text | None = None
    """Where the embeddings stand; null: inside the run folder."""
    dtype: Literal["float16", "float32"] = "float16"
    """Precision that they are stored in."""
    shard_rows: Count = 4096
    """Rows of a file; a killed run goes on after the last whole file."""
    batch_size: Count = 64
    """Pictures or captions that the teacher embeds at once."""


class TrainSection(Section):
    """How the student learns."""

    teacher: Literal["cached", "live", "absent"] = "cached"
    """Embeddings from the cache, from the teacher itself at every step, or none."""
    batch_size: Count = 256
    """Pairs in a step, over all processes together."""
    steps: Count | None = None
    """Length of the run in steps; give either this or epochs."""
    epochs: Positive | None = 10.0
    """Length of the run in passes over the data; give either this or steps."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon for the layers' matrices and AdamW for the rest."""
    learning_rate: Positive = 1e-3
    """AdamW's learning rate after the warmup."""
    muon_learning_rate: Positive = 3e-3
    """Muon's learning rate after the warmup."""
    weight_decay: NonNegative = 0.05
    """Decay of the matrices; norms, biases and the logit scale have none."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW's decay of its two moving averages."""
    warmup_steps: Natural = 100
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after the warmup: down half a cosine to 0, or not at all."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the towers; losses are always in fp32."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of the gradient; null: no limit."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: on CUDA or MPS where there is one."""
    log_every: Count = 10
    """Steps between two lines in metrics.jsonl."""
    validate_every: Count = 200
    """Steps between two looks at the validation data."""
    validation_samples: Count = 500
    """How many pictures such a look takes."""
    save_every: Count = 200
    """Steps between two checkpoints."""

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        # The default is a number of epochs; it gives way where steps are named.
        given = isinstance(values, Mapping) and values.get("steps") is not None
        return {**values, "epochs": values.get("epochs")} if given else values


class ExportSection(Section):
    """The bundle that leaves the house."""

    templates: Templates | None = None
    """Prompts with {} for the class; null: those of the first evaluation set."""
    opset: Opset = 18
    """ONNX operator set."""
    tolerance: Tolerance = 1e-4
    """Largest difference from torch in any number of an embedding."""


class RunConfig(Section):
    """A whole recipe, with every value filled in."""

    seed: Natural = 0
    """What all random choices follow from."""
    output: Text = "runs/default"
    """The run folder: checkpoints, report, bundle."""
    teacher: Teachers | None = None
    """The model to learn from, or a list of them; null: none."""
    student: Student = StudentTowers()
    """The model that learns."""
    data: DataSection = DataSection()
    """What is trained on."""
    views: ViewsSection = ViewsSection()
    """How a picture is cropped for training; teacher and student see the same crop."""
    cache: CacheSection = CacheSection()
    """The teacher's embeddings on disk."""
    losses: LossesField = "default"
    """The name of a preset, or terms by name with a weight or a map each."""
    train: TrainSection = TrainSection()
    """How the student learns."""
    evaluate: Evaluations | None = None
    """A set to measure on, or a list of them; null: data.validation, or 5 % of data.train."""
    export: ExportSection = ExportSection()
    """The ONNX bundle."""

    @model_validator(mode="before")
    @classmethod
    def _depending_defaults(cls, values: Any) -> Any:
        """Fill in what is not given and follows from another field."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        train, cache, views = (values.get(key, {}) for key in ("train", "cache", "views"))
        if values.get("teacher") is None and isinstance(train, Mapping):
            filled["train"] = {"teacher": "absent", **train}
        centred = isinstance(views, Mapping) and views.get("kind") == "center"
        if centred and isinstance(cache, Mapping):
            filled["cache"] = {"views": 1, **cache}
        return filled

    @model_validator(mode="after")
    def _check_across_fields(self) -> "RunConfig":
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("across", "{text}", {"text": text}),
                loc=tuple(path.split(".")),
                input=None,
            )
            for path, text in cross_errors(self)
        ]
        if errors:
            raise ValidationError.from_exception_data("RunConfig", errors)
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output)

    @property
    def teachers(self) -> tuple[HfTeacher, ...]:
        """The teachers, none where it is absent."""
        return as_tuple(self.teacher)

    @property
    def train_sources(self) -> tuple[TableSource | FolderSource | ScenesSource, ...]:
        """The sources of training."""
        return as_tuple(self.data.train)

    @property
    def evaluation_entries(self) -> tuple[EvaluationEntry, ...]:
        """The evaluation sets that the recipe names."""
        return as_tuple(self.evaluate)

    @property
    def holds_out(self) -> bool:
        """Whether a share of the training data is kept for validation and evaluation."""
        return self.data.validation is None and not self.evaluation_entries

    @property
    def renders_inside(self) -> bool:
        """Whether procedural scenes are rendered into the run folder."""
        named = [*self.train_sources, *(entry.data for entry in self.evaluation_entries)]
        sources = [*named, *([self.data.validation] if self.data.validation else [])]
        return any(source.kind == "scenes" and source.path is None for source in sources)

    @property
    def terms(self) -> dict[str, ResolvedTerm]:
        """The loss terms with the preset merged in, those of weight 0 left out."""
        return resolve_terms(self.losses)

    @property
    def device(self) -> str:
        """The device of ``train.device``, the best there is for ``auto``."""
        if self.train.device != "auto":
            return self.train.device
        import torch

        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
