"""A student has the interface of CLIPModel: features, similarities, loss and scale."""

import math
from typing import Any

import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from students.build import build_towers
    from students.config import StudentConfig
    from students.encoder import (
        Student,
        clamp_logit_scale,
        embed_images,
        embed_texts,
        logit_bias,
        logit_scale,
        raw_logit_scale,
        tokenize,
    )
    from students.model import StudentModel

TEXTS = ["a red cat", "the large blue star on dark", "dog"]


@pytest.fixture
def student(image: dict[str, Any], text: dict[str, Any]) -> Student:
    torch.manual_seed(0)
    return build_towers(image=image, text=text, width=24, logit_scale=14.2857)


@pytest.fixture
def inputs(student: Student) -> dict[str, torch.Tensor]:
    tokens = tokenize(student.tokenizer, TEXTS, context_length=16, padding="longest")
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"pixel_values": pixels, **tokens}


def test_forward_compares_normalised_features(
    student: Student, inputs: dict[str, torch.Tensor]
) -> None:
    model = student.model
    with torch.no_grad():
        output = model(**inputs, return_loss=True)
        image = model.get_image_features(inputs["pixel_values"]).pooler_output
        text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    image, text = image.double().numpy(), text.double().numpy()
    assert not np.allclose(np.linalg.norm(image, axis=1), 1)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    logits = 14.2857 * image @ text.T
    np.testing.assert_allclose(output.image_embeds, image, atol=1e-6)
    np.testing.assert_allclose(output.text_embeds, text, atol=1e-6)
    np.testing.assert_allclose(output.logits_per_image, logits, atol=1e-4)
    np.testing.assert_allclose(output.logits_per_text, logits.T, atol=1e-4)
    rows = [np.log(np.exp(some).sum(axis=1)) - np.diag(some) for some in (logits, logits.T)]
    assert output.loss.item() == pytest.approx(np.mean(rows), abs=1e-5)
    np.testing.assert_allclose(
        embed_images(model, inputs["pixel_values"]).detach(), image, atol=1e-6
    )
    assert output["text_embeds"] is output.text_embeds
    assert output.text_model_output.last_hidden_state.shape == (
        3,
        *inputs["input_ids"].shape[1:],
        32,
    )


def test_forward_with_one_input_embeds_only_that(
    student: Student, inputs: dict[str, torch.Tensor]
) -> None:
    output = student.model(pixel_values=inputs["pixel_values"])
    assert output.image_embeds.shape == (3, 24)
    assert output.text_embeds is None
    assert output.logits_per_image is None
    assert output.loss is None


def test_a_text_without_mask_is_read_whole(student: Student) -> None:
    tokens = tokenize(student.tokenizer, ["a red cat"], context_length=16, padding="longest")
    with torch.no_grad():
        masked = student.model.get_text_features(**tokens).pooler_output
        bare = student.model.get_text_features(tokens["input_ids"]).pooler_output
    assert torch.equal(masked, bare)


def test_both_towers_and_the_scale_get_gradients(
    student: Student, inputs: dict[str, torch.Tensor]
) -> None:
    student.model(**inputs, return_loss=True).loss.backward()
    without = [name for name, p in student.model.named_parameters() if p.grad is None]
    assert without == []


def test_embeddings_are_normalised_in_float32(student: Student) -> None:
    tokens = tokenize(student.tokenizer, TEXTS, context_length=16, padding="longest")
    embedded = embed_texts(student.model.half(), tokens)
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))


def test_the_scale_stays_at_most_100(student: Student, inputs: dict[str, torch.Tensor]) -> None:
    model = student.model
    assert logit_scale(model).item() == pytest.approx(14.2857, rel=1e-6)
    assert logit_bias(model) is None
    with torch.no_grad():
        model.logit_scale.fill_(math.log(250))
    assert raw_logit_scale(model).item() == pytest.approx(250, rel=1e-5)
    assert logit_scale(model).item() == 100
    with torch.no_grad():
        assert model(**inputs).logits_per_image.abs().max() <= 100 * (1 + 1e-6)
    clamp_logit_scale(model)
    assert raw_logit_scale(model).item() == pytest.approx(100, rel=1e-6)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(3))
    clamp_logit_scale(model)
    assert raw_logit_scale(model).item() == pytest.approx(3, rel=1e-6)


def test_tokens_are_cut_and_padded(student: Student) -> None:
    tokens = tokenize(student.tokenizer, ["a " * 40, "cat"], context_length=16, padding="longest")
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert tokens["input_ids"].shape == (2, 16)
    assert tokens["attention_mask"].sum(dim=1).tolist() == [16, 3]
    assert tokens["input_ids"][0, -1] == student.tokenizer.sep_token_id
    short = tokenize(student.tokenizer, ["a cat", "cat"], context_length=16, padding="longest")
    assert short["input_ids"].shape == (2, 4)
    full = tokenize(student.tokenizer, ["a cat", "cat"], context_length=16, padding="full")
    assert full["input_ids"].shape == (2, 16)
    assert full["input_ids"].dtype == full["attention_mask"].dtype == torch.int64


def test_a_missing_tower_is_named(
    image: dict[str, Any], text: dict[str, Any], inputs: dict[str, torch.Tensor]
) -> None:
    blind = build_towers(image=None, text=text, width=24, logit_scale=10.0)
    with pytest.raises(ValueError, match="no image tower"):
        blind.model.get_image_features(inputs["pixel_values"])
    deaf = build_towers(image=image, text=None, width=24, logit_scale=10.0)
    with pytest.raises(ValueError, match="no text tower"):
        deaf.model(**inputs)
    with pytest.raises(ValueError, match="neither"):
        StudentModel(StudentConfig())
