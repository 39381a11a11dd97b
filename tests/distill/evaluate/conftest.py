"""Encoders with vectors written by hand, and sources in memory."""

import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from distill.data.sample import Sample


@dataclass
class HandEncoder:
    """Embeds picture number n (its red value) as ``images[n]``, and a text as ``texts[text]``."""

    name: str
    images: list | None
    texts: dict | None
    parameters: int | None = 10
    bytes: int | None = 40
    seen: list = field(default_factory=list)

    def encode_images(self, images):
        if self.images is None:
            return None
        numbers = [image.getpixel((0, 0))[0] for image in images]
        self.seen += numbers
        return np.array([self.images[number] for number in numbers], dtype=np.float32)

    def encode_texts(self, texts):
        if self.texts is None:
            return None
        vectors = np.array([self.texts[text] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class MemorySource:
    samples: list
    name: str = "memory"
    skipped: tuple = ()

    @property
    def rows(self):
        return len(self.samples)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def picture(number):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def make_source():
    """Make a source of (captions, label) entries, some of them with unreadable pictures."""

    def make(entries, *, unreadable=()):
        return MemorySource(
            [
                Sample(
                    key=f"p{number}.png",
                    image=b"no picture" if number in unreadable else picture(number),
                    captions=tuple(captions),
                    label=label,
                )
                for number, (captions, label) in enumerate(entries)
            ]
        )

    return make


@pytest.fixture
def make_encoder():
    return HandEncoder
