"""Samples and sources: pictures with captions behind an index with random access."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.basis.draws import draw_integers
from export.runtime.decode import decode
from export.runtime.errors import DataError, visible
from export.runtime.limits import MAX_PIXELS


class _Stored(Protocol):
    """The undecoded bytes of a picture inside a larger file, read on demand."""

    @property
    def name(self) -> str:
        """The name in messages: file and place."""
        ...

    @property
    def size(self) -> int:
        """The number of bytes, known without reading them."""
        ...

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            DataError: They cannot be read.
        """
        ...


@dataclass(frozen=True)
class Sample:
    """One picture with its captions and its class, under a key.

    The ``key`` is stable, and unique in its source. ``image`` is a file, the undecoded bytes of
    one, or the place where they are stored. ``captions`` may be empty. ``label`` is the name of
    the class, None without one. Samples of one ``group`` are held out together; None makes a
    sample its own group. A picture of more than ``max_pixels`` is not read.
    """

    key: str
    image: Path | bytes | _Stored
    captions: tuple[str, ...]
    label: str | None
    group: str | None = None
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Skip:
    """A row or a picture that a source leaves out: its place, and the reason."""

    where: str
    reason: str
    kind: Literal["picture", "row"] = "picture"


@dataclass(frozen=True)
class Extras:
    """What some sources offer in addition; None for what a source does not offer.

    ``shard_lengths`` is how many samples each tar has, in the source's order. ``class_names`` and
    ``templates`` come from files next to the data. If a source is a part of another one, ``whole``
    is the number of samples of the other.
    """

    shard_lengths: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    whole: int | None = None


class Source(Protocol):
    """Pictures behind an index; indexing one is cheap and reads no pixels.

    ``name`` is the file or folder. ``skipped`` is what was left out while indexing, and ``rows``
    is how many rows were read (pictures, if there is no table), including those left out. A source
    may also have an attribute ``extras``; see :func:`extras_of`.
    """

    name: str
    skipped: tuple[Skip, ...]
    rows: int

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; IndexError beyond the end."""
        ...


@runtime_checkable
class _WithExtras(Protocol):
    @property
    def extras(self) -> Extras:
        """What the source offers in addition."""
        ...


def extras_of(source: Source) -> Extras:
    """Return what a source offers in addition; nothing if it has no ``extras``."""
    return source.extras if isinstance(source, _WithExtras) else Extras()


class Subset:
    """The samples of a source at some indices, in the order of the indices."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        self.name = source.name
        self.skipped = source.skipped
        self.rows = source.rows

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[int(self._indices[index])]

    @cached_property
    def extras(self) -> Extras:
        """The extras of the whole source, with this part's number of samples in each tar."""
        of_whole = extras_of(self._source)
        lengths = of_whole.shard_lengths
        if lengths is not None:
            lengths = self._shard_lengths(lengths)
        whole = len(self._source) if of_whole.whole is None else of_whole.whole
        return replace(of_whole, shard_lengths=lengths, whole=whole)

    def _shard_lengths(self, of_whole: NDArray[np.int64]) -> NDArray[np.int64] | None:
        shards = np.searchsorted(np.cumsum(of_whole), self._indices, side="right")
        if np.any(np.diff(shards) < 0):
            return None  # Lanes rely on the samples of a tar following each other.
        return np.bincount(shards, minlength=len(of_whole))


class _Limited:
    """A source whose pictures of more than ``max_pixels`` cannot be read."""

    def __init__(self, source: Source, max_pixels: int) -> None:
        self._source = source
        self._max_pixels = max_pixels
        self.name = source.name
        self.skipped = source.skipped
        self.rows = source.rows
        self.extras = extras_of(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._source[index], max_pixels=self._max_pixels)


def limit_pixels(source: Source, max_pixels: int) -> Source:
    """Return a source whose pictures of more than ``max_pixels`` cannot be read."""
    return source if max_pixels == MAX_PIXELS else _Limited(source, max_pixels)


def open_image(sample: Sample, *, draft: int | None = None) -> Image.Image:
    """Return the picture of a sample as RGB, with its EXIF orientation applied.

    With ``draft``, a JPEG may be decoded at a fraction of its size, but with a shorter side of at
    least ``draft`` pixels.

    Raises:
        DataError: The picture is missing, too large or cannot be read; the message names it.
    """
    image = sample.image
    if isinstance(image, Path):
        return decode(image, max_pixels=sample.max_pixels, draft=draft)
    data, name = (image, sample.key) if isinstance(image, bytes) else (image.read(), image.name)
    return decode(data, name=name, max_pixels=sample.max_pixels, draft=draft)


def image_size(sample: Sample) -> int:
    """Return the size of a sample's picture in bytes, 0 if its file is gone."""
    if isinstance(sample.image, bytes):
        return len(sample.image)
    if not isinstance(sample.image, Path):
        return sample.image.size
    try:
        return sample.image.stat().st_size
    except OSError:
        return 0


def split_by_hash(source: Source, *, share: float, at_most: int) -> tuple[Subset, Subset]:
    """Split a source into (kept, held out), with at least one sample in each.

    The hash of a sample's group decides, or that of its key if it has no group. Groups with a hash
    below ``share`` of the range are held out, the smallest hashes first, up to ``at_most``
    samples. A group is never split; the first one is held out even if it is larger. Both parts
    keep the order of the source.

    Raises:
        DataError: The source has fewer than two samples, or all of them belong to one group.
    """
    samples = (source[index] for index in range(len(source)))
    hashes = np.fromiter(
        (draw_integers("split", sample.group or sample.key)[0] for sample in samples),
        dtype=np.uint64,
        count=len(source),
    )
    values, groups, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    if len(values) < 2:
        what = "picture" if len(source) < 2 else "pictures with the same id"
        raise DataError(
            f"{source.name}: {len(source)} {what} cannot be split into a part to train on and a "
            "part to hold out; give more pictures, or set data.validation"
        )
    limit = np.uint64(min(int(share * 2**64), 2**64 - 1))
    fitting = (values < limit) & (np.cumsum(counts) <= at_most)
    number = max(1, min(int(np.count_nonzero(fitting)), len(values) - 1))
    held_out = groups < number
    return Subset(source, np.flatnonzero(~held_out)), Subset(source, np.flatnonzero(held_out))


def check_skips(source_name: str, skips: Sequence[Skip], total: int, *, max_skipped: float) -> None:
    """Stop if more than the share ``max_skipped`` of ``total`` entries was skipped.

    ``total`` includes the skipped entries.

    Raises:
        DataError: Too many were skipped; the message names the first of them.
    """
    if not skips or len(skips) <= max_skipped * total:
        return
    first = skips[0]
    raise DataError(
        f"{source_name}: {len(skips)} of {total} {first.kind}s had to be skipped, more than "
        f"data.max_skipped = {max_skipped:g} allows; the first is {visible(first.where)}: "
        f"{first.reason}; fix them or raise data.max_skipped"
    )


def check_source(source: Source, *, max_skipped: float) -> None:
    """Stop if a source left out too many of its rows or pictures while indexing.

    Raises:
        DataError: As in :func:`check_skips`.
    """
    rows = [skip for skip in source.skipped if skip.kind == "row"]
    pictures = [skip for skip in source.skipped if skip.kind == "picture"]
    check_skips(source.name, rows, source.rows, max_skipped=max_skipped)
    whole = extras_of(source).whole
    read = len(source) if whole is None else whole
    check_skips(source.name, pictures, read + len(pictures), max_skipped=max_skipped)
