"""What the doctor examines in models, on embeddings made by hand and on small models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from distill.doctor.finding import Finding
from export.runtime.preprocess import Preprocessing
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import (
        BertTokenizer,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
    )

    from distill.doctor._models import (
        examine_cut,
        examine_embeddings,
        examine_padding,
        examine_statistics,
    )
    from distill.doctor.student import examine_difference
    from distill.doctor.teacher import examine_family, examine_scale
    from distill.evaluate.encoder import StudentEncoder, TeacherEncoder
    from distill.teacher.hf import load_hf_teacher
    from students.loading import load_parts

PREPROCESSING = Preprocessing(
    size=(8, 8),
    resize="square",
    resize_to=None,
    crop=False,
    crop_offset="floor",
    resample="bicubic",
    mean=(0.481, 0.458, 0.408),
    std=(0.269, 0.261, 0.276),
)


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def units(seed: int, count: int, width: int = 16) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(seed).normal(size=(count, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


# --- embeddings


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda values: 3 * values, ", must be 1"),
        (lambda values: 0 * values, ", must be 1"),
        (lambda values: values * np.where(np.arange(16) == 3, np.nan, 1), "not finite numbers"),
        (lambda values: np.repeat(values[:1], len(values), axis=0), "get the same embedding"),
    ],
)
def test_broken_embeddings(change: Any, word: str) -> None:
    (finding,) = examine_embeddings("pictures", change(units(0, 20)), ways="fix it")
    assert finding.level == "wrong"
    assert word in finding.text


def test_sound_embeddings() -> None:
    assert levels(examine_embeddings("pictures", units(0, 20), ways="")) == ["fine"]
    # Rounded to half precision they are 5e-4 off at most.
    half = units(0, 20).astype(np.float16).astype(np.float32)
    assert levels(examine_embeddings("pictures", half, ways="")) == ["fine"]


@pytest.mark.parametrize(
    ("scale", "level"),
    [
        (100.0, []),
        (117.3, []),
        (14.3, []),
        (1.5, ["note"]),
        (float(np.log(2.0)), ["wrong"]),
        (float("inf"), ["wrong"]),
        (float("nan"), ["wrong"]),
        (float(np.exp(14.3)), ["wrong"]),
    ],
)
def test_a_logit_scale_that_is_odd(scale: float, level: list[str]) -> None:
    teacher = cast(Any, SimpleNamespace(logit_scale=scale))
    assert levels(examine_scale("scale", teacher)) == level


# --- mean and std


@pytest.mark.parametrize(
    "preprocessing",
    [
        PREPROCESSING,
        replace(PREPROCESSING, mean=(0.0,) * 3, std=(1.0,) * 3),
        replace(PREPROCESSING, mean=(0.5,) * 3, std=(0.5,) * 3),
        replace(PREPROCESSING, mean=(0.1307,) * 3, std=(0.3081,) * 3),
        # The same, written for levels from 0 to 255.
        replace(PREPROCESSING, mean=(122.8, 116.7, 104.1), std=(68.5, 66.6, 70.3), rescale=1.0),
    ],
)
def test_statistics_that_models_have(preprocessing: Preprocessing) -> None:
    assert levels(examine_statistics("statistics", preprocessing)) == ["fine"]


@pytest.mark.parametrize(
    "preprocessing",
    [
        replace(PREPROCESSING, rescale=1.0),
        replace(PREPROCESSING, rescale=1 / 255**2),
        replace(PREPROCESSING, mean=(122.8, 116.7, 104.1), std=(68.5, 66.6, 70.3)),
        replace(PREPROCESSING, mean=(0.0,) * 3, std=(255.0,) * 3),
    ],
)
def test_statistics_of_another_range(preprocessing: Preprocessing) -> None:
    (finding,) = examine_statistics("statistics", preprocessing)
    assert finding.level == "wrong"
    assert "rescale_factor" in finding.way_out


def test_statistics_that_are_not_those_of_the_weights() -> None:
    imagenet = replace(PREPROCESSING, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    (finding,) = examine_difference("statistics", PREPROCESSING, imagenet)
    assert finding.level == "wrong"
    assert "0.485/0.456/0.406" in finding.text
    rounded = replace(PREPROCESSING, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28), size=(16, 16))
    assert examine_difference("statistics", PREPROCESSING, rounded) == []


@pytest.mark.parametrize("model_type", ["siglip", "siglip2"])
def test_statistics_that_published_models_of_a_type_do_not_have(model_type: str) -> None:
    half = replace(PREPROCESSING, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert examine_family("statistics", half, model_type) == []
    (finding,) = examine_family("statistics", PREPROCESSING, model_type)
    assert finding.level == "note"
    assert "0.5/0.5/0.5" in finding.text


@pytest.mark.parametrize("model_type", ["clip", "chinese_clip", "altclip"])
def test_imagenets_statistics_are_not_those_of_clip(model_type: str) -> None:
    imagenet = replace(PREPROCESSING, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert examine_family("statistics", PREPROCESSING, model_type) == []
    (finding,) = examine_family("statistics", imagenet, model_type)
    assert "0.481/0.458/0.408" in finding.text
    assert "preprocessor_config.json" in finding.way_out


def test_a_teacher_may_have_statistics_of_its_own_pictures() -> None:
    dark = replace(PREPROCESSING, mean=(0.239, 0.2227, 0.2016), std=(0.2657, 0.2306, 0.2309))
    assert examine_family("statistics", dark, "clip") == []


@pytest.mark.parametrize("model_type", [None, "vision-text-dual-encoder"])
def test_a_type_without_statistics_of_its_own_may_have_any(model_type: str | None) -> None:
    assert examine_family("statistics", PREPROCESSING, model_type) == []


# --- captions and context


@pytest.mark.parametrize(
    ("cut", "level"), [(0, "fine"), (1, "fine"), (20, "note"), (25, "note"), (26, "wrong")]
)
def test_captions_that_are_cut(cut: int, level: str) -> None:
    (finding,) = examine_cut("context", cut, 100, 77, ways="shorten them")
    assert finding.level == level
    assert "77 tokens" in finding.text


def test_no_captions_are_not_cut() -> None:
    assert examine_cut("context", 0, 0, 77, ways="") == []


# --- padding

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small SigLIP, which pools the last of 64 places."""
    folder = tmp_path_factory.mktemp("siglip")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    pieces += [f"##{letter}" for letter in LETTERS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    BertTokenizer(vocab=vocabulary, model_input_names=["input_ids"]).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    layers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    layers["intermediate_size"] = 64
    text = {**layers, "vocab_size": len(pieces), "max_position_embeddings": 64}
    config = SiglipConfig(
        text_config=text, vision_config={**layers, "image_size": 32, "patch_size": 8}
    )
    torch.manual_seed(2)
    SiglipModel(config).save_pretrained(folder)
    return folder


def test_a_siglip_that_is_not_padded_to_its_full_length(siglip: Path) -> None:
    student = load_parts(siglip, name="siglip")
    whole, short = (StudentEncoder(replace(student, padding=way)) for way in ("full", "longest"))
    assert levels(examine_padding("padding", whole, text="a dog")) == ["fine"]
    (finding,) = examine_padding("padding", short, text="a dog")
    assert finding.level == "wrong"
    assert "SigLIP" in finding.text


def test_a_siglip_as_a_teacher_is_padded(siglip: Path) -> None:
    teacher = TeacherEncoder(load_hf_teacher(str(siglip)))
    assert levels(examine_padding("padding", teacher, text="a dog")) == ["fine"]
