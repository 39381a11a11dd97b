"""Build students that are a dual encoder of transformers, from the fields of a recipe."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BaseImageProcessor,
    CLIPImageProcessorPil,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from students._fields import check_fields, kept_fields, with_token_ids
from students.encoder import Student
from students.hub import find_model
from students.loading import (
    PROCESSOR_FILES,
    assemble,
    find_image_processor,
    find_tokenizer,
    has_image,
    has_text,
    load_config,
    load_model,
    refuse_single,
)
from students.messages import one_line, quiet


def build_hf(
    *,
    model: str | None,
    config: Mapping[str, Any] | str | None,
    pretrained: bool,
    tokenizer: str | None,
    image_processor: str | None,
    logit_scale: float | None = None,
) -> Student:
    """Build a student that is a dual encoder of transformers, such as a ``CLIPModel``.

    Args:
        model: Folder or hub name of the model. Without ``pretrained``, only its configuration is
            used.
        config: Configuration of a model with new weights: its fields with ``model_type``, or a
            JSON file, a folder or a hub name. Token ids that the text tower leaves out are taken
            from the tokenizer.
        pretrained: Whether to load the weights of ``model``.
        tokenizer: Folder or hub name; ``None`` takes the tokenizer of ``model``.
        image_processor: Folder or hub name; ``None`` takes the image processor of ``model``, or
            CLIP's for the image size of the configuration.
        logit_scale: Initial factor for cosine similarities, for a model with new weights.

    Returns:
        The student, in evaluation mode.

    Raises:
        OSError: Weights or other files are missing. The message is one line.
        ValueError: The fields contradict each other, or the model is not a dual encoder. The
            message is one line.
    """
    if pretrained:
        if model is None or config is not None:
            raise ValueError(
                "student.pretrained: weights come from student.model alone; give student.model "
                "without student.config, or set student.pretrained: false"
            )
        folder = find_model(model, field="student.model")
        built = load_model(folder, name=f"student.model: {model}")
        return _with_parts(built, folder, tokenizer, image_processor)
    source = None
    if model is not None:
        source = find_model(model, field="student.model", weights=False)
    tokens = find_tokenizer(tokenizer, source, field="student.tokenizer")
    built = _new_model(_read_fields(config, source), tokens, logit_scale)
    return _with_parts(built, source, tokens, image_processor)


def _with_parts(
    model: PreTrainedModel,
    folder: Path | None,
    tokenizer: PreTrainedTokenizerBase | str | None,
    image_processor: str | None,
) -> Student:
    if not isinstance(tokenizer, PreTrainedTokenizerBase) and has_text(model.config):
        tokenizer = find_tokenizer(tokenizer, folder, field="student.tokenizer")
    processor = None
    if has_image(model.config):
        saved = folder is not None and any((folder / name).is_file() for name in PROCESSOR_FILES)
        if image_processor is None and not saved:
            processor = _clip_processor(model.config)
        else:
            field = "student.image_processor"
            processor = find_image_processor(image_processor, folder, field=field)
    tokens = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None
    return assemble(model, tokens, processor, name="student")


def _new_model(
    fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase, logit_scale: float | None
) -> PreTrainedModel:
    text = fields.get("text_config")
    if isinstance(text, Mapping):
        fields = {**fields, "text_config": with_token_ids(text, tokenizer)}
    if logit_scale is not None:
        fields = {**fields, "logit_scale_init_value": math.log(logit_scale)}
    with one_line("student.config: it does not describe a model"), quiet():
        config = AutoConfig.for_model(**fields)
        model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    refuse_single(model, name="student.config")
    if logit_scale is not None:
        _set_logit_scale(model, logit_scale)
    return model.eval()


@torch.no_grad()
def _set_logit_scale(model: PreTrainedModel, logit_scale: float) -> None:
    # Some classes ignore logit_scale_init_value.
    if isinstance(parameter := getattr(model, "logit_scale", None), torch.nn.Parameter):
        parameter.fill_(math.log(logit_scale))


def _clip_processor(config: PreTrainedConfig) -> BaseImageProcessor:
    size = getattr(getattr(config, "vision_config", None), "image_size", 0)
    if not size or not isinstance(size, int):
        raise ValueError(
            "student.image_processor: required, since the config has no vision_config.image_size; "
            "give a folder or a hub name"
        )
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def _read_fields(config: Mapping[str, Any] | str | None, folder: Path | None) -> dict[str, Any]:
    """Return the configuration of a model with new weights, wherever the recipe gives it."""
    if isinstance(config, str) and Path(config).expanduser().is_file():
        with one_line(f"student.config: {config} cannot be read as JSON"):
            config = dict(json.loads(Path(config).expanduser().read_text(encoding="utf-8")))
    if isinstance(config, Mapping):
        return _checked(config)
    if config is not None:
        where = find_model(config, field="student.config", weights=False)
        return kept_fields(load_config(where, name=f"student.config: {config}").to_dict())
    if folder is not None:
        return kept_fields(load_config(folder, name=f"student.model: {folder}").to_dict())
    raise ValueError("student: give student.model or student.config")


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = kept_fields(fields)
    if "model_type" not in kept:
        raise ValueError("student.config.model_type: missing; name a dual encoder such as clip")
    with one_line("student.config.model_type"):
        whole = AutoConfig.for_model(kept["model_type"])
    check_fields(kept, type(whole), where="student.config")
    for name in ("text_config", "vision_config"):
        part, given = getattr(whole, name, None), kept.get(name)
        own_type = isinstance(given, Mapping) and "model_type" in given
        if isinstance(given, Mapping) and isinstance(part, PreTrainedConfig) and not own_type:
            check_fields(given, type(part), where=f"student.config.{name}")
    return kept
