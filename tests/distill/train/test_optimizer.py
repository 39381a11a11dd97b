"""Which weights are decayed, which Muon takes, and how the learning rate goes."""

import math

import pytest
import torch
from torch import nn

from distill.train.optimizer import (
    OptimizerSettings,
    build_optimizers,
    build_schedules,
    layer_matrices,
)


class Small(nn.Module):
    """Embedding, two layers, a projection and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in "ab")
        self.projection = nn.Linear(4, 2)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))


def settings(optimizer: str, schedule: str = "cosine") -> OptimizerSettings:
    return OptimizerSettings(
        optimizer="muon" if optimizer == "muon" else "adamw",
        learning_rate=0.1,
        muon_learning_rate=0.2,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        warmup_steps=4,
        schedule="constant" if schedule == "constant" else "cosine",
    )


def decayed(optimizer: torch.optim.Optimizer) -> dict[float, set[int]]:
    return {
        group["weight_decay"]: {id(weight) for weight in group["params"]}
        for group in optimizer.param_groups
    }


def test_norms_biases_and_scales_are_not_decayed() -> None:
    model = Small()
    (adamw,) = build_optimizers(model, settings("adamw"))
    matrices = {id(weight) for weight in model.parameters() if weight.ndim == 2}
    others = {id(weight) for weight in model.parameters() if weight.ndim < 2}
    assert decayed(adamw) == {0.0: others, 0.05: matrices}


def test_muon_takes_the_layers_matrices_and_adamw_the_rest() -> None:
    model = Small()
    assert set(layer_matrices(model)) == {"layers.0.0.weight", "layers.1.0.weight"}
    adamw, muon = build_optimizers(model, settings("muon"))
    ours = {id(weight) for group in muon.param_groups for weight in group["params"]}
    rest = {id(weight) for group in adamw.param_groups for weight in group["params"]}
    assert isinstance(muon, torch.optim.Muon)
    assert ours == {id(weight) for weight in layer_matrices(model).values()}
    assert ours | rest == {id(weight) for weight in model.parameters()}
    assert not ours & rest
    assert all(weight.requires_grad for weight in model.parameters())


def test_cosine_and_constant_after_the_warmup() -> None:
    for kind in ("cosine", "constant"):
        optimizers = build_optimizers(Small(), settings("muon", kind))
        schedules = build_schedules(optimizers, settings("muon", kind), steps=20)
        rates = []
        for _ in range(20):
            rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
        for step, (adamw, muon) in enumerate(rates):
            after = 0.5 * (1 + math.cos(math.pi * (step - 4) / 16)) if kind == "cosine" else 1.0
            factor = step / 4 if step < 4 else after
            assert adamw == pytest.approx(0.1 * factor, abs=1e-12)
            assert muon == pytest.approx(0.2 * factor, abs=1e-12)
