"""The protocol through which training uses its teachers, live or cached."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from distill.teacher.cache.ensemble import CachedEnsemble
from distill.teacher.protocol import TeacherRows
from export.runtime.preprocess import Preprocessing


class Teaching(Protocol):
    """The teachers of a training run: an ``Ensemble``, or a ``CachedEnsemble``."""

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor that similarities are multiplied by."""
        ...

    @property
    def logit_bias(self) -> float:
        """The number that is then added to them."""
        ...

    @property
    def preprocessing(self) -> tuple[Preprocessing, ...]:
        """How each teacher's pixels are made; empty if batches need not carry any."""
        ...

    @property
    def cached(self) -> CachedEnsemble | None:
        """The embeddings that data workers and banks look up; None for live teachers."""
        ...

    def embed(self, rows: TeacherRows) -> tuple[Tensor | None, Tensor | None]:
        """Return the image and text embeddings of a batch, float32 ``[B, D]``, L2-normalised.

        The image embeddings are None if the batch has no pictures for the teachers. The text
        embeddings are None if it has no captions.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as float32 ``[N, D]``, L2-normalised, without gradient."""
        ...

    def cut_captions(self) -> Mapping[str, int]:
        """Return how many texts each teacher, by its title, has cut to its context length."""
        ...
