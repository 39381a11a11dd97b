"""A project: everything that a recipe names, opened on first use."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from distill.data.open import open_source
from distill.data.order.position import Position
from distill.data.pairs import Captions
from distill.data.sample import Skip, Source, check_source, extras_of, limit_pixels, split_by_hash
from distill.data.views import ViewSettings
from distill.evaluate.evaluation_set import EvaluationSet
from distill.labels.label_set import LabelSet
from distill.labels.names import read_lines
from distill.losses.weighted import Term, WeightedLoss
from distill.recipe.config import RunConfig
from distill.recipe.losses import ResolvedTerm
from distill.recipe.sources import SourceSection
from distill.recipe.student import StudentTowers
from distill.run.evaluation_sets import evaluation_sets
from distill.run.labels import recipe_labels
from distill.run.student import build_student, student_preprocessing
from distill.teacher.cache.build import BuildSettings
from distill.teacher.cache.manifest import Part
from distill.teacher.ensemble import Ensemble
from distill.teacher.load import load_teachers
from distill.train.processes import check_device
from distill.train.towers import Towers, teacher_parts
from export.runtime.errors import DataError
from students.encoder import Student

# If a recipe names nothing to validate on, this share of the training data is held out.
_HELD_OUT_SHARE = 0.05
_HELD_OUT_AT_MOST = 2000


class Project:
    """Sources, teacher, student, loss and evaluation sets of one recipe, each opened once.

    A property opens what it returns on first use; none changes anything else.

    Attributes:
        config: The recipe.
    """

    def __init__(self, config: RunConfig) -> None:
        """Remember the recipe; nothing is opened yet."""
        self.config = config
        self._teacher: Ensemble | None = None

    @cached_property
    def _all_sources(self) -> list[Source]:
        return [self._open(entry) for entry in self.config.train_sources]

    def _open(self, entry: SourceSection) -> Source:
        source = self._opened(entry)
        check_source(source, max_skipped=self.config.data.max_skipped)
        return limit_pixels(source, self.config.data.max_pixels)

    def _opened(self, entry: SourceSection) -> Source:
        config = self.config
        return open_source(entry, output=config.folder, index_folder=config.index_folder)

    @cached_property
    def _splits(self) -> list[tuple[Source, Source]]:
        total = sum(len(source) for source in self._all_sources)
        share = min(_HELD_OUT_SHARE, _HELD_OUT_AT_MOST / max(total, 1))
        return [
            split_by_hash(source, share=share, at_most=_HELD_OUT_AT_MOST)
            for source in self._all_sources
        ]

    @cached_property
    def sources(self) -> list[Source]:
        """The training sources, without what is held out."""
        return [kept for kept, _ in self._splits] if self.config.holds_out else self._all_sources

    @cached_property
    def skips(self) -> list[Skip]:
        """What was left out while the training sources were indexed."""
        return [skip for source in self._all_sources for skip in source.skipped]

    @cached_property
    def captions(self) -> Captions:
        """The captions of the training corpus."""
        return Captions(self.sources, seed=self.config.seed)

    @property
    def _prompted_term(self) -> ResolvedTerm | None:
        terms = self.config.terms.values()
        return next((term for term in terms if term.row.needs_prompts), None)

    @cached_property
    def bank_texts(self) -> tuple[str, ...]:
        """The texts that a term compares pictures with; empty if no term needs a bank.

        Raises:
            DataError: The file cannot be read, or there is nothing to fill the bank with.
        """
        term = self._prompted_term
        if term is None:
            return ()
        if term.options["bank"] is not None:
            return read_lines(Path(term.options["bank"]), field=f"losses.{term.row.name}.bank")
        if self.labels is not None:
            return self.labels.prompts
        if self.captions.total == 0:
            raise DataError(
                f"losses.{term.row.name}.bank: missing, and no picture of data.train has a caption "
                "to use instead; name a file with one text per line, or set data.labels"
            )
        return self.captions.draw(term.options["bank_size"])

    @property
    def bank_templates(self) -> int:
        """How many texts of the bank are averaged into one row: the prompts of a label, else 1."""
        term = self._prompted_term
        own = term is not None and term.options["bank"] is not None
        return 1 if own or self.labels is None else len(self.labels.templates)

    @cached_property
    def labels(self) -> LabelSet | None:
        """The labels that loss, evaluation and bundle share; None if the recipe has none."""
        return recipe_labels(self.config.data)

    @property
    def towers(self) -> Towers:
        """Which towers the student has; an earlier student is loaded to find out."""
        section = self.config.student
        if section.start is None and isinstance(section, StudentTowers):
            return Towers(image=section.image is not None, text=section.text is not None)
        student = self.student
        return Towers(image=student.image_processor is not None, text=student.tokenizer is not None)

    @property
    def teacher_parts(self) -> frozenset[Part]:
        """What the teacher has to embed: pictures, captions, or both."""
        return teacher_parts(self.towers, self.config.terms)

    @cached_property
    def position(self) -> Position:
        """The order of the samples."""
        return Position(
            [len(source) for source in self.sources],
            weights=[entry.weight for entry in self.config.train_sources],
            seed=self.config.seed,
            batch_size=self.config.train.batch_size,
            shards=[extras_of(source).shard_lengths for source in self.sources],
            lanes=self.config.data.lanes,
        )

    @property
    def steps(self) -> int:
        """How many steps the run has, from ``steps`` or ``epochs``."""
        train = self.config.train
        if train.steps is not None:
            return train.steps
        return max(1, round((train.epochs or 0) * self.position.steps_per_epoch))

    @cached_property
    def validation_source(self) -> Source | None:
        """The source that the loss terms are computed on during training, if there is one."""
        if self.config.data.validation is not None:
            return self._open(self.config.data.validation)
        if not self.config.holds_out:
            return None
        # The largest of several sources represents all of them.
        return max((held_out for _, held_out in self._splits), key=len)

    @cached_property
    def evaluation_sets(self) -> list[EvaluationSet]:
        """The recipe's evaluation sets, or sets made of the held-out pictures."""
        return evaluation_sets(
            self.config, self._open, validation=self.validation_source, labels=self.labels
        )

    @property
    def teacher(self) -> Ensemble | None:
        """The frozen teachers as one, or None if the recipe has none; loaded on first use."""
        if self._teacher is None and self.config.teachers:
            check_device(self.config.train.device)
            self._teacher = load_teachers(self.config.teachers, device=self.config.device)
        return self._teacher

    def rest_teacher(self) -> None:
        """Move the teachers' weights to the CPU; :meth:`wake_teacher` brings them back."""
        if self._teacher is not None:
            self._teacher.move("cpu")

    def wake_teacher(self) -> Ensemble | None:
        """Return the teachers on the run's device, None if the recipe has none."""
        teacher = self.teacher
        if teacher is not None:
            teacher.move(self.config.device)
        return teacher

    def release_teacher(self) -> None:
        """Free the teachers' weights once nothing needs them any more."""
        self._teacher = None

    @cached_property
    def student(self) -> Student:
        """The student before training, which changes it in place.

        Raises:
            StudentError: It cannot be built.
        """
        return build_student(self.config, lambda: self.teacher)

    def open_data(self) -> None:
        """Open the training data, and check that it has enough samples for a batch.

        Raises:
            DataError: The data cannot be used, or is smaller than a batch.
        """
        _ = self.position

    def open_models(self) -> None:
        """Load the teacher and build the student.

        Raises:
            TeacherError: A teacher cannot be loaded.
            StudentError: The student cannot be built.
        """
        _ = self.teacher, self.student

    @cached_property
    def loss(self) -> WeightedLoss:
        """The weighted sum of the recipe's terms; several teachers are loaded for their shares."""
        several = len(self.config.teachers) > 1 and self.config.train.teacher != "absent"
        return WeightedLoss(
            {
                name: Term(
                    weight=term.weight,
                    arguments=dict(term.arguments),
                    options=dict(term.options),
                    schedule=term.schedule,
                    end=term.end,
                )
                for name, term in self.config.terms.items()
            },
            shares=self.teacher.shares if several and self.teacher is not None else (),
        )

    @cached_property
    def views(self) -> ViewSettings:
        """How views are drawn for training."""
        views = self.config.views
        settings = ViewSettings(
            seed=self.config.seed if views.seed is None else views.seed,
            kind=views.kind,
            scale=views.scale,
            ratio=views.ratio,
            flip=views.flip,
            color_jitter=views.color_jitter,
            rand_augment=views.rand_augment,
        )
        if not views.draft:
            return settings
        teachers = () if self.teacher is None else self.teacher.preprocessing
        models = [look for look in (*teachers, student_preprocessing(self.student)) if look]
        return replace(settings, draft=settings.draft_for(models)) if models else settings

    @property
    def build_settings(self) -> BuildSettings:
        """How the cache is written."""
        cache = self.config.cache
        return BuildSettings(
            views=self.views,
            view_count=cache.views,
            dtype=cache.dtype,
            shard_rows=cache.shard_rows,
            batch_size=cache.batch_size,
            workers=self.config.data.workers,
            max_skipped=self.config.data.max_skipped,
        )


def describe(sources: Sequence[Source]) -> str:
    """Return names and sizes of sources, on one line."""
    return ", ".join(f"{source.name} ({len(source):,} pictures)" for source in sources)
