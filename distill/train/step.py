"""One training step: towers, losses over the global batch, gradients, optimizers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.losses.embeddings import Embeddings
from distill.losses.tiled.tiles import tiling
from distill.losses.weighted import Banks, WeightedLoss
from distill.train.gradient_cache import backward_in_pieces
from distill.train.piece import Piece
from students.encoder import embed_images, embed_texts, logit_bias, logit_scale


class Outputs(NamedTuple):
    """What the towers say of this process's rows, L2-normalised ``[b, D]``, and the scalars.

    ``masked`` embeds the pictures with their hidden patches; None where nothing is hidden.
    """

    image: Tensor | None
    text: Tensor | None
    masked: Tensor | None
    scale: Tensor
    bias: Tensor | None


class TrainableStudent(nn.Module):
    """What is trained: both towers in one forward pass, as wrappers of several processes need."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take a dual encoder and the statistics that its image tower expects."""
        super().__init__()
        self.model = model
        self.memory_format = torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        pixels: Tensor | None,
        hidden: Tensor | None = None,
        tokens: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Embed uint8 ``[b, H, W, 3]`` and tokens; what is ``hidden`` ``[b, H, W]`` turns grey."""
        image = text = masked = None
        if pixels is not None:
            values = self.normalised(pixels)
            image = embed_images(self.model, values)
            if hidden is not None:
                masked = embed_images(self.model, values.masked_fill(hidden.unsqueeze(1), 0.0))
        if tokens is not None:
            text = embed_texts(self.model, tokens)
        return Outputs(image, text, masked, logit_scale(self.model), logit_bias(self.model))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return uint8 ``[b, H, W, 3]`` as the image tower takes it, float32 ``[b, 3, H, W]``."""
        values = pixels.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        return ((values - self.mean) / self.std).contiguous(memory_format=self.memory_format)


class _GatherRows(torch.autograd.Function):
    """All processes' rows in the order of their ranks; the gradient is summed over them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.count
        return total[first : first + ctx.count]


def gather_rows(rows: Tensor) -> Tensor:
    """Return the global batch ``[W · B, …]`` of every process's rows ``[B, …]``, with gradient.

    Every process computes the same global loss, and of its gradient a share whose mean over the
    processes is the whole. The backward pass sums these shares and the data-parallel wrapper
    averages over W, so that parameters get the gradient of one process.
    """
    if _processes() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


@dataclass(frozen=True)
class GlobalLoss:
    """The loss of a step over the global batch, as a function of this process's outputs.

    ``teacher``, ``groups`` and ``banks`` are those of the global batch; ``tile_rows`` is how many
    rows of a matrix of similarities exist at a time, None for as many as is fast.
    """

    loss: WeightedLoss
    teacher: Embeddings | None
    groups: Tensor | None
    banks: Banks | None
    progress: float
    tile_rows: int | None

    def __call__(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and detached what is logged: terms, cosines to the teacher."""
        image, text, masked = (
            None if rows is None else gather_rows(rows)
            for rows in (outputs.image, outputs.text, outputs.masked)
        )
        student = Embeddings(image, text, outputs.scale, outputs.bias)
        with tiling(rows=self.tile_rows, spread=_processes() > 1):
            total, terms = self.loss(
                student,
                self.teacher,
                groups=self.groups,
                progress=self.progress,
                banks=self.banks,
                masked=masked,
            )
        return total, {**terms, **_cosines(student, self.teacher)}


@dataclass(frozen=True)
class StepResult:
    """Numbers of one step, over the global batch.

    ``cosines`` is the mean cosine of student and teacher on the same row, for each tower that
    both have in the same width.
    """

    loss: float
    terms: dict[str, float]
    cosines: dict[str, float]
    gradient_norm: float
    logit_scale: float


class NonFiniteLossError(ArithmeticError):
    """The loss is no finite number; the optimizer has not moved."""


def training_step(
    model: nn.Module,
    pieces: Sequence[Piece],
    loss: GlobalLoss,
    *,
    optimizers: Sequence[Optimizer],
    accelerator: Any,
    gradient_clip: float | None,
) -> StepResult:
    """Run one step on this process's rows, cut into the pieces that its memory holds.

    Raises:
        NonFiniteLossError: the loss is not finite.
    """
    if len(pieces) == 1:
        piece = pieces[0]
        outputs = model(piece.pixels, piece.hidden, piece.tokens)
        total, logged = loss(outputs)
        check_finite(total)
        accelerator.backward(total)
    else:
        outputs, total, logged = backward_in_pieces(
            model, pieces, loss, check=check_finite, accelerator=accelerator
        )
    limit = math.inf if gradient_clip is None else gradient_clip
    norm = accelerator.clip_grad_norm_(model.parameters(), limit)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return _result(total, logged, norm=norm, scale=outputs.scale)


def check_finite(total: Tensor) -> None:
    """Refuse a loss that no gradient should be taken of.

    Raises:
        NonFiniteLossError: it is not finite.
    """
    value = float(total.detach())
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the loss is {value}")


def _result(total: Tensor, logged: dict[str, Tensor], *, norm: Tensor, scale: Tensor) -> StepResult:
    # One transfer for all numbers: each by itself would make a GPU wait.
    names = list(logged)
    numbers = [total, torch.as_tensor(norm), scale, *logged.values()]
    values = torch.stack([number.detach().float().to(total.device) for number in numbers]).tolist()
    named = dict(zip(names, values[3:], strict=True))
    cosines = {name: value for name, value in named.items() if name in _COSINES}
    return StepResult(
        loss=values[0],
        terms={name: value for name, value in named.items() if name not in cosines},
        cosines={_COSINES[name]: value for name, value in cosines.items()},
        gradient_norm=values[1],
        logit_scale=values[2],
    )


_COSINES = {"image_cosine": "image", "text_cosine": "text"}


@torch.no_grad()
def _cosines(student: Embeddings, teacher: Embeddings | None) -> dict[str, Tensor]:
    if teacher is None:
        return {}
    return {
        name: (mine * theirs).sum(dim=-1).mean()
        for name, mine, theirs in (
            ("image_cosine", student.image, teacher.image),
            ("text_cosine", student.text, teacher.text),
        )
        if mine is not None and theirs is not None and mine.shape == theirs.shape
    }


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
