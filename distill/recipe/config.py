"""The configuration of a run, which is checked once and never changes.

Each section has its own file. :func:`distill.recipe.load.load_recipe` reads a recipe file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from distill.recipe._checks import (
    Mistakes,
    check_evaluations,
    check_frozen,
    check_length,
    check_precision,
    check_student_section,
    check_teachers,
    check_views,
)
from distill.recipe._loss_checks import check_alignment, check_losses
from distill.recipe.base import Natural, Section, Text, as_tuple
from distill.recipe.cache import CacheSection
from distill.recipe.data import DataSection
from distill.recipe.evaluate import EvaluationEntry, EvaluationsField
from distill.recipe.export import ExportSection
from distill.recipe.losses import LossesField, ResolvedTerm, resolve_terms
from distill.recipe.sources import SourceSection
from distill.recipe.stages import IN_NO_DIGEST, IN_TRAIN, Changes
from distill.recipe.student import StudentField, StudentTowers
from distill.recipe.teachers import TeacherSection, TeachersField
from distill.recipe.train import TrainSection
from distill.recipe.views import ViewsSection


class RunConfig(Section):
    """A whole recipe, with every value filled in."""

    seed: Annotated[Natural, IN_TRAIN] = 0
    """Seed of all random choices."""
    output: Annotated[Text, IN_NO_DIGEST] = "runs/default"
    """The run folder: checkpoints, report, bundle."""
    teacher: Annotated[TeachersField | None, Changes("cache", resolved=True)] = None
    """The model to learn from, or a list of them; null: none."""
    student: Annotated[StudentField, Changes("train", resolved=True)] = StudentTowers()
    """The model that learns."""
    data: DataSection = DataSection()
    """What is trained on."""
    views: Annotated[ViewsSection, Changes("cache", resolved=True)] = ViewsSection()
    """How a picture is cropped for training; teacher and student see the same crop."""
    cache: CacheSection = CacheSection()
    """The teacher's embeddings on disk."""
    losses: Annotated[LossesField, Changes("train", resolved=True)] = "default"
    """The name of a preset, or terms by name with a weight or a map each."""
    train: TrainSection = TrainSection()
    """How the student learns."""
    evaluate: Annotated[EvaluationsField | None, Changes("evaluate", resolved=True)] = None
    """A set to measure on, or a list of them; null: data.validation, or 5 % of data.train."""
    export: ExportSection = ExportSection()
    """The ONNX bundle."""

    @model_validator(mode="before")
    @classmethod
    def _depending_defaults(cls, values: Any) -> Any:
        """Fill in defaults that follow from other fields."""
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
            for path, text in self._mistakes()
        ]
        if errors:
            raise ValidationError.from_exception_data("RunConfig", errors)
        return self

    def _mistakes(self) -> Mistakes:
        yield from check_length(self.train)
        yield from check_teachers(self.teachers, self.train)
        yield from check_student_section(self.student, self.teachers, self.train)
        yield from check_losses(self.losses, self.student, self.teachers, self.train)
        yield from check_alignment(self.losses, self.train)
        yield from check_frozen(self.student, self.train)
        yield from check_views(self.views, self.cache)
        yield from check_evaluations(
            self.evaluate, taught=bool(self.teachers), labelled=self.data.labels is not None
        )
        yield from check_precision(self.train)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output)

    @property
    def index_folder(self) -> Path | None:
        """The folder for indices that cannot be written next to the data, None if it has none."""
        return None if self.cache.folder is None else Path(self.cache.folder) / "shards"

    @property
    def teachers(self) -> tuple[TeacherSection, ...]:
        """The teachers; empty if the recipe has none."""
        return as_tuple(self.teacher)

    @property
    def train_sources(self) -> tuple[SourceSection, ...]:
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
        return any(source.renders_inside for source in sources)

    @property
    def terms(self) -> dict[str, ResolvedTerm]:
        """The loss terms with the preset merged in, without those of weight 0."""
        return resolve_terms(self.losses)

    @property
    def device(self) -> str:
        """The device of ``train.device``, or the best available one for ``auto``."""
        if self.train.device != "auto":
            return self.train.device
        import torch

        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
