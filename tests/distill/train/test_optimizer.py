"""Weight decay, the weights that Muon trains, learning rates, and their schedules."""

import math
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import timm
    import torch
    from torch import nn
    from transformers import CLIPConfig, CLIPModel

    from distill.train.optimizer import (
        OptimizerSettings,
        build_optimizers,
        build_schedules,
        layer_matrices,
        learning_rates,
    )
    from distill.train.step import TrainableStudent
    from students.config import StudentConfig
    from students.model import StudentModel

BERT = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def small() -> nn.Module:
    """Return an embedding, two layers, a projection and a scale."""
    model = nn.Module()
    model.embedding = nn.Embedding(10, 4)
    model.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in "ab")
    model.projection = nn.Linear(4, 2)
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    return model


def student(backbone: str, *, kind: str = "linear") -> nn.Module:
    """A trainable student with two towers."""
    model = StudentModel(
        StudentConfig(
            image={"backbone": backbone, "arguments": {}, "projection": kind},
            text={"config": BERT, "pooling": "mean", "projection": kind, "context_length": 8},
            projection_dim=16,
        )
    )
    return TrainableStudent(model, mean=(0.5,) * 3, std=(0.5,) * 3)


def clip() -> nn.Module:
    parts = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {**parts, "vocab_size": 50, "bos_token_id": 48, "eos_token_id": 49}
    config = CLIPConfig(
        text_config=text,
        vision_config={**parts, "num_hidden_layers": 2, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    return TrainableStudent(CLIPModel(config), mean=(0.5,) * 3, std=(0.5,) * 3)


def settings(optimizer: str, schedule: str = "cosine", **values: Any) -> OptimizerSettings:
    return OptimizerSettings(
        optimizer="muon" if optimizer == "muon" else "adamw",
        learning_rate=0.1,
        muon_learning_rate=0.2,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        warmup_steps=4,
        schedule="constant" if schedule == "constant" else "cosine",
        **values,
    )


def decayed(optimizer: torch.optim.Optimizer) -> dict[float, set[int]]:
    return {
        group["weight_decay"]: {id(weight) for weight in group["params"]}
        for group in optimizer.param_groups
    }


def groups_by_name(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> dict[str, dict[str, Any]]:
    """The one group of each parameter, with the number of its optimizer."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, dict[str, Any]] = {}
    for number, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert names[parameter] not in found
                found[names[parameter]] = {**group, "optimizer": number}
    assert set(found) == set(names.values())
    return found


def test_norms_biases_and_scales_are_not_decayed() -> None:
    model = small()
    (adamw,) = build_optimizers(model, settings("adamw"))
    matrices = {id(weight) for weight in model.parameters() if weight.ndim == 2}
    others = {id(weight) for weight in model.parameters() if weight.ndim < 2}
    assert decayed(adamw) == {0.0: others, 0.05: matrices}


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("levit_128s", "stages.0.blocks.0.attn.attention_biases"),
        ("swinv2_tiny_window8_256", "layers.0.blocks.0.attn.logit_scale"),
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.relative_position_bias_table"),
        ("vit_tiny_patch16_224", "pos_embed"),
        ("vit_tiny_patch16_224", "cls_token"),
    ],
)
def test_biases_scales_and_positions_with_several_dimensions_are_not_decayed(
    backbone: str, name: str
) -> None:
    with torch.device("meta"):
        model = timm.create_model(backbone, num_classes=0)
    assert model.get_parameter(name).ndim > 1
    groups = groups_by_name(model, build_optimizers(model, settings("adamw")))
    assert groups[name]["weight_decay"] == 0


def test_muon_trains_the_matrices_of_layers_and_adamw_the_rest() -> None:
    model = small()
    assert set(layer_matrices(model)) == {"layers.0.0.weight", "layers.1.0.weight"}
    adamw, muon = build_optimizers(model, settings("muon"))
    ours = {id(weight) for group in muon.param_groups for weight in group["params"]}
    rest = {id(weight) for group in adamw.param_groups for weight in group["params"]}
    assert isinstance(muon, torch.optim.Muon)
    assert ours == {id(weight) for weight in layer_matrices(model).values()}
    assert ours | rest == {id(weight) for weight in model.parameters()}
    assert not ours & rest
    assert all(weight.requires_grad for weight in model.parameters())


def test_muon_does_not_train_projections() -> None:
    model = student("test_vit", kind="mlp")
    assert not [name for name in layer_matrices(model) if "projection" in name]
    assert "model.image_tower.backbone.blocks.0.mlp.fc1.weight" in layer_matrices(model)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet", "test_resnet"])
def test_every_parameter_is_in_one_group(
    optimizer: str, layer_decay: float | None, backbone: str
) -> None:
    model = student(backbone)
    rates = {"image_learning_rate": 0.3, "text_learning_rate": None, "layer_decay": layer_decay}
    optimizers = build_optimizers(model, settings(optimizer, **rates))
    groups = groups_by_name(model, optimizers)
    for name, parameter in model.named_parameters():
        left_out = parameter.ndim < 2 or name.endswith((".pos_embed", ".cls_token"))
        assert groups[name]["weight_decay"] == (0.0 if left_out else 0.05), name


def test_each_tower_has_its_learning_rate() -> None:
    model = student("test_resnet")
    rates = {"image_learning_rate": 0.03, "text_learning_rate": 0.4}
    optimizers = build_optimizers(model, settings("adamw", **rates))
    expected = {"image_tower": 0.03, "text_tower": 0.4, "logit_scale": 0.1}
    for name, group in groups_by_name(model, optimizers).items():
        assert group["lr"] == pytest.approx(expected[name.split(".")[1]]), name
    found = learning_rates(optimizers)
    assert found == pytest.approx({"image": 0.03, "text": 0.4, "rest": 0.1})


def test_lower_layers_learn_more_slowly() -> None:
    model = student("test_vit")
    values = {"text_learning_rate": 0.4, "layer_decay": 0.5}
    groups = groups_by_name(model, build_optimizers(model, settings("adamw", **values)))
    rates = {name.removeprefix("model."): group["lr"] for name, group in groups.items()}
    image, text = "image_tower.backbone", "text_tower.encoder"
    # test_vit has six blocks: the projection, these, and the stem below them.
    expected = {
        "image_tower.projection.layers.0.weight": 0.1,
        f"{image}.norm.weight": 0.1 * 0.5,
        f"{image}.blocks.5.mlp.fc2.bias": 0.1 * 0.5,
        f"{image}.blocks.3.attn.qkv.weight": 0.1 * 0.5**3,
        f"{image}.blocks.0.norm1.weight": 0.1 * 0.5**6,
        f"{image}.patch_embed.proj.weight": 0.1 * 0.5**7,
        f"{image}.pos_embed": 0.1 * 0.5**7,
        "text_tower.projection.layers.0.weight": 0.4,
        f"{text}.encoder.layer.2.output.dense.weight": 0.4 * 0.5,
        f"{text}.encoder.layer.0.attention.self.query.bias": 0.4 * 0.5**3,
        f"{text}.embeddings.word_embeddings.weight": 0.4 * 0.5**4,
        f"{text}.embeddings.LayerNorm.bias": 0.4 * 0.5**4,
        "logit_scale": 0.1,
    }
    assert {name: rates[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet", "resnet10t"])
def test_below_the_projection_the_proportions_are_those_of_timm(backbone: str) -> None:
    model = student(backbone)
    groups = groups_by_name(model, build_optimizers(model, settings("adamw", layer_decay=0.7)))
    tower = timm.create_model(backbone, num_classes=0)
    names = {parameter: name for name, parameter in tower.named_parameters()}
    for group in timm.optim.param_groups_layer_decay(tower, layer_decay=0.7):
        for parameter in group["params"]:
            name = names[parameter]
            ours = groups[f"model.image_tower.backbone.{name}"]["lr"]
            assert ours == pytest.approx(0.1 * 0.7 * group["lr_scale"]), name


def test_layers_of_a_transformers_model_are_ordered_by_number() -> None:
    model = clip()
    groups = groups_by_name(model, build_optimizers(model, settings("adamw", layer_decay=0.5)))
    rates = {name.removeprefix("model."): group["lr"] for name, group in groups.items()}
    expected = {
        "visual_projection.weight": 0.1,
        "vision_model.post_layernorm.weight": 0.05,
        "vision_model.encoder.layers.1.mlp.fc1.weight": 0.05,
        "vision_model.encoder.layers.0.mlp.fc1.weight": 0.025,
        "vision_model.pre_layrnorm.weight": 0.0125,
        "vision_model.embeddings.class_embedding": 0.0125,
        "text_projection.weight": 0.1,
        "text_model.final_layer_norm.bias": 0.05,
        "text_model.encoder.layers.0.mlp.fc1.weight": 0.0125,
        "text_model.embeddings.token_embedding.weight": 0.00625,
        "logit_scale": 0.1,
    }
    assert {name: rates[name] for name in expected} == pytest.approx(expected)


def test_muon_keeps_the_proportions_of_learning_rates() -> None:
    model = student("test_vit")
    values = {"image_learning_rate": 0.05, "layer_decay": 0.5}
    adamw = groups_by_name(model, build_optimizers(model, settings("adamw", **values)))
    optimizers = build_optimizers(model, settings("muon", **values))
    muon = groups_by_name(model, optimizers)
    taken = {name for name, group in muon.items() if group["optimizer"] == 1}
    assert taken == set(layer_matrices(model))
    for name, group in muon.items():
        factor = 0.2 / 0.1 if name in taken else 1.0
        assert group["lr"] == pytest.approx(factor * adamw[name]["lr"]), name
        assert group["weight_decay"] == adamw[name]["weight_decay"]
    rates = learning_rates(optimizers)
    assert rates == pytest.approx(
        {"image": 0.05, "text": 0.1, "rest": 0.1, "image_muon": 0.05, "text_muon": 0.1}
    )


def test_cosine_and_constant_after_the_warmup() -> None:
    for kind in ("cosine", "constant"):
        optimizers = build_optimizers(small(), settings("muon", kind))
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


def test_the_schedule_keeps_the_proportions_of_learning_rates() -> None:
    values = settings("adamw", image_learning_rate=0.02, layer_decay=0.5)
    optimizers = build_optimizers(student("test_vit"), values)
    peaks = [group["lr"] for group in optimizers[0].param_groups]
    (schedule,) = build_schedules(optimizers, values, steps=20)
    for _ in range(12):
        optimizers[0].step()
        schedule.step()
    factor = 0.5 * (1 + math.cos(math.pi * 8 / 16))
    now = [group["lr"] for group in optimizers[0].param_groups]
    assert now == pytest.approx([peak * factor for peak in peaks])
