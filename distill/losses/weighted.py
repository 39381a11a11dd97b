"""The weighted sum of a recipe's loss terms."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from distill.losses._tensors import zero_of
from distill.losses.catalogue import TERMS, Input
from distill.losses.embeddings import Embeddings, split
from distill.teacher.shares import Share

# What an error says about a missing input; the term's function checks all other inputs.
_MISSING: Mapping[Input, str] = {
    "student_image": "needs images, but the student has no image tower",
    "teacher_image": "needs images, but the teacher has no image tower",
    "bank": "needs a bank of prompts, but none is given",
}


@dataclass(frozen=True)
class Term:
    """A term of a recipe: its weight, its function's own arguments, and its options.

    With a schedule, the weight goes from ``weight`` at the start of the run to ``end`` at its end,
    in a straight line or along half a cosine. ``options`` are the recipe's fields that the term's
    function does not take. `WeightedLoss` acts on ``scale`` ("own", "teacher" for the teacher's
    scale and bias, or a factor of the teacher's scale), ``mask_ratio`` and ``mask_patch``. The
    trainer acts on the options that say where a bank comes from.
    """

    weight: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["none", "linear", "cosine"] = "none"
    end: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def weight_at(self, progress: float) -> float:
        """Return the weight at a share of the run, 0 at its start and 1 at its end."""
        match self.schedule:
            case "none":
                return self.weight
            case "linear":
                share = progress
            case "cosine":
                share = (1 - math.cos(math.pi * progress)) / 2
            case _:
                raise ValueError(
                    f"schedule is {self.schedule!r}; it must be one of none, linear, cosine"
                )
        return self.weight + (self.end - self.weight) * share


@dataclass(frozen=True)
class Banks:
    """The teacher's embeddings beyond the batch, ``[M, D]`` each; None if no term needs them.

    Attributes:
        prompts: Texts that stay the same for the whole run.
        corpus_image: Pictures of the corpus, or a sample of them.
        corpus_text: Captions of the corpus, or a sample of them.
        image_partners: Int64 ``[P, 2]``: a row of the batch and the row of one of its picture's
            captions in ``corpus_text``.
        text_partners: Int64 ``[P, 2]``: a row of the batch and the row of its caption's picture in
            ``corpus_image``.
    """

    prompts: Tensor | None = None
    corpus_image: Tensor | None = None
    corpus_text: Tensor | None = None
    image_partners: Tensor | None = None
    text_partners: Tensor | None = None


@dataclass(frozen=True)
class Mask:
    """What is hidden in a picture: a share of its square patches of ``patch`` pixels per side."""

    ratio: float
    patch: int


def term_function(name: str) -> Callable[..., Tensor]:
    """Return the function of a term, from the module that the catalogue names."""
    module = importlib.import_module(f"distill.losses.{TERMS[name].family}")
    function: Callable[..., Tensor] = getattr(module, name)
    return function


class WeightedLoss:
    """The weighted sum of a recipe's terms."""

    def __init__(self, terms: Mapping[str, Term], *, shares: Sequence[Share] = ()) -> None:
        """Take the terms by name, and the shares of the teachers if there are several.

        The embeddings of several teachers come joined (`distill.teacher.shares.join`). If the
        catalogue applies a term to each teacher, its value is the weighted mean over the teachers.
        Its gradient is then that of the term for their mean distribution. Every other term takes
        the joined embeddings as those of one teacher.

        Raises:
            ValueError: No term is given, or one is unknown; the message lists the known ones.
        """
        known = ", ".join(TERMS)
        if not terms:
            raise ValueError(f"losses: no term is given; known are {known}")
        for name in terms:
            if name not in TERMS:
                raise ValueError(f"losses: {name!r} is unknown; known are {known}")
        self.terms = dict(terms)
        self.shares = tuple(shares)

    def only(self, *names: str) -> Self:
        """Return the weighted sum of the named terms alone.

        Raises:
            ValueError: It has none of them.
        """
        kept = {name: term for name, term in self.terms.items() if name in names}
        if not kept:
            raise ValueError(
                f"losses: none of {', '.join(names)} is a term here; "
                f"the terms are {', '.join(self.terms)}"
            )
        return type(self)(kept, shares=self.shares)

    @property
    def alignment(self) -> Self:
        """The weighted sum of the terms that may train alone in the first steps.

        Raises:
            ValueError: It has none of them.
        """
        return self.only(*(row.name for row in TERMS.values() if row.aligns))

    @property
    def held_out(self) -> Self | None:
        """The weighted sum of the terms that can be measured on held-out data, None without any."""
        kept = [name for name in self.terms if not TERMS[name].needs_partners]
        return self.only(*kept) if kept else None

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares the student with a teacher."""
        return any(TERMS[name].needs_teacher for name in self.terms)

    @property
    def mask(self) -> Mask | None:
        """How much of the student's pictures a term hides; None if no term hides anything."""
        for name, term in self.terms.items():
            ratio = float(term.options.get("mask_ratio", 0.0)) if TERMS[name].masked else 0.0
            if ratio:
                return Mask(ratio, int(term.options.get("mask_patch", 16)))
        return None

    def __call__(
        self,
        student: Embeddings,
        teacher: Embeddings | None,
        *,
        groups: Tensor | None,
        progress: float,
        banks: Banks | None = None,
        masked: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each term's value before its weight, detached.

        A term whose weight is 0 at this moment is not computed and has no value. The gradients by
        the student's scale and bias are zeros if no term depends on them.

        Args:
            student: The student's embeddings of the batch.
            teacher: The teacher's embeddings of the same rows; None if no term needs a teacher.
            groups: Integers ``[B]`` as `distill.losses.contrastive.contrastive` takes them, or None
                if each row is a pair of its own.
            progress: Share of the run, 0 to 1, for the weights' schedules.
            banks: The teacher's embeddings beyond the batch, for the terms that need them.
            masked: The student's embeddings ``[B, D]`` of the partly hidden pictures, for the terms
                that take them in place of ``student.image``.

        Raises:
            ValueError: A term needs a teacher, a tower or a bank that is missing.
        """
        values = {}
        weighted = [zero_of(student.scale, student.bias)]
        for name, term in self.terms.items():
            weight = term.weight_at(progress)
            if weight == 0:
                continue
            value = torch.stack(
                [
                    share * self._value(name, student, one, groups, banks or Banks(), masked)
                    for share, one in self._teachers(name, teacher)
                ]
            ).sum()
            weighted.append(weight * value)
            values[name] = value.detach()
        device = weighted[-1].device
        return torch.stack([part.to(device) for part in weighted]).sum(), values

    def _teachers(
        self, name: str, teacher: Embeddings | None
    ) -> list[tuple[float, Embeddings | None]]:
        """Return the teachers that a term compares the student with, and their weights."""
        if teacher is None or len(self.shares) < 2 or not TERMS[name].each_teacher:
            return [(1.0, teacher)]
        weights = [share.weight for share in self.shares]
        return list(zip(weights, split(teacher, self.shares), strict=True))

    def _value(
        self,
        name: str,
        student: Embeddings,
        teacher: Embeddings | None,
        groups: Tensor | None,
        banks: Banks,
        masked: Tensor | None,
    ) -> Tensor:
        """Return a term's value before its weight."""
        row, term = TERMS[name], self.terms[name]
        if row.needs_teacher:
            if teacher is None:
                raise ValueError(f"{name}: needs a teacher, but none is given")
            student = _rescaled(student, teacher, term.options.get("scale", "own"))
        if row.masked and masked is not None:
            student = replace(student, image=masked)
        given = _inputs(student, teacher, groups, banks)
        for wanted in row.inputs:
            if given[wanted] is None and wanted in _MISSING:
                raise ValueError(f"{name}: {_MISSING[wanted]}")
        return term_function(name)(*(given[wanted] for wanted in row.inputs), **term.arguments)


def _inputs(
    student: Embeddings, teacher: Embeddings | None, groups: Tensor | None, banks: Banks
) -> dict[Input, Embeddings | Tensor | None]:
    """Return everything that a term's function may take."""
    return {
        "student": student,
        "teacher": teacher,
        "student_image": student.image,
        "teacher_image": None if teacher is None else teacher.image,
        "student_scale": student.scale,
        "teacher_scale": None if teacher is None else teacher.scale,
        "groups": groups,
        "bank": banks.prompts,
        "corpus_image": banks.corpus_image,
        "corpus_text": banks.corpus_text,
        "image_partners": banks.image_partners,
        "text_partners": banks.text_partners,
    }


def _rescaled(student: Embeddings, teacher: Embeddings, scale: str | float) -> Embeddings:
    """Return the student's embeddings at its own scale, or at a multiple of the teacher's."""
    if scale == "own":
        return student
    if scale == "teacher":
        return replace(student, scale=teacher.scale.detach(), bias=teacher.bias)
    return replace(student, scale=float(scale) * teacher.scale.detach())
