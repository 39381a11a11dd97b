"""Teachers of transformers: every dual encoder that ``AutoModel`` loads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distill.teacher.fingerprint import fingerprint, weight_files
from distill.teacher.protocol import Teacher
from export.runtime.errors import BundleError, TeacherError
from export.runtime.preprocess import Preprocessing
from students.encoder import (
    Student,
    embed_images,
    embed_texts,
    logit_bias,
    raw_logit_scale,
    tokenize,
)
from students.hub import find_model
from students.loading import load_parts

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Texts that are embedded at a time; more of them make nothing faster.
_TEXTS = 256
# A processor is several times slower once a batch's activations leave its caches.
_PIXELS_ON_CPU = 8 * 224 * 224
# A GPU is busy with this many, and a large batch's activations would not fit beside the student.
_PIXELS_ON_GPU = 1024 * 224 * 224
# A tokenizer makes at most a token of each byte, and adds a few of its own.
_TOKENS_ADDED = 4


class TransformersTeacher:
    """A dual encoder of transformers behind the ``Teacher`` protocol, whose terms it keeps.

    Args:
        student: The model with its tokenizer and image processor.
        name: What people call it.
        folder: Where its files lie.
        dtype: What its weights were loaded as.

    Raises:
        ValueError: A tower is missing, or the two give embeddings of different width; one line.
        BundleError: Its preprocessing is none that the toolkit can do.
    """

    def __init__(self, student: Student, *, name: str, folder: Path, dtype: str) -> None:
        if student.tokenizer is None or student.image_processor is None:
            raise ValueError(f"{name}: a teacher needs an image tower and a text tower")
        self._model = student.model.eval().requires_grad_(requires_grad=False)
        self._tokenizer: PreTrainedTokenizerBase = student.tokenizer
        self._padding = student.padding
        self.name = name
        self.context_length = student.context_length
        self.truncated = 0
        self.preprocessing = Preprocessing.from_processor(student.image_processor.to_dict())
        self._levels = _levels(self.preprocessing).to(self._model.device)
        self.logit_scale = float(raw_logit_scale(self._model))
        bias = logit_bias(self._model)
        self.logit_bias = 0.0 if bias is None else float(bias)
        self.parameters = sum(parameter.numel() for parameter in self._model.parameters())
        self.bytes = sum(file.stat().st_size for file in weight_files(folder))
        self.fingerprint = fingerprint(folder, dtype=dtype)
        self.width = self._measure_width()

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
        """Embed texts as float32 ``[N, D]``, L2-normalised, without gradient."""
        count, step = len(texts), _TEXTS
        parts = [self._encode_some_texts(texts[i : i + step]) for i in range(0, count, step)]
        return self._join(parts)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else torch.empty(0, self.width, device=self._levels.device)

    def _encode_some_pixels(self, pixels: Tensor) -> Tensor:
        indices = pixels.to(self._levels.device).int()
        channels = [self._levels[channel][indices[..., channel]] for channel in range(3)]
        with torch.autocast(self._levels.device.type, enabled=False):
            return embed_images(self._model, torch.stack(channels, dim=1))

    def _encode_some_texts(self, texts: Sequence[str]) -> Tensor:
        limit = self.context_length - _TOKENS_ADDED
        if long := [text for text in texts if len(text.encode("utf-8", "replace")) > limit]:
            whole = self._tokenizer(long, return_attention_mask=False, verbose=False)
            self.truncated += sum(len(ids) > self.context_length for ids in whole["input_ids"])
        tokens = tokenize(
            self._tokenizer, texts, context_length=self.context_length, padding=self._padding
        )
        device = self._levels.device
        with torch.autocast(device.type, enabled=False):
            return embed_texts(self._model, {key: ids.to(device) for key, ids in tokens.items()})

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


def load_hf_teacher(model: str, *, device: str = "cpu", dtype: str = "float32") -> Teacher:
    """Load a frozen teacher from a local folder or by its hub name.

    Args:
        model: Folder, or a name such as ``openai/clip-vit-large-patch14``.
        device: Where it runs.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``, whatever the weights are stored in.

    Raises:
        TeacherError: A file is missing, or what lies there is no dual encoder; one line.
    """
    try:
        folder = find_model(model, field="teacher.model")
        parts = load_parts(folder, name=f"teacher.model: {model}", dtype=_DTYPES[dtype])
        parts.model.to(device)
        name = folder.resolve().name if Path(model).expanduser().is_dir() else model
        return TransformersTeacher(parts, name=name, folder=folder, dtype=dtype)
    except BundleError as error:
        raise TeacherError(f"teacher.model: {model}: {error}") from error
    except (OSError, ValueError) as error:
        raise TeacherError(str(error)) from error


def _levels(preprocessing: Preprocessing) -> Tensor:
    """What each of the 256 values of each channel is normalised to, float32 ``[3, 256]``.

    Looking it up gives bit for bit what normalising a picture would, on any device.
    """
    values = np.arange(256, dtype=np.uint8)
    picture = np.repeat(values[None, None, :, None], 3, axis=3)
    return torch.from_numpy(preprocessing.normalise(picture)[0, :, 0, :].copy())
