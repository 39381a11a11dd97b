"""The base class of teachers: normalising pixels, splitting batches, counting cut texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export.runtime.preprocess import Preprocessing

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Texts per forward pass; more are not faster.
_TEXTS = 256
# A CPU is several times slower once the activations of a batch no longer fit into its caches.
_PIXELS_ON_CPU = 8 * 224 * 224
# This many keep a GPU busy; the activations of more may not fit into memory with the student.
_PIXELS_ON_GPU = 1024 * 224 * 224
# A tokenizer makes at most one token of each byte, and adds a few special ones.
_TOKENS_ADDED = 4


@dataclass(frozen=True)
class Declared:
    """What a teacher declares about itself; ``Teacher`` explains each attribute."""

    name: str
    tokenizer: str
    context_length: int
    preprocessing: Preprocessing
    logit_scale: float
    logit_bias: float
    fingerprint: str
    bytes: int
    model_type: str | None = None


class FrozenTeacher(ABC):
    """A dual encoder that follows the ``Teacher`` protocol.

    A subclass embeds normalised pictures and texts, and counts the tokens of texts. It sets what
    its methods need before it calls ``__init__``, which embeds a picture and a text.

    Args:
        model: The module with the weights; it is frozen and put in evaluation mode.
        declared: What the teacher declares about itself.
        device: The device of the model.

    Raises:
        ValueError: The two towers have embeddings of different widths; one line.
    """

    def __init__(self, model: nn.Module, declared: Declared, *, device: torch.device) -> None:
        self._model = model.eval().requires_grad_(requires_grad=False)
        self.name = declared.name
        self.tokenizer = declared.tokenizer
        self.context_length = declared.context_length
        self.preprocessing = declared.preprocessing
        self.logit_scale = declared.logit_scale
        self.logit_bias = declared.logit_bias
        self.fingerprint = declared.fingerprint
        self.bytes = declared.bytes
        self.model_type = declared.model_type
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.truncated = 0
        self._levels = _levels(self.preprocessing).to(device)
        self.width = self._measure_width()

    @abstractmethod
    def _embed_values(self, values: Tensor) -> Tensor:
        """Embed normalised pictures ``[N, 3, H, W]`` as float32 ``[N, D]``, L2-normalised."""

    @abstractmethod
    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, cut to the context length, as float32 ``[N, D]``, L2-normalised."""

    @abstractmethod
    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has before it is cut."""

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Embed uint8 ``[N, H, W, 3]`` as float32 ``[N, D]``, L2-normalised, without gradient."""
        count = len(pixels)
        height, width = self.preprocessing.size
        most = _PIXELS_ON_CPU if self._levels.device.type == "cpu" else _PIXELS_ON_GPU
        step = max(1, most // (height * width))
        parts = [self._encode_some_pixels(pixels[i : i + step]) for i in range(0, count, step)]
        return self._join(parts)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as float32 ``[N, D]``, L2-normalised, without gradient.

        Raises:
            TypeError: These are not texts; another model's token ids mean nothing to this one.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(
                f"{self.name}: encode_texts takes a list of texts, since each model uses its own "
                f"tokenizer; found {type(texts).__name__}"
            )
        count, step = len(texts), _TEXTS
        parts = [self._encode_some_texts(texts[i : i + step]) for i in range(0, count, step)]
        return self._join(parts)

    def move(self, device: str | torch.device) -> None:
        """Move all tensors to a device, such as the CPU while training reads a cache instead."""
        self._model.to(device)
        self._levels = self._levels.to(device)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else torch.empty(0, self.width, device=self._levels.device)

    def _encode_some_pixels(self, pixels: Tensor) -> Tensor:
        indices = pixels.to(self._levels.device).int()
        channels = [self._levels[channel][indices[..., channel]] for channel in range(3)]
        with torch.autocast(self._levels.device.type, enabled=False):
            return self._embed_values(torch.stack(channels, dim=1))

    def _encode_some_texts(self, texts: Sequence[str]) -> Tensor:
        limit = self.context_length - _TOKENS_ADDED
        if long := [text for text in texts if len(text.encode("utf-8", "replace")) > limit]:
            self.truncated += sum(count > self.context_length for count in self._token_counts(long))
        with torch.autocast(self._levels.device.type, enabled=False):
            return self._embed_texts(texts)

    @torch.no_grad()
    def _measure_width(self) -> int:
        height, width = self.preprocessing.size
        image = self.encode_images(torch.zeros(1, height, width, 3, dtype=torch.uint8))
        text = self._encode_some_texts(["a"])
        if image.shape != text.shape:
            raise ValueError(
                f"{self.name}: image embeddings have width {image.shape[1]} and text embeddings "
                f"{text.shape[1]}, so they cannot be compared"
            )
        return int(image.shape[1])


def _levels(preprocessing: Preprocessing) -> Tensor:
    """Return the normalised value of each of 256 levels per channel, float32 ``[3, 256]``.

    Looking pixels up in it gives the same bits as normalising them, on any device.
    """
    values = np.arange(256, dtype=np.uint8)
    picture = np.repeat(values[None, None, :, None], 3, axis=3)
    return torch.from_numpy(preprocessing.normalise(picture)[0, :, 0, :].copy())
