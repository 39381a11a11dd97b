"""The teachers of a recipe as encoders: all of them together, and each one alone."""

from collections.abc import Callable, Iterable, Sequence
from operator import is_

import numpy as np
import torch
from PIL import Image

from distill.evaluate.encoder import Encoder, TeacherEncoder, Vectors, in_batches
from distill.teacher.ensemble import Ensemble
from distill.teacher.shares import join

_BATCH_SIZE = 64

# Returns a teacher's embeddings of texts, or None unless it knows all of them.
_Known = Callable[[Sequence[str]], Vectors | None]


class EnsembleEncoder:
    """The teachers of a recipe together, or a single one, each with its own preprocessing."""

    def __init__(
        self, ensemble: Ensemble, *, name: str = "teacher", known: Sequence[_Known] = ()
    ) -> None:
        """Take the teachers; ``known`` looks up, for each of them, texts it has embedded before."""
        self._shares = ensemble.shares
        self._members = [
            _Recent(
                TeacherEncoder(member, name=f"{name}.{number}", batch_size=_BATCH_SIZE),
                known[number] if known else None,
            )
            for number, member in enumerate(ensemble.members)
        ]
        self.name = name
        self.logit_scale = ensemble.logit_scale
        self.logit_bias = ensemble.logit_bias
        self.parameters: int | None = ensemble.parameters
        self.bytes: int | None = ensemble.bytes

    @property
    def members(self) -> list[Encoder]:
        """Each of several teachers alone, named as in a recipe: ``teacher.0``, ``teacher.1``.

        They reuse the embeddings of the batch that the ensemble embedded last.
        """
        return list(self._members) if len(self._members) > 1 else []

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors:
        """Embed RGB pictures of any size."""
        return in_batches(self._images, images, _BATCH_SIZE)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        return self._joined([member.encode_texts(texts) for member in self._members])

    def _images(self, images: Sequence[Image.Image]) -> Vectors:
        return self._joined([member.encode_images(images) for member in self._members])

    def _joined(self, parts: Sequence[Vectors]) -> Vectors:
        return join([torch.from_numpy(part) for part in parts], self._shares).numpy()


class _Recent:
    """A teacher that remembers the last batch of pictures, and looks up known texts."""

    def __init__(self, encoder: TeacherEncoder, known: _Known | None) -> None:
        self._encoder = encoder
        self._known = known
        self._images: list[Image.Image] = []
        self._vectors = np.zeros((0, 0), np.float32)
        self.name = encoder.name
        self.parameters = encoder.parameters
        self.bytes = encoder.bytes

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors:
        """Embed RGB pictures of any size, at most one batch."""
        pictures = list(images)
        # Comparing by identity is safe because this object keeps the pictures alive.
        known = len(pictures) == len(self._images) and all(map(is_, pictures, self._images))
        if not known:
            self._images, self._vectors = pictures, self._encoder.encode_images(pictures)
        return self._vectors

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, or look them up."""
        found = None if self._known is None else self._known(texts)
        return self._encoder.encode_texts(texts) if found is None else found
