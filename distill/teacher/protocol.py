"""The protocol that every kind of teacher follows, and the part of a batch that teachers read."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from export.runtime.preprocess import Preprocessing


class Teacher(Protocol):
    """A frozen dual encoder with its own weights, tokenizer and preprocessing.

    A teacher is not an ``nn.Module`` and is not part of one, so no checkpoint or optimizer finds
    its parameters. It takes pixels and texts, never token ids, so it cannot be given the tokens of
    another model.

    Attributes:
        name: Folder or hub name, for messages.
        width: Width of its embeddings.
        logit_scale: The factor that its similarities are multiplied by.
        logit_bias: The number that is then added to them; 0 if it has no bias.
        fingerprint: Digest of everything that its embeddings depend on, but not of its location.
        preprocessing: How pictures become the pixels that ``encode_images`` takes: image size,
            mean, std and resampling.
        tokenizer: Class of its own tokenizer, for messages.
        context_length: The most tokens of a text that it reads.
        truncated: How many texts it has cut to that length so far.
        model_type: The type of its model in transformers, such as ``clip``, if published models
            of that type share a preprocessing; otherwise None.
        parameters: How many parameters it has.
        bytes: Size of its weights as they are stored, in bytes.
    """

    name: str
    width: int
    logit_scale: float
    logit_bias: float
    fingerprint: str
    preprocessing: Preprocessing
    tokenizer: str
    context_length: int
    truncated: int
    model_type: str | None
    parameters: int
    bytes: int

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Embed uint8 ``[N, H, W, 3]`` as float32 ``[N, D]``, L2-normalised, without gradient.

        Pixels have the size that ``preprocessing`` states; the teacher normalises them itself.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as float32 ``[N, D]``, L2-normalised, without gradient."""
        ...

    def move(self, device: str | torch.device) -> None:
        """Move all tensors to a device, such as the CPU while training reads a cache instead."""
        ...


class TeacherRows(Protocol):
    """The part of a batch that its teachers read."""

    @property
    def captions(self) -> Sequence[str]:
        """The captions; none for a student without a text tower."""
        ...

    @property
    def teacher_pixels(self) -> Sequence[Tensor]:
        """For each live teacher, the images as uint8 ``[B, H, W, 3]``."""
        ...

    @property
    def teacher_image(self) -> Tensor | None:
        """The image embeddings ``[B, D]`` that a worker has looked up."""
        ...

    @property
    def teacher_text(self) -> Tensor | None:
        """The text embeddings ``[B, D]`` that a worker has looked up."""
        ...
