"""One training step: towers, losses over the global batch, gradients, optimizers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.losses.embeddings import Embeddings
from distill.losses.tiled.tiles import tiling
from distill.losses.weighted import Banks, WeightedLoss
from distill.train._gradient_cache import backward_in_pieces
from distill.train.piece import Outputs, Piece
from students.encoder import embed_images, embed_texts, logit_bias, logit_scale


class TrainableStudent(nn.Module):
    """The module that is trained: one forward pass through both towers.

    Wrappers for several processes need a single forward pass.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take a dual encoder and the mean and standard deviation that its image tower expects."""
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
        """Embed uint8 ``[b, H, W, 3]`` and tokens; ``hidden`` pixels ``[b, H, W]`` become grey."""
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
        """Normalise uint8 ``[b, H, W, 3]`` for the image tower, float32 ``[b, 3, H, W]``."""
        values = pixels.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        return ((values - self.mean) / self.std).contiguous(memory_format=self.memory_format)


class _GatherRows(torch.autograd.Function):
    """Gathers the rows of all processes in rank order; sums the gradient over the processes."""

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
    """Gather the rows ``[B, …]`` of W processes into the global batch ``[W · B, …]``.

    Gradients flow back. Every process computes the same global loss, and a share of its gradient;
    the mean of these shares over the processes is the whole gradient. The backward pass sums the
    shares and the data-parallel wrapper averages over W, so parameters get the gradient that a
    single process would compute.
    """
    if _processes() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


@dataclass(frozen=True)
class GlobalLoss:
    """The loss of a step over the global batch, as a function of this process's outputs.

    ``teacher``, ``groups`` and ``banks`` belong to the global batch. ``tile_rows`` is the number of
    rows of a similarity matrix that exist at a time; None chooses a fast number.
    """

    loss: WeightedLoss
    teacher: Embeddings | None
    groups: Tensor | None
    banks: Banks | None
    progress: float
    tile_rows: int | None

    def __call__(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and detached what is logged: terms and cosines."""
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
    """The numbers of one step, over the global batch.

    ``cosines`` holds the mean cosine of student and teacher on the same row, for each tower that
    both have with the same width.
    """

    loss: float
    terms: dict[str, float]
    cosines: dict[str, float]
    gradient_norm: float
    logit_scale: float


class NonFiniteLossError(ArithmeticError):
    """The loss is not a finite number; the optimizer has not stepped."""


def training_step(
    model: nn.Module,
    pieces: Sequence[Piece],
    loss: GlobalLoss,
    *,
    optimizers: Sequence[Optimizer],
    accelerator: Any,
    gradient_clip: float | None,
) -> StepResult:
    """Run one step on this process's rows, cut into pieces that fit its memory.

    Raises:
        NonFiniteLossError: The loss is not finite.
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
    """Raise a NonFiniteLossError unless the loss is finite."""
    value = float(total.detach())
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the loss is {value}")


def _result(total: Tensor, logged: dict[str, Tensor], *, norm: Tensor, scale: Tensor) -> StepResult:
    # One transfer for all numbers; with one for each, a GPU would wait.
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
