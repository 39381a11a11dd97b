"""One training step: towers, losses over the global batch, gradients, optimizers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.losses import Embeddings, WeightedLoss
from students.encoder import embed_images, embed_texts, logit_bias, logit_scale


class TrainableStudent(nn.Module):
    """What is trained: both towers in one forward pass, as wrappers of several processes need."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take a dual encoder and the statistics that its image tower expects."""
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, pixels: Tensor | None, tokens: Mapping[str, Tensor] | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor | None]:
        """Embed uint8 ``[B, H, W, 3]`` and tokens; return image, text, scale and bias."""
        image = text = None
        if pixels is not None:
            values = pixels.permute(0, 3, 1, 2).float() / 255
            image = embed_images(self.model, (values - self.mean) / self.std)
        if tokens is not None:
            text = embed_texts(self.model, tokens)
        return image, text, logit_scale(self.model), logit_bias(self.model)


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

    Every process computes the same global loss. The backward pass sums the W equal gradients and
    the data-parallel wrapper averages over W, so that parameters get the gradient of one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


@dataclass(frozen=True)
class StepResult:
    """Numbers of one step, over the global batch."""

    loss: float
    terms: dict[str, float]
    gradient_norm: float
    logit_scale: float


class NonFiniteLossError(ArithmeticError):
    """The loss is no finite number; the optimizer has not moved."""


def training_step(
    model: nn.Module,
    inputs: tuple[Tensor | None, Mapping[str, Tensor] | None],
    *,
    teacher: Embeddings | None,
    groups: Tensor | None,
    loss: WeightedLoss,
    progress: float,
    optimizers: Sequence[Optimizer],
    accelerator: Any,
    gradient_clip: float | None,
) -> StepResult:
    """Run one step on this process's rows; ``teacher`` and ``groups`` are the global batch's.

    Raises:
        NonFiniteLossError: the loss is not finite.
    """
    image, text, scale, bias = model(*inputs)
    student = Embeddings(
        image=None if image is None else gather_rows(image),
        text=None if text is None else gather_rows(text),
        scale=scale,
        bias=bias,
    )
    total, terms = loss(student, teacher, groups=groups, progress=progress)
    value = float(total.detach())
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the loss is {value}")
    accelerator.backward(total)
    limit = math.inf if gradient_clip is None else gradient_clip
    norm = accelerator.clip_grad_norm_(model.parameters(), limit)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return StepResult(
        loss=value,
        terms={name: float(term.detach()) for name, term in terms.items()},
        gradient_norm=float(norm),
        logit_scale=float(scale.detach()),
    )
