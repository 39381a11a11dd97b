"""What a recipe names, opened on first use: sources, teacher, student, loss, evaluation sets."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from distill.data.guess import open_source
from distill.data.order.position import Position
from distill.data.pairs import Captions
from distill.data.sample import Skip, Source, check_source, limit_pixels, split_by_hash
from distill.data.shards.source import shard_lengths
from distill.data.views import ViewSettings
from distill.evaluate.compare import EvaluationSet
from distill.labels.label_set import LabelSet, label_set
from distill.labels.names import read_lines
from distill.losses.terms import Term, WeightedLoss
from distill.recipe.config import RunConfig
from distill.recipe.sources import SourceSection
from distill.recipe.student import LOGIT_SCALE, StudentHf, StudentTowers
from distill.run.evaluation_sets import evaluation_sets
from distill.teacher.cache.build import BuildSettings
from distill.teacher.cache.manifest import Part
from distill.teacher.ensemble import Ensemble
from distill.teacher.load import load_teachers
from distill.train.processes import check_device
from distill.train.towers import Towers, teacher_parts
from export.runtime.errors import DataError, RecipeError, StudentError
from export.runtime.preprocess import Preprocessing
from students.build import build_hf, build_towers
from students.encoder import MAX_LOGIT_SCALE, Student
from students.model import load_student
from students.switches import checkpoint_gradients

# Where a recipe names nothing to validate on, this share of the training data is held out.
HELD_OUT_SHARE = 0.05
HELD_OUT_AT_MOST = 2000


class Project:
    """The things of one recipe. Each is opened once, when it is first asked for."""

    def __init__(self, config: RunConfig) -> None:
        """Remember the recipe; nothing is opened yet."""
        self.config = config

    @cached_property
    def _all_sources(self) -> list[Source]:
        return [self._open(entry) for entry in self.config.train_sources]

    def _open(self, entry: SourceSection) -> Source:
        folder = self.config.cache.folder
        source = open_source(
            entry,
            output=self.config.folder,
            index_folder=None if folder is None else Path(folder) / "shards",
        )
        check_source(source, max_skipped=self.config.data.max_skipped)
        return limit_pixels(source, self.config.data.max_pixels)

    @cached_property
    def _splits(self) -> list[tuple[Source, Source]]:
        total = sum(len(source) for source in self._all_sources)
        share = min(HELD_OUT_SHARE, HELD_OUT_AT_MOST / max(total, 1))
        return [
            split_by_hash(source, share=share, at_most=HELD_OUT_AT_MOST)
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

    @cached_property
    def bank_texts(self) -> tuple[str, ...]:
        """The texts that prompt_kl compares pictures with; none where the recipe lacks it."""
        term = self.config.terms.get("prompt_kl")
        if term is None:
            return ()
        if term.options["bank"] is not None:
            return read_lines(Path(term.options["bank"]), field="losses.prompt_kl.bank")
        if self.labels is not None:
            return self.labels.prompts
        if self.captions.total == 0:
            raise DataError(
                "losses.prompt_kl.bank: missing, and no picture of data.train has a caption to "
                "take instead; name a file with one text a line, or labels in data.labels"
            )
        return self.captions.draw(term.options["bank_size"])

    @property
    def bank_templates(self) -> int:
        """How many texts of the bank make one row of it: the prompts of a label."""
        term = self.config.terms.get("prompt_kl")
        own = term is not None and term.options["bank"] is not None
        return 1 if own or self.labels is None else len(self.labels.templates)

    @cached_property
    def labels(self) -> LabelSet | None:
        """The labels that loss, evaluation and bundle share; None where the recipe has none."""
        return label_set(self.config.data)

    @property
    def towers(self) -> Towers:
        """Which towers the student has; an earlier student has to be loaded for it."""
        section = self.config.student
        if section.start is None and isinstance(section, StudentTowers):
            return Towers(image=section.image is not None, text=section.text is not None)
        student = self.student
        return Towers(image=student.image_processor is not None, text=student.tokenizer is not None)

    @property
    def teacher_parts(self) -> frozenset[Part]:
        """Which of pictures and captions the teacher has to embed."""
        return teacher_parts(self.towers, self.config.terms)

    @cached_property
    def position(self) -> Position:
        """The order of the samples."""
        return Position(
            [len(source) for source in self.sources],
            weights=[entry.weight for entry in self.config.train_sources],
            seed=self.config.seed,
            batch_size=self.config.train.batch_size,
            shards=[shard_lengths(source) for source in self.sources],
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
        """Where the loss terms are computed in the middle of training."""
        if self.config.data.validation is not None:
            return self._open(self.config.data.validation)
        if not self.config.holds_out:
            return None
        # One source speaks for all where there are several: it is the largest.
        return max((held_out for _, held_out in self._splits), key=len)

    @cached_property
    def evaluation_sets(self) -> list[EvaluationSet]:
        """The recipe's evaluation sets, or those made of what is held out."""
        return evaluation_sets(
            self.config, self._open, validation=self.validation_source, labels=self.labels
        )

    @cached_property
    def teacher(self) -> Ensemble | None:
        """The frozen teachers as one, a single one too, or None where the recipe has none."""
        if not self.config.teachers:
            return None
        check_device(self.config.train.device)
        return load_teachers(self.config.teachers, device=self.config.device)

    def release_teacher(self) -> None:
        """Let go of the teachers' weights, where the cache speaks for them from here on."""
        self.__dict__.pop("teacher", None)

    @cached_property
    def student(self) -> Student:
        """The student at its start.

        Raises:
            StudentError: it cannot be built, or cannot do without some of its activations.
        """
        section = self.config.student
        torch.manual_seed(self.config.seed)
        try:
            if section.start is not None:
                student = load_start(section.start)
            elif isinstance(section, StudentHf):
                student = build_hf(**section.build_arguments())
            else:
                student = build_towers(
                    width=self._width(),
                    logit_scale=self._logit_scale(section),
                    **section.build_arguments(),
                )
            if self.config.train.gradient_checkpointing:
                checkpoint_gradients(student.model)
        except (ValueError, OSError) as error:
            raise StudentError(str(error)) from error
        return student

    def _width(self) -> int:
        section = self.config.student
        width = getattr(section, "width", None)
        if width is not None:
            return int(width)
        if self.teacher is None:
            raise RecipeError("student.width: required where the recipe has no teacher")
        return self.teacher.width

    def _logit_scale(self, section: StudentTowers) -> float:
        """Return the factor that the student's similarities start with.

        A tower beside the teacher's other one has reached its end where it is the teacher's own,
        and so has its scale; two towers start with CLIP's.
        """
        if section.logit_scale is not None:
            return section.logit_scale
        if not section.single or self.teacher is None:
            return LOGIT_SCALE
        return min(self.teacher.logit_scale, MAX_LOGIT_SCALE)

    def check_student(self) -> None:
        """See that student, teacher and data have what the recipe's terms need.

        Raises:
            StudentError: a term needs equal widths, and they are not.
            DataError: a term needs captions, and there are none, or the bank cannot be read.
        """
        width, teacher, _ = self.student.width, self.teacher, self.bank_texts
        section = self.config.student
        ridge = isinstance(section, StudentTowers) and section.projection_start == "ridge"
        if ridge and teacher is not None and width != teacher.width:
            raise StudentError(
                f"student.width: projection_start: ridge needs the teacher's {teacher.widths}, but "
                f"it is {width}; leave it out, or set projection_start to random"
            )
        single = self.student.tokenizer is None or self.student.image_processor is None
        for name, term in self.config.terms.items():
            if teacher is not None and term.needs_equal_width and width != teacher.width:
                raise StudentError(
                    f"losses.{name}: needs equal widths, but the student has {width} and the "
                    f"teacher {teacher.widths}; remove the term or set student.width: "
                    f"{teacher.width} (kind: towers)"
                )
            if term.needs_texts and single:
                raise StudentError(
                    f"losses.{name}: it needs both towers, and the student has one; remove it"
                )
            if (term.needs_texts or term.needs.captions) and self.captions.total == 0:
                raise DataError(
                    f"losses.{name}: needs captions, but no picture of data.train has one; "
                    "give a source with captions, or leave the term out"
                )
        self._check_captions()

    def _check_captions(self) -> None:
        """See that a text tower that has learned nothing yet finds captions to learn from.

        Raises:
            DataError: there are none.
        """
        section, towers = self.config.student, self.towers
        if self.captions.total or not towers.text:
            return
        if towers.image and not (isinstance(section, StudentTowers) and section.start is None):
            return
        raise DataError(
            "student.text: the text tower would learn nothing, since no picture of data.train has "
            "a caption; set student.text: null for a student of pictures alone, or give captions"
        )

    @cached_property
    def loss(self) -> WeightedLoss:
        """The weighted sum of the recipe's terms, to each of several teachers where that is theirs.

        Those are loaded for it.
        """
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
        """How training's views are drawn."""
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


def load_start(folder: str) -> Student:
    """Load an earlier student to begin from; errors name the field."""
    try:
        return load_student(folder)
    except (ValueError, OSError) as error:
        raise StudentError(f"student.start: {error}") from error


def student_preprocessing(student: Student) -> Preprocessing | None:
    """Return what a student's pictures go through, None where it has no image tower."""
    if student.image_processor is None:
        return None
    return Preprocessing.from_processor(student.image_processor.to_dict())


def describe(sources: Sequence[Source]) -> str:
    """Return the sources' names and sizes for one line."""
    return ", ".join(f"{source.name} ({len(source):,} pictures)" for source in sources)
