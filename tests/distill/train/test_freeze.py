"""A locked tower does not change, its projection learns, and processes agree."""

import copy
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from distill.train._freeze import locked_towers
    from distill.train.optimizer import OptimizerSettings, build_optimizers
    from distill.train.step import TrainableStudent
    from students.config import StudentConfig
    from students.model import StudentModel
    from students.parts import backbone_of

BERT = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def build() -> StudentModel:
    torch.manual_seed(4)
    return StudentModel(
        StudentConfig(
            image={"backbone": "test_resnet", "arguments": {}, "projection": "linear"},
            text={"config": BERT, "pooling": "mean", "projection": "linear", "context_length": 8},
            projection_dim=16,
        )
    )


def optimizers_of(model: nn.Module, kind: str) -> list[torch.optim.Optimizer]:
    settings = OptimizerSettings(
        optimizer="muon" if kind == "muon" else "adamw",
        learning_rate=1e-2,
        muon_learning_rate=1e-2,
        weight_decay=0.5,
        betas=(0.9, 0.98),
        warmup_steps=0,
        schedule="constant",
    )
    return build_optimizers(model, settings)


def loss_of(model: StudentModel, step: int) -> Tensor:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
    image = model.get_image_features(pixels).pooler_output
    text = model.get_text_features(torch.arange(5, 25).view(4, 5)).pooler_output
    return (image * text).sum() * model.logit_scale


def train(model: StudentModel, steps: range, optimizers: Any, **locks: bool) -> None:
    for step in steps:
        model.train()
        torch.manual_seed(step)
        with locked_towers(model, **{"image": False, "text": False, **locks}):
            loss_of(model, step).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()


def moved(model: StudentModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, now in model.state_dict().items() if not torch.equal(now, before[name])}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_locked_tower_stays_the_same_and_the_rest_learns(kind: str, tower: str) -> None:
    model = build()
    optimizers = optimizers_of(model, kind)
    # Momentum from before must not move it either.
    train(model, range(2), optimizers)
    before = copy.deepcopy(model.state_dict())
    states = [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in optimizers]
    train(model, range(2, 4), optimizers, **{tower: True})
    part = {"image": "image_tower.backbone", "text": "text_tower.encoder"}[tower]
    everything = set(before)
    assert moved(model, before) == {name for name in everything if not name.startswith(part)}
    assert len(states) == len(optimizers)
    now = copy.deepcopy(model.state_dict())
    train(model, range(4, 5), optimizers)
    # Unlocked, all of it learns; the running statistics too.
    assert moved(model, now) == everything


def test_a_locked_tower_needs_no_gradient() -> None:
    model = build()
    model.train()
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    model.image_tower.backbone.register_parameter("fixed", frozen)
    with locked_towers(model, image=True, text=False):
        backbone = backbone_of(model, "image")
        assert backbone is not None
        assert not any(module.training for module in backbone.modules())
        assert not backbone(torch.randn(2, 3, 32, 32)).requires_grad
        assert model.get_image_features(torch.randn(2, 3, 32, 32)).pooler_output.requires_grad
        assert model.text_tower.training
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters() if weight is not frozen)
    assert not frozen.requires_grad


def test_locking_a_missing_tower_does_nothing() -> None:
    image = {"backbone": "test_resnet", "arguments": {}, "projection": "linear"}
    model = StudentModel(StudentConfig(image=image, text=None, projection_dim=16))
    with locked_towers(model, image=False, text=True):
        assert all(weight.requires_grad for weight in model.parameters())


def test_modules_in_evaluation_mode_stay_there() -> None:
    model = build().train()
    norm = model.image_tower.backbone.bn1
    norm.eval()
    wrapped = TrainableStudent(model, mean=(0.5,) * 3, std=(0.5,) * 3)
    with locked_towers(wrapped.model, image=True, text=True):
        pass
    assert not norm.training
    assert model.image_tower.backbone.conv1.training
