"""Tell towers and projections apart by name, in students and in models of transformers."""

from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import timm
    from transformers import CLIPConfig, CLIPModel, PreTrainedModel, SiglipConfig, SiglipModel

    from students.build import build_towers
    from students.parts import backbone_of, is_projection, tower_of

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def clip() -> CLIPModel:
    return CLIPModel(
        CLIPConfig(
            text_config={**SMALL, "vocab_size": 50, "bos_token_id": 48, "eos_token_id": 49},
            vision_config={**SMALL, "image_size": 32, "patch_size": 16},
            projection_dim=16,
        )
    )


def siglip() -> SiglipModel:
    text = {**SMALL, "vocab_size": 50, "bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 1}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))


def names(model: PreTrainedModel, tower: str | None, *, projection: bool) -> set[str]:
    return {
        name
        for name, _ in model.named_parameters()
        if tower_of(name) == tower and is_projection(name) == projection
    }


def test_a_student_with_two_towers(image: dict[str, Any], text: dict[str, Any]) -> None:
    model = build_towers(image=image, text=text, width=24, logit_scale=10.0).model
    backbone = timm.create_model("test_efficientnet", num_classes=0)
    expected = {f"image_tower.backbone.{name}" for name, _ in backbone.named_parameters()}
    assert names(model, "image", projection=False) == expected
    assert names(model, "image", projection=True) == {"image_tower.projection.layers.0.weight"}
    assert names(model, "text", projection=True) == {"text_tower.projection.layers.0.weight"}
    assert all(
        name.startswith("text_tower.encoder") for name in names(model, "text", projection=False)
    )
    assert names(model, None, projection=False) == {"logit_scale"}
    assert backbone_of(model, "image") is model.image_tower.backbone
    assert backbone_of(model, "text") is model.text_tower.encoder


def test_a_student_with_one_tower_lacks_the_other(text: dict[str, Any]) -> None:
    model = build_towers(image=None, text=text, width=24, logit_scale=10.0).model
    assert backbone_of(model, "image") is None


@pytest.mark.parametrize("build", [clip, siglip])
def test_dual_encoders_of_transformers(build: Any) -> None:
    model = build()
    assert backbone_of(model, "image") is model.vision_model
    assert backbone_of(model, "text") is model.text_model
    ends = {"visual_projection.weight", "text_projection.weight"} if build is clip else set()
    found = names(model, "image", projection=True) | names(model, "text", projection=True)
    assert found == ends
    assert names(model, None, projection=False) <= {"logit_scale", "logit_bias"}
    # The prefix of the wrapper in training changes nothing.
    assert tower_of("model.vision_model.encoder.layers.0.mlp.fc1.weight") == "image"
    assert not is_projection("model.vision_model.encoder.layers.0.self_attn.q_proj.weight")
    assert is_projection("model.visual_projection.weight")
