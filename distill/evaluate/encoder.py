"""Encoders: one small interface for the teacher, the student and the exported student."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from distill.basis.progress import progress_bar
from distill.teacher.protocol import Teacher
from export.runtime.preprocess import Preprocessing
from students.encoder import Student, embed_images, embed_texts, tokenize

if TYPE_CHECKING:  # It imports onnxruntime, which training does not need.
    from export.runtime.model import EdgeModel

_Item = TypeVar("_Item")
Vectors = NDArray[np.float32]
# Texts embedded at a time. It is a multiple of the batch size, so batches are the same as without
# the limit.
_MANY_TEXTS = 1024


class Encoder(Protocol):
    """A model to measure: it turns pictures and texts into L2-normalised float32 ``[N, D]``.

    ``parameters`` and ``bytes`` (of its weights) are None if they are not known. A model without a
    tower returns None for the inputs of that tower, and does not read them.
    """

    @property
    def name(self) -> str:
        """The name in the report."""
        ...

    @property
    def parameters(self) -> int | None:
        """The number of weights."""
        ...

    @property
    def bytes(self) -> int | None:
        """The size of the weights in bytes."""
        ...

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors | None:
        """Embed RGB pictures of any size."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors | None:
        """Embed texts."""
        ...


class TeacherEncoder:
    """A teacher, with its own preprocessing and tokenizer."""

    def __init__(self, teacher: Teacher, *, name: str = "teacher", batch_size: int = 64) -> None:
        self._teacher = teacher
        self._batch_size = batch_size
        self.name = name
        self.parameters: int | None = teacher.parameters
        self.bytes: int | None = teacher.bytes

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors:
        """Embed RGB pictures of any size."""
        return in_batches(self._images, images, self._batch_size)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        return in_batches(self._texts, texts, self._batch_size)

    def _images(self, images: Sequence[Image.Image]) -> Vectors:
        pixels = np.stack([self._teacher.preprocessing.pixels(image) for image in images])
        return _to_numpy(self._teacher.encode_images(torch.from_numpy(pixels)))

    def _texts(self, texts: Sequence[str]) -> Vectors:
        return _to_numpy(self._teacher.encode_texts(texts))


class StudentEncoder:
    """A student in torch. It encodes in evaluation mode, and returns to its own mode afterwards."""

    def __init__(
        self,
        student: Student,
        *,
        name: str = "student",
        device: str | torch.device = "cpu",
        batch_size: int = 64,
    ) -> None:
        """Take a student and move its model to ``device``."""
        self._model = student.model.to(device)
        self._student = student
        self._device = device
        self._batch_size = batch_size
        self._preprocessing = (
            None
            if student.image_processor is None
            else Preprocessing.from_processor(student.image_processor.to_dict())
        )
        self.name = name
        self.parameters: int | None = sum(weight.numel() for weight in student.model.parameters())
        self.bytes: int | None = _weight_bytes(student.model)

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors | None:
        """Embed RGB pictures of any size; None without an image tower."""
        if self._preprocessing is None:
            return None
        look = self._preprocessing

        def embed(batch: Sequence[Image.Image]) -> Vectors:
            values = look.normalise(np.stack([look.pixels(image) for image in batch]))
            return _to_numpy(embed_images(self._model, torch.from_numpy(values).to(self._device)))

        with _evaluating(self._model):
            return in_batches(embed, images, self._batch_size)

    def encode_texts(self, texts: Sequence[str]) -> Vectors | None:
        """Embed texts; None without a text tower."""
        if self._student.tokenizer is None:
            return None
        tokenizer, student = self._student.tokenizer, self._student

        def embed(batch: Sequence[str]) -> Vectors:
            tokens = tokenize(
                tokenizer, batch, context_length=student.context_length, padding=student.padding
            )
            moved = {name: values.to(self._device) for name, values in tokens.items()}
            return _to_numpy(embed_texts(self._model, moved))

        with _evaluating(self._model):
            return in_batches(embed, texts, self._batch_size)


def encode_many(encoder: Encoder, texts: Sequence[str], *, progress: bool) -> Vectors | None:
    """Embed texts, with a progress bar if there are many, such as the prompts of many labels."""
    if not progress or len(texts) <= _MANY_TEXTS:
        return encoder.encode_texts(texts)
    parts: list[Vectors] = []
    with progress_bar(f"embedding prompts: {encoder.name}", len(texts)) as bar:
        for first in range(0, len(texts), _MANY_TEXTS):
            part = encoder.encode_texts(texts[first : first + _MANY_TEXTS])
            if part is None:
                return None
            parts.append(part)
            bar.update(min(first + _MANY_TEXTS, len(texts)))
    return np.concatenate(parts)


class BundleEncoder:
    """An exported bundle, run by the same runtime as on a device."""

    def __init__(
        self, model: "EdgeModel", *, name: str = "onnx", parameters: int | None = None
    ) -> None:
        """Take a loaded bundle, which does not know its number of ``parameters`` itself."""
        self._model = model
        self.name = name
        self.parameters = parameters
        parts = [part for part in (model.manifest.image, model.manifest.text) if part is not None]
        # A graph may keep its weights in a second file, whose name starts with the graph's.
        graphs = {path for part in parts for path in model.folder.glob(f"{part.file}*")}
        self.bytes: int | None = sum(path.stat().st_size for path in graphs)

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors | None:
        """Embed RGB pictures of any size; None without an image tower."""
        return None if self._model.manifest.image is None else self._model.embed_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Vectors | None:
        """Embed texts; None without a text tower."""
        return None if self._model.manifest.text is None else self._model.embed_texts(texts)


def in_batches(
    embed: Callable[[Sequence[_Item]], Vectors], items: Iterable[_Item], batch_size: int
) -> Vectors:
    """Embed all items ``[N, D]`` and hold one batch of them at a time."""
    parts = []
    iterator = iter(items)
    while batch := list(islice(iterator, batch_size)):
        parts.append(embed(batch))
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Module by module, because training may keep some modules in evaluation mode.
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all weights and saved buffers; shared ones count once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _to_numpy(vectors: torch.Tensor) -> Vectors:
    array: Vectors = vectors.detach().float().cpu().numpy()
    return array
