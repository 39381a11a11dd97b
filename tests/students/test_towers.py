"""Widths, pooling, projections and initial weights of the towers."""

from typing import Any

import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import timm
    import torch

    from students.build import build_towers
    from students.encoder import tokenize
    from students.towers import ImageTower, Projection, TextTower, pool


@pytest.mark.parametrize(
    ("backbone", "width"),
    [
        ("mobilenetv4_conv_small", 1280),
        ("fastvit_t8", 768),
        ("vit_tiny_patch16_224", 192),
        ("efficientvit_m0", 192),
        ("resnet18", 512),
    ],
)
def test_an_image_tower_is_as_wide_as_the_input_of_the_classifier(
    backbone: str, width: int
) -> None:
    # The expected widths are the inputs of the published classifiers.
    assert ImageTower({"backbone": backbone}, 8).width == width


def test_an_image_tower_is_the_backbone_then_the_projection() -> None:
    torch.manual_seed(0)
    tower = ImageTower({"backbone": "test_vit", "arguments": {"img_size": 32}}, 8).eval()
    whole = timm.create_model("test_vit", num_classes=5, img_size=32).eval()
    whole.load_state_dict(tower.backbone.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 32, 32)
    before_classifier = whole.forward_head(whole.forward_features(pixels), pre_logits=True)
    expected = before_classifier @ tower.projection.layers[0].weight.T
    torch.testing.assert_close(tower(pixels), expected)


@pytest.mark.parametrize("kind", ["mean", "cls"])
def test_pooling_leaves_masked_tokens_out(kind: str) -> None:
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(3, 4, 5)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    rows = []
    for vectors, kept in zip(hidden, mask.astype(bool), strict=True):
        rows.append(vectors[kept].mean(axis=0) if kind == "mean" else vectors[kept][0])
    pooled = pool(torch.from_numpy(hidden), torch.from_numpy(mask), kind)
    np.testing.assert_allclose(pooled.numpy(), np.stack(rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_does_not_change_embeddings(pooling: str, text: dict[str, Any]) -> None:
    text["pooling"] = pooling
    student = build_towers(image=None, text=text, width=24, logit_scale=10.0)
    short = tokenize(student.tokenizer, ["a red cat"], context_length=16, padding="longest")
    padded = tokenize(student.tokenizer, ["a red cat"], context_length=16, padding="full")
    assert padded["input_ids"].shape == (1, 16)
    with torch.no_grad():
        one = student.model.get_text_features(**short).pooler_output
        other = student.model.get_text_features(**padded).pooler_output
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_projections_have_one_layer_or_two() -> None:
    assert [tuple(weight.shape) for weight in Projection("linear", 6, 4).parameters()] == [(4, 6)]
    mlp = Projection("mlp", 6, 4)
    assert [tuple(weight.shape) for weight in mlp.parameters()] == [(6, 6), (6,), (4, 6)]
    x = torch.randn(3, 6)
    first, _, last = mlp.layers
    torch.testing.assert_close(mlp(x), last(torch.nn.functional.gelu(first(x))))


def test_unknown_projections_and_poolings_are_refused() -> None:
    with pytest.raises(ValueError, match="projection: found 'deep'; allowed are linear, mlp"):
        Projection("deep", 6, 4)
    with pytest.raises(ValueError, match="pooling: found 'max'; allowed are mean, cls"):
        TextTower({"config": {}, "pooling": "max"}, 4)


def test_new_weights_are_initialised_by_timm(image: dict[str, Any]) -> None:
    # Without care, transformers draws all of them from one narrow normal distribution.
    student = build_towers(image=image, text=None, width=24, logit_scale=10.0)
    spread = student.model.image_tower.backbone.conv_stem.weight.std().item()
    torch.manual_seed(0)
    expected = timm.create_model("test_efficientnet").conv_stem.weight.std().item()
    assert spread == pytest.approx(expected, rel=0.1)
    assert spread > 2 * student.model.config.initializer_range
    projection = student.model.image_tower.projection.layers[0].weight
    assert projection.std().item() == pytest.approx(256**-0.5, rel=0.05)
