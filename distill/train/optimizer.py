"""Optimizers and schedules: AdamW for everything, or Muon for the layers' matrices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from distill.train._layer_decay import layer_factors
from students.parts import is_projection, tower_of

# Devices on which torch steps all of AdamW's parameters in one kernel.
_FUSED = ("cpu", "cuda")


@dataclass(frozen=True)
class OptimizerSettings:
    """The settings of the optimizers; learning rates are those after the warmup.

    ``learning_rate`` applies to a tower whose own learning rate is None, and to parameters outside
    the towers. ``layer_decay`` is the factor of the learning rate from a layer to the one below it.
    """

    optimizer: Literal["adamw", "muon"]
    learning_rate: float
    muon_learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    schedule: Literal["cosine", "constant"]
    image_learning_rate: float | None = None
    text_learning_rate: float | None = None
    layer_decay: float | None = None


def build_optimizers(model: nn.Module, settings: OptimizerSettings) -> list[Optimizer]:
    """Return AdamW alone, or AdamW and Muon for the matrices of the layers.

    Norms, biases and scales get no weight decay: tensors of at most one dimension, those with such
    a name, and what timm's backbones list, such as position embeddings. Each parameter group names
    its ``tower``. Muon's step is scaled to that of AdamW, and its learning rates have the same
    proportions between towers and layers.

    Source: Muon is Jordan et al. 2024, its scale Liu et al. 2025, https://arxiv.org/abs/2502.16982.
    """
    factors = _rate_factors(model, settings)
    matrices = layer_matrices(model) if settings.optimizer == "muon" else {}
    for parameter in matrices.values():
        parameter.requires_grad_(False)
    # timm skips parameters that need no gradient, so Muon's are left out.
    groups = param_groups_weight_decay(
        model, settings.weight_decay, no_weight_decay_list=_without_decay(model)
    )
    for parameter in matrices.values():
        parameter.requires_grad_(True)
    fused = all(parameter.device.type in _FUSED for parameter in model.parameters())
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(
            _split(groups, model, factors, peak=settings.learning_rate),
            lr=settings.learning_rate,
            betas=settings.betas,
            fused=fused,
        )
    ]
    if matrices:
        whole = [{"params": list(matrices.values()), "weight_decay": settings.weight_decay}]
        muon = torch.optim.Muon(
            _split(whole, model, factors, peak=settings.muon_learning_rate),
            lr=settings.muon_learning_rate,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def layer_matrices(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Return the weights of the linear modules within repeated layers, by name.

    Embeddings, projections and convolutions are left out: only matrices between hidden states gain
    from orthogonal steps.
    """
    layers = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and any(part.isdigit() for part in name.split("."))
        and not is_projection(name)
    }
    return {
        name: weight
        for name, weight in model.named_parameters()
        if name in layers and weight.requires_grad
    }


def learning_rates(optimizers: Sequence[Optimizer]) -> dict[str, float]:
    """Return the current rates of ``image``, ``text`` and ``rest``; ``image_muon`` is Muon's.

    With layer decay, the rate of a tower is that of the highest layer that the optimizer trains.
    """
    rates: dict[str, float] = {}
    for number, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            name = group["tower"] + ("_muon" if number else "")
            rates[name] = max(rates.get(name, 0.0), float(group["lr"]))
    return rates


def build_schedules(
    optimizers: list[Optimizer], settings: OptimizerSettings, *, steps: int
) -> list[LRScheduler]:
    """Return a schedule for each optimizer: linear warmup, then half a cosine or constant."""
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


def _rate_factors(model: nn.Module, settings: OptimizerSettings) -> dict[str, float]:
    """Return each parameter's learning rate as a multiple of ``learning_rate``."""
    rates = {"image": settings.image_learning_rate, "text": settings.text_learning_rate}
    decayed = {} if settings.layer_decay is None else layer_factors(model, settings.layer_decay)
    return {
        name: (rates.get(tower_of(name) or "rest") or settings.learning_rate)
        / settings.learning_rate
        * decayed.get(name, 1.0)
        for name, _ in model.named_parameters()
    }


def _split(
    groups: Sequence[Mapping[str, Any]],
    model: nn.Module,
    factors: Mapping[str, float],
    *,
    peak: float,
) -> list[dict[str, Any]]:
    """Split groups until each has one tower and one learning rate."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    split = []
    for group in groups:
        parts: dict[tuple[str, float], list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            name = names[parameter]
            parts[tower_of(name) or "rest", factors[name]].append(parameter)
        split += [
            {**group, "params": parameters, "lr": peak * factor, "tower": tower}
            for (tower, factor), parameters in parts.items()
        ]
    return split


def _without_decay(model: nn.Module) -> list[str]:
    """Return the names of biases and scales, and those that a timm backbone lists."""
    left_out = [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if callable(names := getattr(module, "no_weight_decay", None))
        for name in names()
    ]
    # Some of them have several dimensions, such as the position biases of Swin.
    named_so = [
        name
        for name, _ in model.named_parameters()
        if any(word in name.rpartition(".")[2] for word in ("bias", "scale"))
    ]
    return left_out + named_so
