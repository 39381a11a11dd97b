"""Switches for memory and speed do not change what the towers compute."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from transformers import CLIPConfig, CLIPModel, PreTrainedModel

    from students.build import build_towers
    from students.encoder import Student
    from students.model import load_student
    from students.switches import (
        checkpoint_gradients,
        choose_memory_format,
        compile_towers,
        is_convolutional,
    )


def pixels() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def tokens() -> dict[str, Tensor]:
    ids = torch.tensor([[2, 6, 7, 8, 3], [2, 9, 10, 3, 0], [2, 11, 3, 0, 0], [2, 12, 13, 14, 3]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def build(backbone: str, image: dict[str, Any], text: dict[str, Any]) -> Student:
    torch.manual_seed(1)
    image = {**image, "backbone": backbone}
    return build_towers(image=image, text=text, width=24, logit_scale=10.0)


def clip() -> CLIPModel:
    parts = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**parts, "vocab_size": 50, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**parts, "image_size": 64, "patch_size": 16, "attention_dropout": 0.2}
    torch.manual_seed(1)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the gradients of a loss in training mode, dropout included."""
    model.train()
    model.zero_grad()
    torch.manual_seed(7)
    image = model.get_image_features(pixel_values=pixels()).pooler_output
    text = model.get_text_features(**tokens()).pooler_output
    (image.sin().sum() + (text * image).cos().mean()).backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], *, within: float) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        scale = max(float(tensor.abs().max()), 1e-3)
        assert torch.allclose(found[name], tensor, rtol=within, atol=within * scale), name


@pytest.mark.parametrize(
    "backbone", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"]
)
def test_checkpointing_changes_neither_gradients_nor_statistics(
    backbone: str, image: dict[str, Any], text: dict[str, Any]
) -> None:
    plain = build(backbone, image, text).model
    saving = copy.deepcopy(plain)
    checkpoint_gradients(saving)
    assert plain.text_tower.encoder.config.hidden_dropout_prob == 0.1
    for _ in range(2):
        same(gradients(saving), gradients(plain), within=1e-6)
    # Batch norms run twice per step and count the batch once.
    statistics = {name: buffer for name, buffer in plain.named_buffers() if buffer.numel()}
    for name, buffer in saving.named_buffers():
        assert torch.equal(buffer, statistics[name]), name


def test_checkpointing_runs_layers_again(image: dict[str, Any], text: dict[str, Any]) -> None:
    model = build("test_resnet", image, text).model
    calls = {"norm": 0, "layer": 0}

    def count(name: str) -> Any:
        return lambda *_: calls.__setitem__(name, calls[name] + 1)

    model.image_tower.backbone.layer2[0].bn1.register_forward_pre_hook(count("norm"))
    layer = model.text_tower.encoder.encoder.layer[0].attention
    layer.register_forward_pre_hook(count("layer"))
    gradients(model)
    assert calls == {"norm": 1, "layer": 1}
    checkpoint_gradients(model)
    gradients(model)
    assert calls == {"norm": 3, "layer": 3}
    tracked = model.image_tower.backbone.layer2[0].bn1.num_batches_tracked
    assert int(tracked) == 2


def test_checkpointing_of_a_dual_encoder_of_transformers() -> None:
    plain, saving = clip(), clip()
    checkpoint_gradients(saving)
    same(gradients(saving), gradients(plain), within=1e-6)


def test_a_frozen_tower_with_checkpoints_computes_no_gradient(
    image: dict[str, Any], text: dict[str, Any]
) -> None:
    model = build("test_vit", image, text).model
    checkpoint_gradients(model)
    model.text_tower.encoder.requires_grad_(requires_grad=False)
    hidden = model.text_tower(**tokens())[0]
    assert not hidden.requires_grad


def test_a_backbone_without_checkpointing_is_named(
    image: dict[str, Any], text: dict[str, Any]
) -> None:
    model = build("convit_tiny", {**image, "image_size": None}, text).model
    with pytest.raises(ValueError, match=r"train\.gradient_checkpointing: the image tower, ConVit"):
        checkpoint_gradients(model)


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]
)
def test_channels_last_gives_the_same_embeddings(
    backbone: str, image: dict[str, Any], text: dict[str, Any]
) -> None:
    model = build(backbone, image, text).model
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels()).pooler_output
        layout = choose_memory_format(model, wanted=True, device=torch.device("cpu"))
        assert layout is torch.channels_last
        laid_out = pixels().contiguous(memory_format=layout)
        found = model.get_image_features(pixel_values=laid_out).pooler_output
    assert torch.allclose(found, expected, atol=1e-5)
    wide = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)
    layout = choose_memory_format(model, wanted=False, device=torch.device("cpu"))
    assert layout is torch.contiguous_format
    assert all(weight.is_contiguous() for weight in wide)


@pytest.mark.parametrize("device", ["cuda", "cpu", "mps"])
@pytest.mark.parametrize(
    ("backbone", "convolutional"), [("test_resnet", True), ("test_vit", False)]
)
def test_by_default_channels_come_last_for_convolutions_on_cuda_and_cpus(
    device: str,
    backbone: str,
    convolutional: bool,
    image: dict[str, Any],
    text: dict[str, Any],
) -> None:
    model = build(backbone, image, text).model
    assert is_convolutional(model.image_tower.backbone) is convolutional
    last = convolutional and device != "mps"
    expected = torch.channels_last if last else torch.contiguous_format
    assert choose_memory_format(model, wanted=None, device=torch.device(device)) is expected


def test_channels_last_of_a_saved_student(
    image: dict[str, Any], text: dict[str, Any], tmp_path: Path
) -> None:
    student = build("test_resnet", image, text)
    before = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
    choose_memory_format(student.model, wanted=True, device=torch.device("cpu"))
    student.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student").model.state_dict()
    assert all(torch.equal(loaded[name], before[name]) for name in before)


@pytest.mark.slow
def test_compiled_towers_learn_and_save_the_same(
    image: dict[str, Any], text: dict[str, Any], tmp_path: Path
) -> None:
    torch._dynamo.reset()
    still = {**text, "config": {**text["config"], "hidden_dropout_prob": 0.0}}
    still["config"]["attention_probs_dropout_prob"] = 0.0
    plain = build("test_resnet", image, still)
    fast = copy.deepcopy(plain)
    names = list(fast.model.state_dict())
    # Runs all stages of the compiler except the last, which takes minutes.
    compile_towers(fast.model, backend="aot_eager")
    same(gradients(fast.model), gradients(plain.model), within=1e-4)
    assert list(fast.model.state_dict()) == names
    fast.model.eval()
    plain.model.eval()
    with torch.no_grad():
        # Longer texts, and another number of rows.
        ids = torch.arange(4, 25).repeat(2, 1)
        found, expected = (
            model.get_text_features(ids).pooler_output for model in (fast.model, plain.model)
        )
        assert torch.allclose(found, expected, atol=1e-4)
    fast.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student").model
    with torch.no_grad():
        found, expected = (
            model.get_image_features(pixels()[:3]).pooler_output for model in (fast.model, loaded)
        )
    assert torch.allclose(found, expected, atol=1e-4)
