"""The weighted sum of a recipe's terms, whatever functions they are."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from distill.losses.embeddings import Embeddings, split, zero_of
from distill.losses.presets import NEEDS
from distill.teacher.shares import Share

# Their distributions over the batch need no common width, and each teacher has its own scale.
_FOR_EACH_TEACHER = ("kl_divergence", "relational")


@dataclass(frozen=True)
class Term:
    """A term of a recipe: its weight, the function's own arguments, and the weight's schedule.

    With a schedule the weight goes from ``weight`` at the start of the run to ``end`` at its end,
    in a straight line or along half a cosine. ``options`` are what a recipe sets beside the
    function's arguments: ``scale`` of kl_divergence ("own", or "teacher" for the teacher's scale
    and bias on both sides), ``mask_ratio`` and ``mask_patch`` of embedding_alignment. What says
    where a bank comes from is the trainer's, and passed over here.
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
    """The teacher's embeddings beyond the batch, ``[M, D]`` each, None where no term needs them.

    ``prompts``: texts that stay the same for the run. ``corpus_image`` and ``corpus_text``:
    pictures and captions of the corpus, or a sample of them. ``image_partners``: int64 ``[P, 2]``,
    a picture of the batch and one of its captions in ``corpus_text``; ``text_partners``: a caption
    of the batch and its picture in ``corpus_image``.
    """

    prompts: Tensor | None = None
    corpus_image: Tensor | None = None
    corpus_text: Tensor | None = None
    image_partners: Tensor | None = None
    text_partners: Tensor | None = None


@dataclass(frozen=True)
class Mask:
    """What is hidden of a picture: a share of its square patches, of so many pixels a side."""

    ratio: float
    patch: int


class WeightedTerms:
    """The weighted sum of terms; `distill.losses.terms.WeightedLoss` knows their functions."""

    functions: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}

    def __init__(self, terms: Mapping[str, Term], *, shares: Sequence[Share] = ()) -> None:
        """Take the terms by name, and the shares of the teachers where there are several.

        The embeddings of several teachers come joined (`distill.teacher.shares.join`). A term
        that compares distributions over the batch is then the weighted sum of the terms to each
        teacher, which has the gradient of the term to their mean distribution; every other term
        takes the teachers as the one that they are together.

        Raises:
            ValueError: there is no term, or one is unknown; the message lists the known ones.
        """
        known = ", ".join(self.functions)
        if not terms:
            raise ValueError(f"losses: no term is given; known are {known}")
        for name in terms:
            if name not in self.functions:
                raise ValueError(f"losses: {name!r} is unknown; known are {known}")
        self.terms = dict(terms)
        self.shares = tuple(shares)

    def only(self, *names: str) -> Self:
        """Return the sum of those of its terms that are named.

        Raises:
            ValueError: none is left.
        """
        kept = {name: term for name, term in self.terms.items() if name in names}
        if not kept:
            raise ValueError(
                f"losses: none of {', '.join(names)} is a term here; "
                f"there are {', '.join(self.terms)}"
            )
        return type(self)(kept, shares=self.shares)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares the student with a teacher."""
        return any(NEEDS[name].teacher for name in self.terms)

    @property
    def mask(self) -> Mask | None:
        """What the alignment term hides of the student's pictures; None where nothing."""
        term = self.terms.get("embedding_alignment")
        ratio = 0.0 if term is None else float(term.options.get("mask_ratio", 0.0))
        if term is None or ratio == 0.0:
            return None
        return Mask(ratio, int(term.options.get("mask_patch", 16)))

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
        """Return the weighted sum, and each term before its weight, detached.

        A term whose weight is 0 at this moment is not computed, and not among the values. The
        gradients by the student's scale and bias are zeros where no term asks for them.

        Args:
            student: The student's embeddings of the batch.
            teacher: The teacher's of the same rows; None where no term needs one.
            groups: Integers ``[B]`` as `contrastive` takes them, or None where each row is a pair.
            progress: Share of the run, 0 to 1, for the weights' schedules.
            banks: The teacher's embeddings that prompt_kl and corpus_kl need.
            masked: The student's embeddings ``[B, D]`` of the pictures in part hidden; the
                alignment term takes them in the place of ``student.image``.

        Raises:
            ValueError: a term needs a teacher, a tower or a bank that is missing.
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
        """Return whom a term compares the student with, and the shares of its value."""
        if teacher is None or len(self.shares) < 2 or name not in _FOR_EACH_TEACHER:
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
        """Return a term before its weight."""
        inputs = self._inputs(name, student, teacher, banks, masked)
        arguments = dict(self.terms[name].arguments)
        if NEEDS[name].pairs:
            arguments["groups"] = groups
        return self.functions[name](*inputs, **arguments)

    def _inputs(
        self,
        name: str,
        student: Embeddings,
        teacher: Embeddings | None,
        banks: Banks,
        masked: Tensor | None,
    ) -> list[Embeddings | Tensor | None]:
        """Return what a term's function takes before its own arguments."""
        if not NEEDS[name].teacher:
            return [student]
        if teacher is None:
            raise ValueError(f"{name}: it needs a teacher and none is given")
        student = _rescaled(student, teacher, self.terms[name].options.get("scale", "own"))
        match name:
            case "embedding_alignment" if masked is not None:
                return [replace(student, image=masked), teacher]
            case "prompt_kl":
                if student.image is None or teacher.image is None:
                    model = "student" if student.image is None else "teacher"
                    raise ValueError(f"{name}: it needs images and the {model} has no image tower")
                if banks.prompts is None:
                    raise ValueError(f"{name}: it needs a bank of prompts and none is given")
                return [student.image, teacher.image, banks.prompts, student.scale, teacher.scale]
            case "corpus_contrastive":
                partners = [banks.image_partners, banks.text_partners]
                return [student, banks.corpus_image, banks.corpus_text, *partners]
            case "corpus_kl" | "corpus_relational":
                return [student, teacher, banks.corpus_image, banks.corpus_text]
            case _:
                return [student, teacher]


def _rescaled(student: Embeddings, teacher: Embeddings, scale: str | float) -> Embeddings:
    """Return the student's embeddings at its own scale, or at a multiple of the teacher's."""
    if scale == "own":
        return student
    if scale == "teacher":
        return replace(student, scale=teacher.scale.detach(), bias=teacher.bias)
    return replace(student, scale=float(scale) * teacher.scale.detach())
