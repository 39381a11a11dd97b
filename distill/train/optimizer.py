"""Optimizers and their schedule: AdamW for all, or Muon for the layers' matrices beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler


@dataclass(frozen=True)
class OptimizerSettings:
    """What the recipe says of the optimizer; learning rates are the peaks after warmup."""

    optimizer: Literal["adamw", "muon"]
    learning_rate: float
    muon_learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    schedule: Literal["cosine", "constant"]


def build_optimizers(model: nn.Module, settings: OptimizerSettings) -> list[Optimizer]:
    """Return AdamW alone, or Muon for the matrices of the layers and AdamW for the rest.

    Norms, biases and the logit scale, all of one dimension or none, get no weight decay. Muon is
    Jordan et al. 2024; its step is scaled to AdamW's as in Liu et al. 2025 (arXiv:2502.16982).
    """
    matrices = layer_matrices(model) if settings.optimizer == "muon" else {}
    for parameter in matrices.values():
        parameter.requires_grad_(False)
    # timm passes over what needs no gradient, which is how Muon's share is left out.
    groups = param_groups_weight_decay(model, settings.weight_decay)
    for parameter in matrices.values():
        parameter.requires_grad_(True)
    fused = any(parameter.is_cuda for parameter in model.parameters())
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)
    ]
    if matrices:
        muon = torch.optim.Muon(
            list(matrices.values()),
            lr=settings.muon_learning_rate,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def layer_matrices(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Return the weights of the linear modules within repeated layers, by name.

    Embeddings, projections and convolutions are none of them: orthogonalising a step suits the
    matrices between hidden states alone.
    """
    layers = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split("."))
    }
    return {
        name: weight
        for name, weight in model.named_parameters()
        if name in layers and weight.requires_grad
    }


def build_schedules(
    optimizers: list[Optimizer], settings: OptimizerSettings, *, steps: int
) -> list[LRScheduler]:
    """Return a schedule for each optimizer: linear warmup, then a cosine to zero or constant."""
    name = "cosine" if settings.schedule == "cosine" else "constant_with_warmup"
    return [
        get_scheduler(
            name,
            optimizer,
            num_warmup_steps=min(settings.warmup_steps, steps // 2),
            num_training_steps=steps,
        )
        for optimizer in optimizers
    ]
