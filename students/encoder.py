"""What students and every other dual encoder of transformers have in common."""

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

MAX_LOGIT_SCALE = 100.0

Padding = Literal["longest", "full"]


@dataclass(frozen=True)
class Student:
    """A dual encoder with all that it takes to feed it.

    ``tokenizer`` is ``None`` and ``context_length`` 0 where there is no text tower, and
    ``image_processor`` is ``None`` where there is no image tower. ``padding`` is ``"full"`` for
    models that pool a fixed place of the text, which is then always padded to
    ``context_length``, and ``"longest"`` for the others.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    image_processor: BaseImageProcessor | None
    context_length: int
    padding: Padding

    @property
    def width(self) -> int:
        """Width of the embeddings, as the model gives them."""
        if self.tokenizer is None:
            return int(self.model.config.projection_dim)
        tokens = tokenize(
            self.tokenizer, ["a"], context_length=self.context_length, padding=self.padding
        )
        with torch.no_grad():
            placed = {key: ids.to(self.model.device) for key, ids in tokens.items()}
            return embed_texts(self.model, placed).shape[1]

    def save(self, folder: str | Path) -> None:
        """Write model, tokenizer and image processor into ``folder``, which is made if missing."""
        with quiet():
            self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            # The last call's padding and truncation would be saved with it.
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
    """Turn texts into ``input_ids`` and ``attention_mask``, both int64 ``[N, L]``.

    Texts are cut at ``context_length`` tokens and padded to the longest of them, or to
    ``context_length``. A tokenizer that declares no mask belongs to a model that attends to its
    padding too: the mask is then all ones.
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
    """Return the texts with ``?`` for lone surrogates, of which a tokenizer makes an exception."""
    return [text.encode("utf-8", "replace").decode() for text in texts]


def embed_images(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Embed pictures ``[N, 3, H, W]`` as ``[N, D]``, L2-normalised in float32."""
    return _normalised(model.get_image_features(pixel_values=pixel_values.to(model.dtype)))


def embed_texts(model: PreTrainedModel, tokens: Mapping[str, Tensor]) -> Tensor:
    """Embed what ``tokenize`` returns as ``[N, D]``, L2-normalised in float32."""
    return _normalised(model.get_text_features(**tokens))


def logit_scale(model: PreTrainedModel) -> Tensor:
    """The factor that similarities are multiplied by, at most 100; a scalar with gradient."""
    return raw_logit_scale(model).clamp(max=MAX_LOGIT_SCALE)


def raw_logit_scale(model: PreTrainedModel) -> Tensor:
    """The factor that similarities are multiplied by, as the model has it; a scalar.

    Raises:
        ValueError: The model keeps no such factor.
    """
    parameter: Tensor | None = getattr(model, "logit_scale", None)
    if parameter is not None:
        return parameter.float().exp().squeeze()
    if (temperature := getattr(model, "temperature", None)) is not None:
        return 1 / torch.as_tensor(temperature).float().squeeze()
    raise ValueError(f"{type(model).__name__} has no logit_scale, so it is no dual encoder")


def logit_bias(model: PreTrainedModel) -> Tensor | None:
    """What is added to scaled similarities (SigLIP), a scalar; ``None`` where there is none."""
    parameter: Tensor | None = getattr(model, "logit_bias", None)
    return None if parameter is None else parameter.float().squeeze()


@torch.no_grad()
def clamp_logit_scale(model: PreTrainedModel) -> None:
    """Bring the parameter ``logit_scale`` back to ln 100 where a step has taken it beyond."""
    if (parameter := getattr(model, "logit_scale", None)) is not None:
        parameter.clamp_(max=math.log(MAX_LOGIT_SCALE))


def _normalised(output: Any) -> Tensor:
    # Older releases of transformers return the tensor itself.
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1)
