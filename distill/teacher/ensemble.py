"""The teachers of a recipe as one: their joined embeddings, scales and sizes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.teacher.protocol import Teacher, TeacherRows
from distill.teacher.shares import Share, join, mean_scale
from export.runtime.preprocess import Preprocessing


class Ensemble:
    """One or more teachers whose embeddings are joined.

    Each teacher keeps its own preprocessing and tokenizer. Its embeddings are scaled by the square
    root of its weight, so each cosine is the weighted mean of the teachers' cosines.
    ``logit_scale`` and ``logit_bias`` are weighted means too. An ensemble of a single teacher has
    that teacher's embeddings, scale and bias.

    Args:
        members: The teachers.
        weights: The weight of each teacher; only their proportions matter.
    """

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float]) -> None:
        total = sum(weights)
        self.members = tuple(members)
        self.shares = tuple(
            Share(weight / total, member.width, member.logit_scale, member.logit_bias)
            for member, weight in zip(members, weights, strict=True)
        )
        self.name = " + ".join(member.name for member in members)
        self.width = sum(member.width for member in members)
        self.logit_scale, self.logit_bias = mean_scale(self.shares)
        self.parameters = sum(member.parameters for member in members)
        self.bytes = sum(member.bytes for member in members)

    @property
    def titles(self) -> list[str]:
        """The teachers' names as messages show them; several are numbered as in the recipe."""
        if len(self.members) == 1:
            return [self.name]
        return [f"{member.name} (teacher.{n})" for n, member in enumerate(self.members)]

    @property
    def widths(self) -> str:
        """The width as messages show it, with each teacher's own: ``1280 (512 + 768)``."""
        parts = " + ".join(str(member.width) for member in self.members)
        return f"{self.width} ({parts})" if len(self.members) > 1 else parts

    @property
    def truncated(self) -> int:
        """How many texts the teachers have cut to their context lengths so far."""
        return sum(member.truncated for member in self.members)

    @property
    def preprocessing(self) -> tuple[Preprocessing, ...]:
        """How pictures become each teacher's pixels."""
        return tuple(member.preprocessing for member in self.members)

    @property
    def cached(self) -> None:
        """None: live teachers have no embeddings to look up."""
        return None

    def embed(self, rows: TeacherRows) -> tuple[Tensor | None, Tensor | None]:
        """Return the image and text embeddings of a batch, None if it has no pixels or captions."""
        image = self.encode_images(rows.teacher_pixels) if rows.teacher_pixels else None
        text = self.encode_texts(rows.captions) if rows.captions else None
        return image, text

    def move(self, device: str | torch.device) -> None:
        """Move all teachers to a device, such as the CPU while training reads a cache instead."""
        for member in self.members:
            member.move(device)

    def cut_captions(self) -> dict[str, int]:
        """Return how many texts each teacher, by its title, has cut to its context length."""
        cut = [member.truncated for member in self.members]
        return dict(zip(self.titles, cut, strict=True))

    def encode_images(self, pixels: Sequence[Tensor]) -> Tensor:
        """Embed each teacher's uint8 ``[N, H, W, 3]`` as float32 ``[N, ΣD]``, L2-normalised."""
        parts = [
            member.encode_images(some) for member, some in zip(self.members, pixels, strict=True)
        ]
        return join(parts, self.shares)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as float32 ``[N, ΣD]``, L2-normalised, without gradient."""
        return join([member.encode_texts(texts) for member in self.members], self.shares)
