"""Load a dual encoder of transformers, its tokenizer and its image processor from a folder."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BaseImageProcessor,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from students.config import StudentConfig
from students.encoder import Padding, Student
from students.hub import VOCABULARY_FILES, find_model, has_weights
from students.messages import one_line, quiet

# Transformers saves an image processor in a file of its own, or together with the tokenizer.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# These number positions from pad_token_id + 1, so they embed fewer tokens than positions.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "altclip_text_model")
# Context length of models that state none.
_DEFAULT_CONTEXT = 512


def load_parts(folder: Path, *, name: str, dtype: torch.dtype = torch.float32) -> Student:
    """Load model, tokenizer and image processor from a local folder, in evaluation mode.

    Args:
        folder: The folder with ``config.json`` and the other files.
        name: The model's name in messages.
        dtype: The weights are converted to this type.

    Raises:
        OSError: A file is missing or damaged. The message is one line.
        ValueError: The model is not a dual encoder, or its parts do not fit together. The message
            is one line.
    """
    config = load_config(folder, name=name)
    model = load_model(folder, name=name, dtype=dtype)
    tokenizer = _load_tokenizer(folder, name=name) if has_text(config) else None
    processor = load_image_processor(folder, name=name) if has_image(config) else None
    return assemble(model, tokenizer, processor, name=name)


def assemble(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    image_processor: BaseImageProcessor | None,
    *,
    name: str,
) -> Student:
    """Check that the parts of a dual encoder fit, and put them together.

    Args:
        model: The dual encoder.
        tokenizer: Its tokenizer; ``None`` without a text tower.
        image_processor: Its image processor; ``None`` without an image tower.
        name: The model's name in messages.

    Raises:
        ValueError: The tokenizer does not fit the text tower. The message is one line.
    """
    if tokenizer is None:
        return Student(model, None, image_processor, 0, "longest")
    _check_tokenizer(model.config, tokenizer, name=name)
    padding: Padding = "full" if "siglip" in model.config.model_type else "longest"
    length = _context_length(model.config, tokenizer)
    return Student(model, tokenizer, image_processor, length, padding)


def has_image(config: PreTrainedConfig) -> bool:
    """Tell whether a configuration has an image tower."""
    return not isinstance(config, StudentConfig) or config.image is not None


def has_text(config: PreTrainedConfig) -> bool:
    """Tell whether a configuration has a text tower."""
    return not isinstance(config, StudentConfig) or config.text is not None


def load_config(folder: Path, *, name: str) -> PreTrainedConfig:
    """Read the ``config.json`` of a folder.

    Raises:
        OSError: The file is missing or damaged. The message is one line.
        ValueError: The configuration is invalid. The message is one line.
    """
    if not (folder / "config.json").is_file():
        raise OSError(f"{name}: config.json is missing, so there is no model to load")
    with one_line(f"{name}: config.json cannot be read"):
        return AutoConfig.from_pretrained(folder, local_files_only=True)


def load_model(folder: Path, *, name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a dual encoder, and check that its weights are complete.

    Args:
        folder: The folder with the configuration and the weights.
        name: The model's name in messages.
        dtype: The weights are converted to this type.

    Returns:
        The model, in evaluation mode.

    Raises:
        OSError: Weights are missing or damaged. The message is one line.
        ValueError: The model is not a dual encoder. The message is one line.
    """
    if not has_weights(folder):
        raise OSError(f"{name}: model.safetensors is missing; put the weights next to config.json")
    with one_line(f"{name}: the model cannot be loaded"), quiet():
        model, info = AutoModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    refuse_single(model, name=name)
    refuse_missing(info["missing_keys"], name=name)
    loaded: PreTrainedModel = model.eval()
    return loaded


def refuse_single(model: PreTrainedModel, *, name: str) -> None:
    """Refuse a model that does not embed both images and texts.

    Raises:
        ValueError: The model is not a dual encoder. The message is one line.
    """
    for method in ("get_image_features", "get_text_features"):
        if not hasattr(model, method):
            raise ValueError(
                f"{name}: {type(model).__name__} has no {method}, so it is not a dual encoder; "
                "give one such as CLIPModel, SiglipModel or VisionTextDualEncoderModel"
            )


def refuse_missing(keys: Any, *, name: str) -> None:
    """Refuse incomplete weights, since transformers fills in random ones.

    Raises:
        OSError: ``keys``, the missing tensors, is not empty. The message is one line.
    """
    if keys:
        some = ", ".join(sorted(keys)[:3])
        raise OSError(
            f"{name}: the weights lack {len(keys)} of the model's tensors, such as {some}"
        )


def _load_tokenizer(folder: Path, *, name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Raises:
        OSError: The tokenizer is missing or damaged. The message is one line.
        ValueError: The tokenizer is invalid. The message is one line.
    """
    if not any((folder / file).is_file() for file in VOCABULARY_FILES):
        # Otherwise transformers makes a tokenizer with an empty vocabulary.
        raise OSError(f"{name}: tokenizer.json is missing, so there is no tokenizer")
    with one_line(f"{name}: the tokenizer (tokenizer.json) cannot be loaded"), quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_image_processor(folder: Path, *, name: str) -> BaseImageProcessor:
    """Load an image processor, in the variant that uses Pillow.

    Raises:
        OSError: The image processor is missing or damaged. The message is one line.
        ValueError: The image processor is invalid. The message is one line.
    """
    if not any((folder / file).is_file() for file in PROCESSOR_FILES):
        raise OSError(
            f"{name}: preprocessor_config.json is missing, and without it the size and the "
            "normalisation of pictures are unknown; put the model's file next to its config.json"
        )
    what = f"{name}: the image processor (preprocessor_config.json) cannot be loaded"
    with one_line(what), quiet():
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


def find_tokenizer(
    given: str | None, folder: Path | None, *, field: str
) -> PreTrainedTokenizerBase:
    """Load the tokenizer that a recipe names, or else the one in ``folder``.

    Args:
        given: Folder or hub name from the recipe.
        folder: The model's folder, if it has one.
        field: The field of the recipe, for messages.

    Raises:
        OSError: The tokenizer is missing or damaged. The message is one line.
        ValueError: Both ``given`` and ``folder`` are ``None``. The message is one line.
    """
    if given is not None:
        folder = find_model(given, field=field, weights=False)
    if folder is None:
        raise ValueError(f"{field}: required if the model is built from a config")
    return _load_tokenizer(folder, name=f"{field}: {folder}")


def find_image_processor(
    given: str | None, folder: Path | None, *, field: str
) -> BaseImageProcessor:
    """Load the image processor that a recipe names, or else the one in ``folder``.

    Args:
        given: Folder or hub name from the recipe.
        folder: The model's folder, if it has one.
        field: The field of the recipe, for messages.

    Raises:
        OSError: The image processor is missing or damaged. The message is one line.
        ValueError: Both ``given`` and ``folder`` are ``None``. The message is one line.
    """
    if given is not None:
        folder = find_model(given, field=field, weights=False)
    if folder is None:
        raise ValueError(f"{field}: required if the model is built from a config")
    return load_image_processor(folder, name=f"{field}: {folder}")


def _text_config(config: PreTrainedConfig) -> Any:
    """Return the part of a configuration that describes the text tower."""
    if isinstance(config, StudentConfig):
        return BertConfig(**(config.text or {}).get("config", {}))
    return getattr(config, "text_config", config)


def _context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the largest number of tokens that both text tower and tokenizer allow."""
    if isinstance(config, StudentConfig) and config.text is not None:
        return int(config.text["context_length"])
    text = _text_config(config)
    positions = getattr(text, "max_position_embeddings", None) or _DEFAULT_CONTEXT
    if getattr(text, "model_type", "") in _OFFSET_POSITIONS:
        positions -= text.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))


def _check_tokenizer(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, *, name: str
) -> None:
    """Refuse a tokenizer that does not fit the text tower, which fails silently otherwise.

    Raises:
        ValueError: The tokenizer has more tokens than the tower embeds, or no padding token, or
            CLIP would pool a token other than the last. The message is one line.
    """
    text = _text_config(config)
    rows = getattr(text, "vocab_size", None)
    if rows is not None and len(tokenizer) > rows:
        raise ValueError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens but the text tower embeds {rows}"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"{name}: the tokenizer has no pad_token; set one in tokenizer_config.json"
        )
    if getattr(text, "model_type", "") != "clip_text_model":
        return
    pooled, last = text.eos_token_id, tokenizer.eos_token_id
    # With 2, CLIP pools the token with the highest id instead, for its first checkpoints.
    fits = last == max(tokenizer.get_vocab().values()) if pooled == 2 else last == pooled
    if not fits:
        raise ValueError(
            f"{name}: text_config.eos_token_id is {pooled}, so CLIP pools a token other than the "
            f"tokenizer's end token, which is {last}"
        )
