"""Build students from the fields of a recipe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from students._build_hf import build_hf
from students._fields import check_fields, kept_fields, with_token_ids
from students.backbone import (
    backbone_arguments,
    check_name,
    create_image_tower,
    find_backbone_weights,
    image_processor_for,
    load_backbone,
)
from students.config import StudentConfig
from students.encoder import Student
from students.hub import find_model
from students.loading import assemble, find_tokenizer, load_config, refuse_missing
from students.messages import one_line, quiet
from students.model import StudentModel
from students.towers import TextTower

__all__ = ["build_hf", "build_towers"]


def build_towers(
    *,
    image: Mapping[str, Any] | None,
    text: Mapping[str, Any] | None,
    width: int,
    logit_scale: float,
) -> Student:
    """Build a ``StudentModel`` from a timm backbone and a BERT.

    All files are found before anything is built.

    Args:
        image: ``student.image`` of a recipe: ``backbone``, ``pretrained``, ``weights``,
            ``arguments``, ``image_size`` and ``projection``. ``None`` builds no image tower.
        text: ``student.text`` of a recipe: ``model``, ``config``, ``tokenizer``, ``pretrained``,
            ``pooling``, ``projection``, ``context_length`` and ``keep_every``. ``None`` builds no
            text tower.
        width: Width of the embeddings.
        logit_scale: Initial factor for cosine similarities.

    Returns:
        The student, in evaluation mode.

    Raises:
        OSError: Weights or other files are missing. The message is one line.
        ValueError: A field has an invalid value. The message is one line.

    Examples:
        >>> from students.build import build_towers
        >>> image = {"backbone": "mobilenetv4_conv_small", "pretrained": False}
        >>> student = build_towers(image=image, text=None, width=256, logit_scale=14.3)
        >>> student.save("mobilenet")
    """
    seeing = None if image is None else _plan_image(image)
    reading = None if text is None else _plan_text(text)
    if seeing is not None:
        # Try this tower alone first, to report what timm rejects in one line.
        create_image_tower(seeing.entry, width=width, size=seeing.size)
    config = StudentConfig(
        image=None if seeing is None else seeing.entry,
        text=None if reading is None else reading.entry,
        projection_dim=width,
        logit_scale_init_value=math.log(logit_scale),
    )
    with one_line("student: the towers cannot be built"):
        model = StudentModel(config).eval()
    processor = None
    if seeing is not None and model.image_tower is not None:
        backbone = model.image_tower.backbone
        processor = image_processor_for(backbone, seeing.size)
        if seeing.weights is not None:
            load_backbone(backbone, seeing.entry, seeing.weights)
    if reading is not None and model.text_tower is not None and reading.weights is not None:
        _load_encoder(model.text_tower, reading.weights, every=reading.every)
    tokenizer = None if reading is None else reading.tokenizer
    return assemble(model, tokenizer, processor, name="student.text")


@dataclass(frozen=True)
class _ImagePlan:
    """The entry ``image`` of a configuration, the side of its pictures and its weights."""

    entry: dict[str, Any]
    size: int | None
    weights: Path | None


@dataclass(frozen=True)
class _TextPlan:
    """The entry ``text`` of a configuration, its tokenizer and the folder with its weights.

    The tower keeps the first layer of the weights, and every ``every``-th after it.
    """

    entry: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    weights: Path | None
    every: int


def _plan_image(image: Mapping[str, Any]) -> _ImagePlan:
    backbone, pretrained = image["backbone"], image.get("pretrained", True)
    check_name(backbone)
    if image.get("weights") is not None and not pretrained:
        raise ValueError("student.image.weights: set student.image.pretrained: true to load them")
    given = image.get("arguments") or {}
    entry = {
        "backbone": backbone,
        "arguments": backbone_arguments(backbone, given, image.get("image_size")),
        "projection": image.get("projection", "linear"),
    }
    size = image.get("image_size") or given.get("img_size")
    weights = find_backbone_weights(backbone, image.get("weights")) if pretrained else None
    return _ImagePlan(entry, size, weights)


def _plan_text(text: Mapping[str, Any]) -> _TextPlan:
    model, fields, pretrained = text.get("model"), text.get("config"), text.get("pretrained", True)
    every = text.get("keep_every", 1)
    if fields is not None and every != 1:
        raise ValueError(
            f"student.text.keep_every: found {every} together with student.text.config; set "
            "student.text.config.num_hidden_layers instead, and keep_every to 1"
        )
    if fields is not None and pretrained:
        raise ValueError(
            "student.text.pretrained: a tower built from student.text.config has no weights; set "
            "student.text.pretrained: false, or remove the config"
        )
    if fields is None and model is None:
        raise ValueError("student.text: give student.text.model or student.text.config")
    folder = None
    if fields is None:
        folder = find_model(str(model), field="student.text.model", weights=pretrained)
    elif text.get("tokenizer") is None and model is not None:
        folder = find_model(model, field="student.text.tokenizer", weights=False)
    tokenizer = find_tokenizer(text.get("tokenizer"), folder, field="student.text.tokenizer")
    if fields is None and folder is not None:
        config = load_config(folder, name=f"student.text.model: {model}")
        if config.model_type != "bert":
            raise ValueError(
                f"student.text.model: {model} is of type {config.model_type}; a text tower must be "
                "of type bert"
            )
    else:
        config = _config_from(dict(fields or {}), tokenizer)
    length = text.get("context_length", 64)
    if length > config.max_position_embeddings:
        raise ValueError(
            f"student.text.context_length: {length} is more than the "
            f"{config.max_position_embeddings} positions of the text tower"
        )
    tokenizer.model_max_length = length
    if not 1 <= every <= config.num_hidden_layers:
        raise ValueError(
            f"student.text.keep_every: found {every}, must be from 1 to the "
            f"{config.num_hidden_layers} layers of {model}"
        )
    layers = len(range(0, config.num_hidden_layers, every))
    entry = {
        "config": {**kept_fields(config.to_dict()), "num_hidden_layers": layers},
        "pooling": text.get("pooling", "mean"),
        "projection": text.get("projection", "linear"),
        "context_length": length,
    }
    return _TextPlan(entry, tokenizer, folder if pretrained else None, every)


def _config_from(fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> BertConfig:
    check_fields(fields, BertConfig, where="student.text.config")
    with one_line("student.text.config: it does not describe a BERT"):
        return BertConfig(**with_token_ids(fields, tokenizer))


def _load_encoder(tower: TextTower, folder: Path, *, every: int) -> None:
    with one_line(f"student.text.model: {folder} cannot be loaded"), quiet():
        encoder, info = BertModel.from_pretrained(
            folder,
            add_pooling_layer=False,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    refuse_missing(info["missing_keys"], name=f"student.text.model: {folder}")
    encoder.encoder.layer = encoder.encoder.layer[::every]
    tower.encoder.load_state_dict(encoder.state_dict())
