"""What a model of one tower borrows: the teacher's texts for its images, or the reverse."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from distill.data.sample import Source
from distill.evaluate.encoder import Encoder, Vectors
from distill.evaluate.pictures import Options, Pictures, encode_pictures
from export.runtime.errors import TeacherError


@dataclass(frozen=True)
class Sides:
    """Images ``[N, D]`` and texts ``[M, D]`` to compare; ``borrowed`` comes from the teacher."""

    images: Vectors
    texts: Vectors
    borrowed: Literal["images", "texts"] | None


def both_sides(
    encoders: Sequence[Encoder],
    pictures: Pictures,
    embed_texts: Callable[[Encoder], Vectors | None],
    *,
    source: Source,
    options: Options,
) -> dict[str, Sides | None]:
    """Return the images and texts to compare for each encoder, by name.

    A side that an encoder lacks comes from ``options.lender``, if its width is the same. The value
    is None for an encoder that still lacks a side.

    Args:
        encoders: The models; ``pictures`` holds their images.
        pictures: Pictures of ``source``, embedded by all encoders.
        embed_texts: Embeds the texts of the set with an encoder.
        source: Where the lender reads the pictures from.
        options: Names the lender.
    """
    lender = options.lender
    texts: dict[str, Vectors | None] = {}
    images = dict(pictures.embeddings)

    def texts_of(encoder: Encoder) -> Vectors | None:
        if encoder.name not in texts:
            texts[encoder.name] = embed_texts(encoder)
        return texts[encoder.name]

    def images_of(encoder: Encoder) -> Vectors | None:
        if encoder.name not in images:
            seen = encode_pictures([encoder], source, pictures.indices, options=options)
            images[encoder.name] = seen.embeddings[encoder.name]
        return images[encoder.name]

    sides: dict[str, Sides | None] = {}
    for encoder in encoders:
        borrowed: Literal["images", "texts"] | None = None
        mine = images[encoder.name]
        read = None if mine is None and lender is None else texts_of(encoder)
        if lender is not None and mine is None:
            mine, borrowed = images_of(lender), "images"
        elif lender is not None and read is None:
            read, borrowed = texts_of(lender), "texts"
        sides[encoder.name] = None
        if mine is not None and read is not None and mine.shape[1] == read.shape[1]:
            sides[encoder.name] = Sides(mine, read, borrowed)
    return sides


def borrowed_sides(sides: Mapping[str, Sides | None]) -> dict[str, str]:
    """Return which side is borrowed, for each encoder that borrows one."""
    return {name: found.borrowed for name, found in sides.items() if found and found.borrowed}


class Remembered:
    """An encoder that embeds each picture and text once, and can be released afterwards."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder: Encoder | None = encoder
        self._known: dict[bytes, Vectors] = {}
        self.name = encoder.name
        self.parameters = encoder.parameters
        self.bytes = encoder.bytes

    def encode_images(self, images: Iterable[Image.Image]) -> Vectors | None:
        """Embed RGB pictures of any size."""
        pictures = list(images)
        digests = [_digest(f"{image.size}".encode(), image.tobytes()) for image in pictures]
        new = [number for number, digest in enumerate(digests) if digest not in self._known]
        if new:
            vectors = self._loaded().encode_images(pictures[number] for number in new)
            if vectors is None:
                return None
            self._known.update(zip((digests[number] for number in new), vectors, strict=True))
        return np.stack([self._known[digest] for digest in digests])

    def encode_texts(self, texts: Sequence[str]) -> Vectors | None:
        """Embed texts."""
        digests = [_digest(b"text", text.encode("utf-8", "surrogatepass")) for text in texts]
        new = {d: text for d, text in zip(digests, texts, strict=True) if d not in self._known}
        if new:
            vectors = self._loaded().encode_texts(list(new.values()))
            if vectors is None:
                return None
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[digest] for digest in digests])

    def release(self) -> None:
        """Drop the encoder; from now on only known pictures and texts can be embedded."""
        self._encoder = None

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            raise TeacherError(
                f"{self.name}: a validation picture or caption changed during training; restore "
                "the data and run the same command to continue"
            )
        return self._encoder


def _digest(kind: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16, key=hashlib.sha256(kind).digest()).digest()
