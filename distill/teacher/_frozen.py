"""What every kind of teacher does alike: levels, parts of a batch, and the count of cut texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export.runtime.preprocess import Preprocessing

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Texts that are embedded at a time; more of them make nothing faster.
_TEXTS = 256
# A processor is several times slower once a batch's activations leave its caches.
_PIXELS_ON_CPU = 8 * 224 * 224
# A GPU is busy with this many, and a large batch's activations would not fit beside the student.
_PIXELS_ON_GPU = 1024 * 224 * 224
# A tokenizer makes at most a token of each byte, and adds a few of its own.
_TOKENS_ADDED = 4


@dataclass(frozen=True)
class Declared:
    """What a teacher declares of itself; see ``Teacher`` for the meaning of each."""

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
    """A dual encoder behind the ``Teacher`` protocol, whose terms it keeps.

    A kind of teacher says how normalised pictures and texts are embedded, and how many tokens a
    text has; it sets what these need before it calls ``__init__`` here.

    Args:
        model: Where its weights are; they are frozen and stay in evaluation mode.
        declared: What it declares of itself.
        device: Where the model is.

    Raises:
        ValueError: The two towers give embeddings of different width; one line.
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
            TypeError: These are no texts; the ids of some tokenizer mean nothing to this model.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(
                f"{self.name}: encode_texts takes a list of texts, since each model tokenizes for "
                f"itself; found {type(texts).__name__}"
            )
        count, step = len(texts), _TEXTS
        parts = [self._encode_some_texts(texts[i : i + step]) for i in range(0, count, step)]
        return self._join(parts)

    def move(self, device: str | torch.device) -> None:
        """Move all tensors to a device, such as the CPU while a cache takes the teacher's place."""
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
                f"{self.name}: its images are embedded in {image.shape[1]} numbers and its texts "
                f"in {text.shape[1]}, which cannot be compared"
            )
        return int(image.shape[1])


def _levels(preprocessing: Preprocessing) -> Tensor:
    """What each of the 256 values of each channel is normalised to, float32 ``[3, 256]``.

    Looking it up gives bit for bit what normalising a picture would, on any device.
    """
    values = np.arange(256, dtype=np.uint8)
    picture = np.repeat(values[None, None, :, None], 3, axis=3)
    return torch.from_numpy(preprocessing.normalise(picture)[0, :, 0, :].copy())
