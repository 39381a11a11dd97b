"""Saving and loading keeps all parameters, all buffers and the embeddings."""

from pathlib import Path
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from transformers import AutoConfig, AutoModel

    from students.build import build_towers
    from students.config import StudentConfig
    from students.encoder import embed_images, embed_texts, tokenize
    from students.model import StudentModel, load_student

# Some backbones have buffers that no file stores. If loading loses them, efficientvit, levit and
# swin fail, and rotary embeddings give NaN.
BACKBONES: dict[str, dict[str, Any]] = {
    "mobilenetv4_conv_small": {},
    "fastvit_t8": {},
    "vit_tiny_patch16_224": {},
    "efficientvit_m0": {},
    "resnet18": {},
    "swin_tiny_patch4_window7_224": {"depths": [2, 2, 2, 2]},
    "levit_128s": {},
    "vit_small_patch16_rope_224": {"depth": 4},
}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def check_round_trip(backbone: str, text: dict[str, Any], folder: Path) -> None:
    image = {"backbone": backbone, "pretrained": False, "arguments": BACKBONES[backbone]}
    student = build_towers(image=image, text=text, width=24, logit_scale=10.0)
    student.save(folder)
    side = student.image_processor.crop_size["height"]
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    tokens = tokenize(student.tokenizer, ["a red cat", "dog"], context_length=16, padding="longest")
    with torch.no_grad():
        image_before, text_before = (
            embed_images(student.model, pixels),
            embed_texts(student.model, tokens),
        )
    assert torch.isfinite(image_before).all()
    before = tensors(student.model)
    loaded = (
        StudentModel.from_pretrained(folder),
        AutoModel.from_pretrained(folder),
        load_student(folder).model,
    )
    for model in loaded:
        assert type(model) is StudentModel
        assert not model.training
        after = tensors(model)
        assert after.keys() == before.keys()
        assert [name for name in before if not torch.equal(before[name], after[name])] == []
        assert [name for name in before if before[name].dtype != after[name].dtype] == []
        with torch.no_grad():
            assert (embed_images(model, pixels) - image_before).abs().max() <= 1e-5
            assert (embed_texts(model, tokens) - text_before).abs().max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_saving_and_loading_is_lossless(
    backbone: str, text: dict[str, Any], tmp_path: Path
) -> None:
    check_round_trip(backbone, text, tmp_path)


def test_saving_and_loading_keeps_buffers_that_no_file_stores(
    text: dict[str, Any], tmp_path: Path
) -> None:
    check_round_trip("levit_128s", text, tmp_path)


def test_a_backbone_that_shares_layers_is_saved_once(tmp_path: Path) -> None:
    image = {"backbone": "coat_tiny", "pretrained": False}
    student = build_towers(image=image, text=None, width=8, logit_scale=10.0)
    student.save(tmp_path)
    before, after = tensors(student.model), tensors(load_student(tmp_path).model)
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_loading_accepts_a_string_and_keeps_all_settings(
    text: dict[str, Any], image: dict[str, Any], tmp_path: Path
) -> None:
    image["projection"] = text["projection"] = "mlp"
    text["pooling"] = "cls"
    built = build_towers(image=image, text=text, width=24, logit_scale=10.0)
    built.save(tmp_path / "deep" / "student")
    student = load_student(str(tmp_path / "deep" / "student"))
    assert (student.context_length, student.padding, student.width) == (16, "longest", 24)
    assert student.tokenizer.model_max_length == 16
    assert student.model.text_tower.pooling == "cls"
    assert student.model.config.image == {
        "backbone": "test_efficientnet",
        "arguments": {},
        "projection": "mlp",
    }
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "deep" / "student"), StudentConfig)


@pytest.mark.parametrize("missing", ["image", "text"])
def test_a_student_with_one_tower_is_saved_and_loaded(
    missing: str, text: dict[str, Any], image: dict[str, Any], tmp_path: Path
) -> None:
    towers: dict[str, Any] = {"image": image, "text": text, missing: None}
    build_towers(**towers, width=24, logit_scale=10.0).save(tmp_path)
    student = load_student(tmp_path)
    assert student.width == 24
    if missing == "image":
        assert student.image_processor is None
        assert student.model.image_tower is None
        assert student.context_length == 16
        tokens = tokenize(student.tokenizer, ["a cat"], context_length=16, padding="longest")
        assert embed_texts(student.model, tokens).shape == (1, 24)
    else:
        assert student.tokenizer is None
        assert student.model.text_tower is None
        assert student.context_length == 0
        assert embed_images(student.model, torch.zeros(1, 3, 64, 64)).shape == (1, 24)


def test_weights_in_half_precision_are_loaded_as_float32(
    text: dict[str, Any], image: dict[str, Any], tmp_path: Path
) -> None:
    student = build_towers(image=image, text=text, width=24, logit_scale=10.0)
    student.model.half()
    student.save(tmp_path)
    loaded = load_student(tmp_path).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_saving_does_not_depend_on_what_was_tokenized_before(
    text: dict[str, Any], tmp_path: Path
) -> None:
    student = build_towers(image=None, text=text, width=24, logit_scale=10.0)
    student.save(tmp_path / "before")
    tokenize(student.tokenizer, ["a cat"], context_length=9, padding="full")
    student.save(tmp_path / "after")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        before, after = (tmp_path / "before" / name), (tmp_path / "after" / name)
        assert after.read_text() == before.read_text()


def test_missing_weights_are_refused(text: dict[str, Any], tmp_path: Path) -> None:
    build_towers(image=None, text=text, width=24, logit_scale=10.0).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors is missing") as caught:
        load_student(tmp_path)
    assert "\n" not in str(caught.value)


def test_incomplete_weights_are_refused(
    text: dict[str, Any], image: dict[str, Any], tmp_path: Path
) -> None:
    build_towers(image=image, text=text, width=24, logit_scale=10.0).save(tmp_path / "whole")
    build_towers(image=None, text=text, width=24, logit_scale=10.0).save(tmp_path / "text")
    weights = (tmp_path / "text" / "model.safetensors").read_bytes()
    (tmp_path / "whole" / "model.safetensors").write_bytes(weights)
    with pytest.raises(OSError, match=r"lack \d+ of the model's tensors") as caught:
        load_student(tmp_path / "whole")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_files_are_reported_in_one_line(
    damage: str, text: dict[str, Any], tmp_path: Path
) -> None:
    build_towers(image=None, text=text, width=24, logit_scale=10.0).save(tmp_path)
    (tmp_path / damage).write_bytes(b"{broken")
    with pytest.raises((OSError, ValueError)) as caught:
        load_student(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such folder"):
        load_student(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"config\.json is missing"):
        load_student(tmp_path)
