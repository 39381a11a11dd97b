"""All teachers of a recipe as one: an ensemble, of a single one as well."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.teacher.protocol import Teacher, TeacherRows
from distill.teacher.shares import Share, join, mean_scale
from export.runtime.preprocess import Preprocessing


class Ensemble:
    """Teachers whose embeddings are joined, each with its own preprocessing and tokenizer.

    A part is scaled by the root of its weight, so that cosines are weighted means of the teachers'
    cosines; ``logit_scale`` and ``logit_bias`` are the weighted means of theirs. Of a single
    teacher everything is what it says itself.

    Args:
        members: The teachers.
        weights: Their weights; only their proportions count.
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
        """The teachers' names for people, told apart by their place in the recipe."""
        if len(self.members) == 1:
            return [self.name]
        return [f"{member.name} (teacher.{n})" for n, member in enumerate(self.members)]

    @property
    def widths(self) -> str:
        """The width for people, with that of each of several teachers: ``1280 (512 + 768)``."""
        parts = " + ".join(str(member.width) for member in self.members)
        return f"{self.width} ({parts})" if len(self.members) > 1 else parts

    @property
    def truncated(self) -> int:
        """How many texts were cut to the length that a teacher reads so far."""
        return sum(member.truncated for member in self.members)

    @property
    def preprocessing(self) -> tuple[Preprocessing, ...]:
        """How pictures become the pixels of each teacher."""
        return tuple(member.preprocessing for member in self.members)

    @property
    def cached(self) -> None:
        """Live teachers have no embeddings to look up."""
        return None

    def embed(self, rows: TeacherRows) -> tuple[Tensor | None, Tensor | None]:
        """Return the image and text embeddings of a batch, each None if it has none of them."""
        image = self.encode_images(rows.teacher_pixels) if rows.teacher_pixels else None
        text = self.encode_texts(rows.captions) if rows.captions else None
        return image, text

    def move(self, device: str | torch.device) -> None:
        """Move all teachers to a device, such as the CPU while their caches take their place."""
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
