"""Validation during training: the loss terms on held-out data, and one headline."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill.basis.draws import draw_integers
from distill.data.pairs import Captions, group_rows
from distill.data.sample import Skip, Source, open_image
from distill.evaluate.compare import headline, measure
from distill.evaluate.encoder import Encoder, StudentEncoder
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.lend import Remembered
from distill.evaluate.pictures import Options
from distill.evaluate.teachers import EnsembleEncoder
from distill.losses.embeddings import Embeddings
from distill.losses.weighted import WeightedLoss
from distill.train.banks import TeacherBanks
from distill.train.towers import BOTH, Towers
from export.runtime.errors import DataError
from students.encoder import Student, logit_bias, logit_scale


@dataclass(frozen=True)
class ValidationSettings:
    """The size of a validation, and the device that it runs on.

    Attributes:
        samples: The largest number of pictures.
        batch_size: Rows that the loss compares with each other.
        max_skipped: Share of unreadable pictures above which validation is an error.
        device: The device of the student.
    """

    samples: int
    batch_size: int
    max_skipped: float
    device: torch.device


class StudentValidator:
    """Computes the loss terms on a validation source and the headline of an evaluation set.

    Pictures are prepared as in evaluation. Each has one caption, its own or one borrowed from the
    training data, and batches are as large as in training. Nothing is read for a tower that the
    student lacks. The teacher embeds everything once, at the start.
    """

    def __init__(
        self,
        *,
        source: Source | None,
        captions: Captions,
        headline_set: EvaluationSet | None,
        student: Student,
        teacher: EnsembleEncoder | None,
        loss: WeightedLoss,
        banks: TeacherBanks | None,
        settings: ValidationSettings,
    ) -> None:
        """Read the validation rows, and embed them with the teacher if there is one."""
        self._headline_set = headline_set
        # Held-out rows have no true partners in the training corpus.
        self._loss = loss.held_out
        self._banks = None if banks is None else replace(banks, device=torch.device("cpu"))
        self._settings = settings
        towers = Towers(
            image=student.image_processor is not None, text=student.tokenizer is not None
        )
        self._rows = None if source is None else _Rows(source, captions, settings.samples, towers)
        self.skipped = [] if self._rows is None else self._rows.skipped
        self._teacher: Embeddings | None = None
        self._lender: Remembered | None = None
        if teacher is None:
            return
        if self._rows is not None:
            self._teacher = self._rows.embed(
                teacher,
                scale=torch.tensor(teacher.logit_scale),
                bias=torch.tensor(teacher.logit_bias),
            )
        if headline_set is not None and (towers != BOTH or headline_set.task == "agreement"):
            self._lender = Remembered(teacher)
            self._headline(student)
            self._lender.release()

    def __call__(self, student: Student) -> dict[str, Any]:
        """Return loss, terms and headline as ``metrics.jsonl`` lists them."""
        line: dict[str, Any] = {}
        encoder = StudentEncoder(student, device=str(self._settings.device))
        if self._rows is not None and self._rows.keys and self._loss is not None:
            line = self._terms(student, encoder, self._rows, self._loss)
        found = self._headline(student)
        return line if found is None else {**line, "headline": found}

    def _headline(self, student: Student) -> dict[str, Any] | None:
        entry = self._headline_set
        # Agreement needs a teacher to agree with.
        if entry is None or (entry.task == "agreement" and self._lender is None):
            return None
        encoder = StudentEncoder(student, device=str(self._settings.device))
        options = Options(max_skipped=self._settings.max_skipped, lender=self._lender)
        measured = measure([encoder], entry, options=options)
        name, value = headline(entry.task, measured.results[encoder.name])
        return None if value is None else {"set": entry.name, "metric": name, "value": value}

    @torch.no_grad()
    def _terms(
        self, student: Student, encoder: Encoder, rows: "_Rows", loss: WeightedLoss
    ) -> dict[str, Any]:
        bias = logit_bias(student.model)
        mine = rows.embed(
            encoder,
            scale=logit_scale(student.model).detach().cpu(),
            bias=None if bias is None else bias.detach().cpu(),
        )
        banks = None if self._banks is None else self._banks.at(0)
        totals: dict[str, float] = {}
        for first in range(0, len(rows.keys), self._settings.batch_size):
            part = slice(first, first + self._settings.batch_size)
            count = len(rows.keys[part])
            total, terms = loss(
                _part(mine, part),
                None if self._teacher is None else _part(self._teacher, part),
                groups=torch.from_numpy(group_rows(rows.keys[part], rows.texts[part])),
                progress=1.0,
                banks=banks,
            )
            for name, value in {"loss": total, **terms}.items():
                totals[name] = totals.get(name, 0.0) + float(value) * count / len(rows.keys)
        return {"loss": totals.pop("loss"), "terms": totals}


class _Rows:
    """The readable validation samples, each with a caption if the student has a text tower.

    ``skipped`` lists the samples that cannot be read.
    """

    def __init__(self, source: Source, captions: Captions, samples: int, towers: Towers) -> None:
        self._towers = towers
        self._samples = []
        self.skipped: list[Skip] = []
        self.captions: list[str] = []
        self.keys: list[int] = []
        self.texts: list[int] = []
        for number in range(min(samples, len(source))):
            sample = source[number]
            try:
                if towers.image:
                    open_image(sample)
            except DataError as error:
                self.skipped.append(Skip(f"{source.name}: {sample.key}", str(error)))
                continue
            caption = captions.choose(sample, times_shown=0) if towers.text else None
            self._samples.append(sample)
            self.keys.append(_digest(sample.key))
            if caption is not None:
                self.captions.append(caption.text)
            borrowed = caption is None or caption.borrowed
            self.texts.append(-1 if borrowed else _digest(self.captions[-1]))

    def embed(self, encoder: Encoder, *, scale: Tensor, bias: Tensor | None) -> Embeddings:
        image = None
        if self._towers.image:
            image = encoder.encode_images(open_image(sample) for sample in self._samples)
        text = encoder.encode_texts(self.captions) if self.captions else None
        return Embeddings(
            image=None if image is None else torch.from_numpy(image),
            text=None if text is None else torch.from_numpy(text),
            scale=scale,
            bias=bias,
        )


def _digest(text: str) -> int:
    return draw_integers("pair", text)[0] >> 1


def _part(embeddings: Embeddings, rows: slice) -> Embeddings:
    return Embeddings(
        image=None if embeddings.image is None else embeddings.image[rows],
        text=None if embeddings.text is None else embeddings.text[rows],
        scale=embeddings.scale,
        bias=embeddings.bias,
    )
