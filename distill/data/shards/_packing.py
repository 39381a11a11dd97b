"""Samples as the members of a tar: the picture's bytes, and its texts."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from distill.data.sample import Sample, Skip, open_image
from distill.data.shards._samples import LONGEST_TEXT
from export.runtime.errors import DataError

_QUALITY = 95


@dataclass(frozen=True)
class Packed:
    """The members of a sample by suffix, or the reason to leave it out."""

    number: int
    members: Mapping[str, bytes]
    skip: Skip | None


def pack(sample: Sample, number: int, *, size: int | None) -> Packed:
    """Return the members of a sample; ``size`` limits the shorter side in pixels, None keeps it."""
    try:
        suffix, content = _picture(sample, size)
        return Packed(number, {suffix: content, **_texts(sample)}, None)
    except DataError as error:
        return Packed(number, {}, Skip(sample.key, str(error)))


def _picture(sample: Sample, size: int | None) -> tuple[str, bytes]:
    """Return suffix and content of a picture."""
    content = _content(sample)
    # A picture that cannot be decoded must be counted as left out.
    image = open_image(replace(sample, image=content))
    suffix = _suffix(content)
    if size is not None or suffix is None:
        short, long = sorted(image.size)
        if size is not None and short > size:
            long = round(long * size / short)
            target = (size, long) if image.width <= image.height else (long, size)
            return "jpg", _saved(
                image.resize(target, Image.Resampling.BICUBIC), "JPEG", quality=_QUALITY
            )
        if suffix is None:
            return "png", _saved(image, "PNG")
    assert suffix is not None
    return suffix, content


def _content(sample: Sample) -> bytes:
    if isinstance(sample.image, bytes):
        return sample.image
    if not isinstance(sample.image, Path):
        return sample.image.read()
    try:
        return sample.image.read_bytes()
    except OSError as error:
        raise DataError(f"{sample.image}: it cannot be read: {error.strerror}") from error


def _suffix(content: bytes) -> str | None:
    """Return the suffix that fits a picture's first bytes, None if WebDataset has none for it."""
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _texts(sample: Sample) -> dict[str, bytes]:
    captions = [caption for caption in sample.captions if caption.strip()]
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    # A reader strips the white space around a caption in a text file.
    if len(captions) == 1 and captions[0] == captions[0].lstrip("\ufeff").strip():
        texts["txt"] = captions[0]
    elif captions:
        values["captions"] = captions
    if sample.label is not None:
        values["label"] = sample.label
    if sample.group is not None:
        values["group"] = sample.group
    # An empty object says that the sample has no texts, so none was lost.
    if values or not texts:
        texts["json"] = json.dumps(values, ensure_ascii=False)
    try:
        members = {suffix: text.encode("utf-8") for suffix, text in texts.items()}
    except UnicodeEncodeError as error:
        raise DataError(f"{sample.key}: one of its captions or labels is not Unicode") from error
    if any(len(content) > LONGEST_TEXT for content in members.values()):
        raise DataError(f"{sample.key}: its texts are longer than {LONGEST_TEXT:,} bytes")
    return members
