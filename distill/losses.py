"""Losses: pure functions of tensors, one per published term, and their weighted sum.

S stands for a model's logits ``scale · I Tᵀ + bias`` (``[B, B]``, images in rows), Ss the
student's and St the teacher's, P for a softmax over rows. Every term is a scalar: the mean over the
batch and over the two directions, image to text and text to image. Similarities, softmax and norms
are computed in the precision of the inputs and never below float32, under autocast too. No gradient
reaches a teacher's tensor. docs/losses.md says when to use which term.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.presets import NEEDS


@dataclass(frozen=True)
class Embeddings:
    """What a dual encoder says about a batch.

    ``image`` and ``text`` are L2-normalised ``[B, D]``, either None for a model of one tower;
    ``scale`` is a scalar, already exponentiated; ``bias`` a scalar that is added to the logits.
    """

    image: Tensor | None
    text: Tensor | None
    scale: Tensor
    bias: Tensor | None = None


def kl_divergence(student: Embeddings, teacher: Embeddings, temperature: float = 1.0) -> Tensor:
    """Match the teacher's distributions over the batch.

    ``T² · ½ [KL(Pt ‖ Ps) of S's rows + KL(Pt ‖ Ps) of Sᵀ's rows]``, P the row softmax of S / T,
    each model at its own scale. The widths of the two models may differ.

    Raises:
        ValueError: a tower is missing, the batches differ, or the temperature is not above 0.

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531; over the batch as the CRD term of
    CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"kl_divergence: temperature is {temperature}; it must be above 0")
    teacher = _detached(teacher)
    with _full_precision(student):
        student_BB = _logits("kl_divergence", "student", student) / temperature
        teacher_BB = _logits("kl_divergence", "teacher", teacher) / temperature
        if student_BB.shape != teacher_BB.shape:
            raise ValueError(
                f"kl_divergence: the student has {len(student_BB)} rows and the teacher "
                f"{len(teacher_BB)}; both must embed the same batch"
            )
        image_to_text = _row_kl(teacher_BB, student_BB)
        text_to_image = _row_kl(teacher_BB.T, student_BB.T)
        return temperature**2 * (image_to_text + text_to_image) / 2


def embedding_alignment(
    student: Embeddings,
    teacher: Embeddings,
    kind: Literal["cosine", "mse", "smooth_l1"] = "cosine",
) -> Tensor:
    """Pull each of the student's vectors to the teacher's of the same row.

    The mean over the towers that both models have, and over the batch, of ``1 − cos`` (cosine), of
    the squared error summed over D (mse), or of the Huber error at beta 1 summed over D
    (smooth_l1).

    Raises:
        ValueError: the models have no tower in common, their batches or widths differ, or the kind
            is unknown.

    Source: the FD term of CLIP-KD, https://arxiv.org/abs/2307.12732.
    """
    if kind not in _DISTANCES:
        raise ValueError(
            f"embedding_alignment: kind is {kind!r}; it must be one of {', '.join(_DISTANCES)}"
        )
    teacher = _detached(teacher)
    towers = [
        (tower, ours, theirs)
        for tower, ours, theirs in (
            ("image", student.image, teacher.image),
            ("text", student.text, teacher.text),
        )
        if ours is not None and theirs is not None
    ]
    if not towers:
        raise ValueError(
            "embedding_alignment: student and teacher have no tower in common; "
            "it needs the images of both or the texts of both"
        )
    with _full_precision(student):
        distances = []
        for tower, ours, theirs in towers:
            _check_same_shape(tower, ours, theirs)
            distances.append(_DISTANCES[kind](_at_least_float32(ours), _at_least_float32(theirs)))
        return torch.stack(distances).mean()


def contrastive(student: Embeddings, groups: Tensor | None = None) -> Tensor:
    """Tell the true pairs of the batch from all others (InfoNCE in both directions).

    ``½ [CE(P of S's rows, Y) + CE(P of Sᵀ's rows, Y)]``; the target Y is the identity, or with
    ``groups`` (integers ``[B]``, the same for the same image or caption) uniform over the rows of
    one group. A row of group -1 has no true partner and is left out, as a row and as a column; the
    term is 0 where no row remains.

    Raises:
        ValueError: a tower is missing, or ``groups`` is not ``[B]``.

    Source: CLIP, https://arxiv.org/abs/2103.00020; the groups answer the remark on several captions
    of an image in the simple-CLIP tutorial, https://github.com/moein-shariatnia/OpenAI-CLIP.
    """
    with _full_precision(student):
        logits_BB = _logits("contrastive", "student", student)
        # Class indices [B] without groups, probabilities [K, K] with them.
        target = torch.arange(len(logits_BB), device=logits_BB.device)
        if groups is not None:
            kept, target = _group_targets("contrastive", groups, logits_BB)
            logits_BB = logits_BB[kept][:, kept]
        if not len(logits_BB):
            # An empty sum keeps its place in the graph: the gradients are zeros, and not absent.
            return logits_BB.sum()
        # A group is a symmetric relation, so that both directions share the target.
        image_to_text = F.cross_entropy(logits_BB, target)
        text_to_image = F.cross_entropy(logits_BB.T, target)
        return (image_to_text + text_to_image) / 2


@dataclass(frozen=True)
class Term:
    """A term of a recipe: its weight, the function's own arguments, and the weight's schedule.

    With a schedule the weight goes from ``weight`` at the start of the run to ``end`` at its end,
    in a straight line or along half a cosine.
    """

    weight: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["none", "linear", "cosine"] = "none"
    end: float = 0.0

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


TERMS: Mapping[str, Callable[..., Tensor]] = {
    "kl_divergence": kl_divergence,
    "embedding_alignment": embedding_alignment,
    "contrastive": contrastive,
}


class WeightedLoss:
    """The weighted sum of a recipe's terms."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        """Take the terms by name.

        Raises:
            ValueError: there is no term, or one is unknown; the message lists the known ones.
        """
        if not terms:
            raise ValueError(f"losses: no term is given; known are {', '.join(TERMS)}")
        for name in terms:
            if name not in TERMS:
                raise ValueError(f"losses: {name!r} is unknown; known are {', '.join(TERMS)}")
        self.terms = dict(terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares the student with a teacher."""
        return any(NEEDS[name].teacher for name in self.terms)

    def __call__(
        self,
        student: Embeddings,
        teacher: Embeddings | None,
        *,
        groups: Tensor | None,
        progress: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each term before its weight, detached.

        Args:
            student: The student's embeddings of the batch.
            teacher: The teacher's of the same rows; None where no term needs one.
            groups: Integers ``[B]`` as `contrastive` takes them, or None where each row is a pair.
            progress: Share of the run, 0 to 1, for the weights' schedules.

        Raises:
            ValueError: a term needs a teacher or a tower that is missing.
        """
        values = {}
        weighted = []
        for name, term in self.terms.items():
            inputs: list[Embeddings] = [student]
            arguments = dict(term.arguments)
            if NEEDS[name].teacher:
                if teacher is None:
                    raise ValueError(f"{name}: it needs a teacher and none is given")
                inputs.append(teacher)
            if NEEDS[name].pairs:
                arguments["groups"] = groups
            value = TERMS[name](*inputs, **arguments)
            weighted.append(term.weight_at(progress) * value)
            values[name] = value.detach()
        return torch.stack(weighted).sum(), values


@contextmanager
def _full_precision(embeddings: Embeddings) -> Iterator[None]:
    rows = embeddings.text if embeddings.image is None else embeddings.image
    device = embeddings.scale.device if rows is None else rows.device
    # Autocast would compute the similarities in half precision, whatever their inputs are.
    with torch.autocast(device.type, enabled=False):
        yield


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _detached(teacher: Embeddings) -> Embeddings:
    return Embeddings(
        image=None if teacher.image is None else teacher.image.detach(),
        text=None if teacher.text is None else teacher.text.detach(),
        scale=teacher.scale.detach(),
        bias=None if teacher.bias is None else teacher.bias.detach(),
    )


def _logits(term: str, model: str, embeddings: Embeddings) -> Tensor:
    """Return ``scale · I Tᵀ + bias``, ``[B, B]``."""
    if embeddings.image is None or embeddings.text is None:
        missing = "image" if embeddings.image is None else "text"
        raise ValueError(f"{term}: it needs both towers and the {model} has no {missing} tower")
    image_BD = _at_least_float32(embeddings.image)
    text_BD = _at_least_float32(embeddings.text)
    if image_BD.shape != text_BD.shape:
        raise ValueError(
            f"{term}: the {model}'s images are {list(image_BD.shape)} and its texts "
            f"{list(text_BD.shape)}; both must be [B, D] of the same pairs"
        )
    logits_BB = _at_least_float32(embeddings.scale) * (image_BD @ text_BD.T)
    if embeddings.bias is not None:
        logits_BB = logits_BB + _at_least_float32(embeddings.bias)
    return logits_BB


def _row_kl(target_BN: Tensor, logits_BN: Tensor) -> Tensor:
    """Return KL(softmax(target) ‖ softmax(logits)) over the last axis, the mean over rows."""
    return F.kl_div(
        F.log_softmax(logits_BN, dim=-1),
        F.log_softmax(target_BN, dim=-1),
        log_target=True,
        reduction="batchmean",
    )


def _group_targets(term: str, groups: Tensor, logits_BB: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows have a partner ``[B]``, and the targets ``[K, K]`` of these K rows."""
    if groups.shape != logits_BB.shape[:1]:
        raise ValueError(
            f"{term}: groups is {list(groups.shape)}; it must be [{len(logits_BB)}], one id a row"
        )
    groups = groups.to(logits_BB.device)
    kept = groups != -1
    same_KK = (groups[kept][:, None] == groups[kept][None, :]).to(logits_BB.dtype)
    return kept, same_KK / same_KK.sum(dim=1, keepdim=True)


def _check_same_shape(tower: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"embedding_alignment: the student's {tower} width is {student.shape[-1]} and the "
            f"teacher's {teacher.shape[-1]}; they must be equal"
        )
    if student.shape != teacher.shape:
        raise ValueError(
            f"embedding_alignment: the student has {len(student)} {tower} rows and the teacher "
            f"{len(teacher)}; both must embed the same batch"
        )


def _cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(student_BD, teacher_BD, dim=-1)).mean()


def _squared_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    return (student_BD - teacher_BD).square().sum(dim=-1).mean()


def _huber_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    return F.smooth_l1_loss(student_BD, teacher_BD, reduction="none", beta=1.0).sum(dim=-1).mean()


_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": _cosine_distance,
    "mse": _squared_distance,
    "smooth_l1": _huber_distance,
}
