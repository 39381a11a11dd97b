import json

import numpy as np
import pytest

from distill.data.scenes import render_scenes
from export.runtime.errors import DataError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, CLIPProcessor

    from distill.demo.start import (
        WIDTH,
        prepare_start,
        sine_cosine_positions,
        train_tokenizer,
        whitened_components,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return render_scenes(tmp_path_factory.mktemp("scenes"), count=80, seed=0)


@pytest.fixture(scope="module")
def start(table, tmp_path_factory):
    return prepare_start(tmp_path_factory.mktemp("demo") / "start", table=table, seed=0)


def test_the_start_is_a_plain_clip_model(start):
    model = CLIPModel.from_pretrained(start)
    tokenizer = AutoTokenizer.from_pretrained(start)
    processor = AutoImageProcessor.from_pretrained(start, backend="pil")

    tokens = tokenizer(["a red circle", "a small blue star on grey"], padding=True)
    texts = {name: torch.tensor(values) for name, values in tokens.items()}
    pictures = processor(np.zeros((60, 48, 3), np.uint8), return_tensors="pt")
    with torch.no_grad():
        output = model(**texts, **pictures)
    assert output.logits_per_image.shape == (1, 2)
    assert output.logits_per_image.isfinite().all()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert len(tokenizer) == model.config.text_config.vocab_size
    assert CLIPProcessor.from_pretrained(start, backend="pil") is not None


def test_the_end_of_a_text_is_pooled_whatever_follows(start):
    model = CLIPModel.from_pretrained(start).eval()
    tokenizer = AutoTokenizer.from_pretrained(start)
    assert model.config.text_config.eos_token_id == tokenizer.eos_token_id != 2

    alone = tokenizer(["a red circle"], return_tensors="pt")
    beside = tokenizer(
        ["a red circle", "a large white star in front of a grey wall"],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        short = model.get_text_features(**alone).pooler_output
        padded = model.get_text_features(**beside).pooler_output
    assert beside["input_ids"].shape[1] > alone["input_ids"].shape[1]
    torch.testing.assert_close(short[0], padded[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(padded[0], padded[1], atol=1e-2)


def test_a_seed_gives_one_start(table, start, tmp_path):
    again = prepare_start(tmp_path / "again", table=table, seed=0)
    other = prepare_start(tmp_path / "other", table=table, seed=1)

    weights = "model.safetensors"
    assert (start / weights).read_bytes() == (again / weights).read_bytes()
    assert (start / weights).read_bytes() != (other / weights).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


def test_a_start_that_is_there_is_left_as_it_is(table, start):
    before = (start / "model.safetensors").stat().st_mtime_ns
    assert prepare_start(start, table=table, seed=0) == start
    assert (start / "model.safetensors").stat().st_mtime_ns == before


def test_pictures_without_captions_are_refused(tmp_path):
    table = render_scenes(tmp_path / "scenes", count=4, seed=0, captioned=0)
    with pytest.raises(DataError, match="no captions"):
        prepare_start(tmp_path / "start", table=table, seed=0)
    assert not (tmp_path / "start").exists()


def test_components_of_the_patches_are_white():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200, 12, 12, 3)).astype(np.float32)
    pictures = base.repeat(4, axis=1).repeat(4, axis=2)

    weight = whitened_components(pictures)

    patches = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    output = torch.nn.functional.conv2d(patches, weight, stride=8)
    # Blocks of 4 by 4 pixels leave 12 directions with any variance in a patch of 8 by 8.
    covariance = torch.cov(output.permute(1, 0, 2, 3).reshape(WIDTH, -1))
    torch.testing.assert_close(covariance[:12, :12], torch.eye(12), atol=5e-3, rtol=0)
    assert covariance[12:].abs().max() < 1e-3


def test_positions_differ_by_row_and_by_column():
    positions = sine_cosine_positions(6).view(6, 6, WIDTH)

    half = WIDTH // 2
    assert torch.equal(positions[2, 0, :half], positions[2, 5, :half])
    assert torch.equal(positions[0, 3, half:], positions[5, 3, half:])
    flat = positions.view(36, WIDTH)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.5
    torch.testing.assert_close(flat.norm(dim=1), torch.full((36,), (WIDTH / 2) ** 0.5))


def test_every_text_survives_the_tokenizer(tmp_path):
    tokenizer = train_tokenizer(["a red circle", "a blue square"] * 3)

    ids = tokenizer("A Zebra, größer als 日本!")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a zebra, größer als 日本!"
    assert len(tokenizer("a red circle")["input_ids"]) == 5
    tokenizer.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 32
    assert (
        AutoTokenizer.from_pretrained(tmp_path)("A Zebra")["input_ids"]
        == (tokenizer("A Zebra")["input_ids"])
    )
