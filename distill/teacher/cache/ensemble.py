"""The caches of an ensemble's teachers as one."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from distill.data.sample import Source
from distill.teacher.cache.cache import CachedTeacher
from distill.teacher.cache.manifest import Part
from distill.teacher.protocol import TeacherRows
from distill.teacher.shares import Share, join, mean_scale
from export.runtime.errors import CacheError
from export.runtime.preprocess import Preprocessing


class CachedEnsemble:
    """Looks up the joined embeddings of an ensemble's teachers.

    Args:
        members: The teachers' caches.
        shares: Each teacher's share of the ensemble.
    """

    def __init__(self, members: Sequence[CachedTeacher], shares: Sequence[Share]) -> None:
        self._members = tuple(members)
        self._compared: set[Part] = set()
        # The cache decides: a teacher of another precision may have written it.
        self.shares = tuple(
            replace(share, scale=member.logit_scale, bias=member.logit_bias)
            for member, share in zip(members, shares, strict=True)
        )
        self.width = sum(member.width for member in members)
        self.logit_scale, self.logit_bias = mean_scale(self.shares)

    @property
    def preprocessing(self) -> tuple[Preprocessing, ...]:
        """Empty: embeddings are looked up, so batches carry no pixels for the teachers."""
        return ()

    @property
    def cached(self) -> "CachedEnsemble":
        """The embeddings that data workers and banks look up."""
        return self

    def embed(self, rows: TeacherRows) -> tuple[Tensor | None, Tensor | None]:
        """Return the embeddings of a batch that its worker has looked up."""
        return rows.teacher_image, rows.teacher_text

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Look up the embeddings of texts, float32 ``[N, ΣD]``, L2-normalised.

        Raises:
            CacheError: A text is not in the cache.
        """
        return self.captions(texts)

    def cut_captions(self) -> dict[str, int]:
        """Return an empty mapping: captions were cut when the cache was built."""
        return {}

    def attach(self, sources: Sequence[Source]) -> None:
        """Find the rows of the sources, from which :meth:`corpus` draws."""
        for member in self._members:
            member.attach(sources)
        self._compared.clear()

    def corpus(self, part: Part, count: int, *draw: str | int) -> Tensor:
        """Return ``count`` joined embeddings, drawn as in :meth:`CachedTeacher.corpus`.

        Raises:
            CacheError: The caches do not hold the same pictures or captions.
        """
        self._compare(part)
        # All members order their rows by digest, so they draw the same ones.
        return join([member.corpus(part, count, *draw) for member in self._members], self.shares)

    def _compare(self, part: Part) -> None:
        """Check once that the caches hold the same rows of a part."""
        if part in self._compared:
            return
        first, *others = self._members
        for other in others:
            every = sys.maxsize
            if not torch.equal(first.corpus_ids(part, every), other.corpus_ids(part, every)):
                raise CacheError(
                    f"{first.folder} and {other.folder}: they do not hold the same {part}, as "
                    "some could not be read for one of them; delete both to build them again"
                )
        self._compared.add(part)

    def corpus_ids(self, part: Part, count: int, *draw: str | int) -> Tensor:
        """Return the ids of the rows of :meth:`corpus`, int64 ``[count]``."""
        return self._members[0].corpus_ids(part, count, *draw)

    def images(self, sources: Sequence[int], keys: Sequence[str], views: Sequence[int]) -> Tensor:
        """Return the embeddings of views of pictures, float32 ``[B, ΣD]``, L2-normalised.

        Raises:
            CacheError: A picture is not in the cache.
        """
        parts = [member.images(sources, keys, views) for member in self._members]
        return join(parts, self.shares)

    def captions(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings of captions, float32 ``[B, ΣD]``, L2-normalised.

        Raises:
            CacheError: A caption is not in the cache.
        """
        return join([member.captions(texts) for member in self._members], self.shares)
