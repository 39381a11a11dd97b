"""Tokenize and embed with any dual encoder of transformers, students included."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from students.messages import quiet

# CLIP's own limit (Radford et al. 2021, section 2.5).
MAX_LOGIT_SCALE = 100.0

Padding = Literal["longest", "full"]


@dataclass(frozen=True)
class Student:
    """A dual encoder together with its tokenizer and its image processor.

    Attributes:
        model: A ``StudentModel`` or any other dual encoder of transformers.
        tokenizer: Turns texts into tokens; ``None`` without a text tower.
        image_processor: Turns pictures into ``pixel_values``; ``None`` without an image tower.
        context_length: The largest number of tokens in a text; 0 without a text tower.
        padding: ``"longest"`` pads texts to the longest of their batch. ``"full"`` always pads
            to ``context_length``, for models such as SigLIP that pool a fixed position.

    Examples:
        >>> from students.encoder import embed_texts, tokenize
        >>> from students.model import load_student
        >>> student = load_student("runs/mine/student")
        >>> tokens = tokenize(
        ...     student.tokenizer,
        ...     ["a photo of a dog", "a photo of a cat"],
        ...     context_length=student.context_length,
        ...     padding=student.padding,
        ... )
        >>> embed_texts(student.model, tokens).shape == (2, student.width)
        True
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    image_processor: BaseImageProcessor | None
    context_length: int
    padding: Padding

    @property
    def width(self) -> int:
        """Width ``D`` of the embeddings."""
        if self.tokenizer is None:
            return int(self.model.config.projection_dim)
        tokens = tokenize(
            self.tokenizer, ["a"], context_length=self.context_length, padding=self.padding
        )
        with torch.no_grad():
            placed = {key: ids.to(self.model.device) for key, ids in tokens.items()}
            return embed_texts(self.model, placed).shape[1]

    def save(self, folder: str | Path) -> None:
        """Save model, tokenizer and image processor in a folder that ``load_student`` reads.

        Args:
            folder: Created if it is missing.
        """
        with quiet():
            self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            # Otherwise the padding and truncation of the last call are saved too.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
            self.tokenizer.save_pretrained(folder)
        if self.image_processor is not None:
            self.image_processor.save_pretrained(folder)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    context_length: int,
    padding: Padding,
) -> dict[str, Tensor]:
    """Turn texts into the tokens that ``embed_texts`` takes.

    If the tokenizer declares no attention mask, its model attends to padding as well. The mask
    is then all ones.

    Args:
        tokenizer: The dual encoder's tokenizer.
        texts: ``N`` texts.
        context_length: Longer texts are cut to this number of tokens.
        padding: Pad to the ``"longest"`` text, or to the ``"full"`` context length.

    Returns:
        ``input_ids`` and ``attention_mask``, both int64 ``[N, L]``.
    """
    encoded = tokenizer(
        encodable(texts),
        padding="max_length" if padding == "full" else "longest",
        truncation=True,
        max_length=context_length,
        return_attention_mask=True,
        return_tensors="pt",
    )
    input_ids, attention_mask = encoded["input_ids"], encoded["attention_mask"]
    if "attention_mask" not in tokenizer.model_input_names:
        attention_mask = torch.ones_like(attention_mask)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def encodable(texts: Sequence[str]) -> list[str]:
    """Return the texts with ``?`` for each lone surrogate, since tokenizers reject those."""
    return [text.encode("utf-8", "replace").decode() for text in texts]


def embed_images(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Embed pictures with the image tower of a dual encoder.

    Args:
        model: The dual encoder.
        pixel_values: Preprocessed pictures ``[N, 3, H, W]``, as the image processor returns them.

    Returns:
        L2-normalised embeddings, float32 ``[N, D]``.
    """
    return _normalised(model.get_image_features(pixel_values=pixel_values.to(model.dtype)))


def embed_texts(model: PreTrainedModel, tokens: Mapping[str, Tensor]) -> Tensor:
    """Embed texts with the text tower of a dual encoder.

    Args:
        model: The dual encoder.
        tokens: ``input_ids`` and ``attention_mask``, int64 ``[N, L]``, as ``tokenize`` returns
            them.

    Returns:
        L2-normalised embeddings, float32 ``[N, D]``.
    """
    return _normalised(model.get_text_features(**tokens))


def logit_scale(model: PreTrainedModel) -> Tensor:
    """Return the factor that cosine similarities are multiplied by, clamped to 100.

    Returns:
        A float32 scalar that carries a gradient.

    Raises:
        ValueError: The model has no logit scale.
    """
    return raw_logit_scale(model).clamp(max=MAX_LOGIT_SCALE)


def raw_logit_scale(model: PreTrainedModel) -> Tensor:
    """Return the factor that cosine similarities are multiplied by, without a limit.

    Returns:
        A float32 scalar that carries a gradient.

    Raises:
        ValueError: The model has neither a ``logit_scale`` nor a ``temperature``.
    """
    parameter: Tensor | None = getattr(model, "logit_scale", None)
    if parameter is not None:
        return parameter.float().exp().squeeze()
    if (temperature := getattr(model, "temperature", None)) is not None:
        return 1 / torch.as_tensor(temperature).float().squeeze()
    raise ValueError(f"{type(model).__name__} has no logit_scale, so it is not a dual encoder")


def logit_bias(model: PreTrainedModel) -> Tensor | None:
    """Return the scalar that SigLIP adds to scaled similarities, or ``None`` for other models."""
    parameter: Tensor | None = getattr(model, "logit_bias", None)
    return None if parameter is None else parameter.float().squeeze()


@torch.no_grad()
def clamp_logit_scale(model: PreTrainedModel) -> None:
    """Limit the parameter ``logit_scale``, a logarithm, to ln 100."""
    if (parameter := getattr(model, "logit_scale", None)) is not None:
        parameter.clamp_(max=math.log(MAX_LOGIT_SCALE))


def _normalised(output: Any) -> Tensor:
    # Older releases of transformers return the tensor itself.
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1)
