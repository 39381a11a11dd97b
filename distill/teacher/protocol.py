"""What the rest of the toolkit knows of a teacher."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from export.runtime.preprocess import Preprocessing


class Teacher(Protocol):
    """A frozen dual encoder with its own weights, tokenizer and preprocessing.

    It is no ``nn.Module`` and stands in none, so that no checkpoint and no optimizer ever finds
    its parameters. It takes pixels and texts and never token ids, so that no other model's tokens
    can reach it.

    Attributes:
        name: Folder or hub name, for people.
        width: Width of its embeddings.
        logit_scale: The factor that its similarities are multiplied by.
        logit_bias: What is added to them then; 0 where it has no bias.
        fingerprint: Digest of all that its embeddings depend on; the same wherever it lies.
        preprocessing: How pictures become the pixels that ``encode_images`` takes, with image
            size, mean and std.
        tokenizer: Class of what turns its texts into tokens, for people; it alone feeds it.
        context_length: The most tokens that it reads of a text.
        truncated: How many texts were cut to that length so far.
        model_type: The type by which transformers knows models like it, such as ``clip``; None
            if it is unknown, or says nothing of its preprocessing.
        parameters: How many numbers it has learnt.
        bytes: Size of its weights as they are stored.
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

        Pixels are of the size that ``preprocessing`` gives; the teacher normalises them itself.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as float32 ``[N, D]``, L2-normalised, without gradient."""
        ...

    def move(self, device: str | torch.device) -> None:
        """Move all tensors to a device, such as the CPU while a cache takes the teacher's place."""
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
