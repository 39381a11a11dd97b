"""What the tests of shards share: tars made member by member."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from distill.data.sample import Sample, Source, open_image
from distill.data.shards.source import open_shards
from export.runtime.errors import DataError

Members = Iterable[tuple[str, bytes | str]]


def picture(number: int, form: str = "PNG") -> bytes:
    """Return a picture of 6 x 4 pixels, of the colour (number, 255 - number, 7)."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (number, 255 - number, 7)).save(buffer, form, lossless=True)
    return buffer.getvalue()


def sample(number: int, **texts: str) -> list[tuple[str, bytes | str]]:
    """Return the members of sample ``number``: a picture, and ``txt`` unless others are given."""
    texts = texts or {"txt": f"colour {number}"}
    members: list[tuple[str, bytes | str]] = [(f"{number:04d}.png", picture(number))]
    return members + [(f"{number:04d}.{suffix}", text) for suffix, text in texts.items()]


def samples(numbers: Iterable[int]) -> list[tuple[str, bytes | str]]:
    return [member for number in numbers for member in sample(number)]


def write_tar(path: Path, members: Members, *, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_tars(folder: Path, lengths: Iterable[int]) -> Path:
    """Write tars of so many captioned samples each, numbered through, and return their folder."""
    first = 0
    for number, length in enumerate(lengths):
        write_tar(folder / f"{number:03d}.tar", samples(range(first, first + length)))
        first += length
    return folder


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def failure(path: Path | str, **options: str) -> str:
    """Return the one line that says why tars cannot be opened."""
    with pytest.raises(DataError) as caught:
        open_shards(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def colour(found: Sample) -> tuple[int, ...]:
    pixel = open_image(found).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def reasons(source: Source) -> list[str]:
    return [skip.reason for skip in source.skipped]
