"""The zero-shot pipeline of transformers runs a student."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import pipeline

    from students.build import build_hf, build_towers
    from students.encoder import Student, embed_images, embed_texts, logit_scale, tokenize
    from students.model import load_student

LABELS = ["red circle", "blue star", "large dog"]
CLIP = {
    "model_type": "clip",
    "projection_dim": 24,
    "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "vision_config": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
}


def picture() -> Image.Image:
    generator = np.random.default_rng(2)
    return Image.fromarray(generator.integers(0, 256, size=(70, 90, 3), dtype=np.uint8))


def expected_scores(student: Student) -> dict[str, float]:
    texts = [f"a photo of the {label}" for label in LABELS]
    tokens = tokenize(
        student.tokenizer, texts, context_length=student.context_length, padding=student.padding
    )
    pixels = student.image_processor(picture(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        similarities = embed_images(student.model, pixels) @ embed_texts(student.model, tokens).T
        scores = (logit_scale(student.model) * similarities[0]).softmax(dim=0)
    return dict(zip(LABELS, scores.tolist(), strict=True))


def check(student: Student, complaints: pytest.LogCaptureFixture, **parts: Any) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(complaints.handler)
    try:
        classify = pipeline("zero-shot-image-classification", **parts)
        found = classify(
            picture(), candidate_labels=LABELS, hypothesis_template="a photo of the {}"
        )
    finally:
        logger.removeHandler(complaints.handler)
    assert [record.getMessage() for record in complaints.records] == []
    assert [entry["score"] for entry in found] == sorted(
        (entry["score"] for entry in found), reverse=True
    )
    scores = {entry["label"]: entry["score"] for entry in found}
    assert scores == pytest.approx(expected_scores(student), abs=1e-5)


def test_a_student_with_two_towers_classifies(
    image: dict[str, Any],
    text: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    build_towers(image=image, text=text, width=24, logit_scale=60.0).save(tmp_path)
    student = load_student(tmp_path)
    parts = {"tokenizer": student.tokenizer, "image_processor": student.image_processor}
    check(student, caplog, model=student.model, **parts)
    check(student, caplog, model=str(tmp_path), **parts)
    check(
        student,
        caplog,
        model=str(tmp_path),
        tokenizer=str(tmp_path),
        image_processor=student.image_processor,
    )


def test_a_dual_encoder_of_transformers_classifies(
    clip_tokenizer_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_hf(
        model=None,
        config=CLIP,
        pretrained=False,
        tokenizer=str(clip_tokenizer_folder),
        image_processor=None,
        logit_scale=60.0,
    ).save(tmp_path)
    student = load_student(tmp_path)
    check(
        student,
        caplog,
        model=student.model,
        tokenizer=student.tokenizer,
        image_processor=student.image_processor,
    )
