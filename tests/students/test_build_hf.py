"""Build dual encoders of transformers from weights or from a configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import CLIPModel

    from students.build import build_hf
    from students.encoder import embed_images, embed_texts, logit_scale, tokenize
    from students.model import load_student

CLIP: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 24,
    "text_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 20,
    },
    "vision_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    },
}

SMALL_BERT = {"model_type": "bert", "hidden_size": 36, "num_hidden_layers": 1}


def build(**fields: Any) -> Any:
    defaults = {
        "model": None,
        "config": None,
        "pretrained": False,
        "tokenizer": None,
        "image_processor": None,
    }
    return build_hf(**{**defaults, **fields})


def test_a_clip_model_is_built_from_its_fields(clip_tokenizer_folder: Path, tmp_path: Path) -> None:
    student = build(config=CLIP, tokenizer=str(clip_tokenizer_folder), logit_scale=12.5)
    assert type(student.model) is CLIPModel
    assert not student.model.training
    assert (student.context_length, student.padding, student.width) == (20, "longest", 24)
    assert logit_scale(student.model).item() == pytest.approx(12.5)
    text = student.model.config.text_config
    assert text.vocab_size == len(student.tokenizer)
    assert text.eos_token_id == student.tokenizer.eos_token_id != 2
    assert student.image_processor.size["shortest_edge"] == 32

    student.save(tmp_path)
    loaded = load_student(tmp_path)
    assert type(loaded.model) is CLIPModel
    again = build(model=str(tmp_path), pretrained=True)
    tokens = tokenize(student.tokenizer, ["a cat", "dogs"], context_length=20, padding="longest")
    pixels = torch.randn(2, 3, 32, 32)
    for other in (loaded.model, again.model):
        with torch.no_grad():
            assert torch.equal(embed_texts(other, tokens), embed_texts(student.model, tokens))
            difference = embed_images(other, pixels) - embed_images(student.model, pixels)
        assert difference.abs().max() <= 1e-5


def test_clip_pools_the_token_that_ends_the_text(clip_tokenizer_folder: Path) -> None:
    student = build(config=CLIP, tokenizer=str(clip_tokenizer_folder))
    short, long = (
        tokenize(student.tokenizer, texts, context_length=20, padding="longest")
        for texts in (["cat"], ["cat", "a much longer text"])
    )
    with torch.no_grad():
        alone = embed_texts(student.model, short)[0]
        beside = embed_texts(student.model, long)[0]
        hidden = student.model.get_text_features(**short).last_hidden_state[0, -1]
        expected = student.model.text_projection(hidden)
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone, torch.nn.functional.normalize(expected, dim=0))


def test_pooling_a_token_other_than_the_end_token_is_refused(clip_tokenizer_folder: Path) -> None:
    wrong = {**CLIP, "text_config": {**CLIP["text_config"], "eos_token_id": 7}}
    with pytest.raises(ValueError, match="eos_token_id is 7, so CLIP pools a token other than"):
        build(config=wrong, tokenizer=str(clip_tokenizer_folder))
    # The first checkpoints say 2 and mean the highest id, which is also the end token here.
    first = {**CLIP, "text_config": {**CLIP["text_config"], "eos_token_id": 2}}
    assert build(config=first, tokenizer=str(clip_tokenizer_folder)).context_length == 20


def test_a_configuration_comes_from_a_file_or_a_folder(
    clip_tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(CLIP))
    tokenizer = str(clip_tokenizer_folder)
    student = build(config=str(tmp_path / "clip.json"), tokenizer=tokenizer)
    student.save(tmp_path / "saved")
    alike = build(config=str(tmp_path / "saved"), tokenizer=tokenizer)
    shape = build(model=str(tmp_path / "saved"))
    for other in (alike, shape):
        assert other.model.config.vision_config.patch_size == 8
        weights = [other.model.text_projection.weight, student.model.text_projection.weight]
        assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrained": True}, r"weights come from student\.model alone"),
        ({"pretrained": True, "model": "x", "config": CLIP}, r"student\.model alone"),
        ({}, "student.tokenizer: required"),
        ({"config": CLIP}, r"student\.tokenizer: required"),
        ({"config": {"projection_dim": 3}, "tokenizer": "given"}, "model_type: missing"),
        ({"config": {"model_type": "clipp"}, "tokenizer": "given"}, r"config\.model_type: .*clipp"),
        ({"config": SMALL_BERT, "tokenizer": "given"}, "BertModel has no get_image"),
        ({"config": {**CLIP, "projectoin_dim": 3}, "tokenizer": "given"}, "mean projection_dim"),
        (
            {"config": {**CLIP, "text_config": {"layers": 3}}, "tokenizer": "given"},
            r"student\.config\.text_config\.layers",
        ),
    ],
)
def test_invalid_fields_are_reported_in_one_line(
    fields: dict[str, Any], message: str, clip_tokenizer_folder: Path
) -> None:
    if "tokenizer" in fields:
        fields = {**fields, "tokenizer": str(clip_tokenizer_folder)}
    with pytest.raises(ValueError, match=message) as caught:
        build(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_hub")
def test_a_hub_out_of_reach_names_what_is_missing() -> None:
    with pytest.raises(OSError, match=r"missing: config\.json, model\.safetensors") as caught:
        build(model="openai/clip-vit-large-patch14", pretrained=True)
    assert "give the local path as student.model" in str(caught.value)
    assert "\n" not in str(caught.value)
