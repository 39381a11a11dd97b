"""A teacher's embeddings on disk, looked up by the keys of pictures and by captions.

A cache is a folder for one teacher and one source (format 1)::

    manifest.json          the teacher, the views, and the list of whole shards
    images-00000.npy       [rows, views, width]    images-00000.keys.npy      [rows, 3]
    captions-00000.npy     [rows, width]           captions-00000.keys.npy    [rows, 3]

A row of ``keys`` holds two 64-bit digests of the picture's key (or the caption's text) and the
picture's size in bytes (0 for a caption). In int8 there are also ``images-00000.scales.npy`` and
``captions-00000.scales.npy``, with one float32 per vector. A shard is part of the cache once the
manifest lists it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.sample import Sample, Source, image_size
from distill.teacher.cache.manifest import Manifest, Part
from distill.teacher.cache.rows import Rows, draw_numbers, draw_rows, row_digests
from export.runtime.errors import CacheError

# Samples that are read at a time; in some sources they contain the bytes of the picture.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Missing:
    """What a cache lacks for a source.

    Attributes:
        pictures: The numbers of pictures that are new or have changed.
        changed: How many of them have changed.
        captions: The captions and other texts.
    """

    pictures: list[int]
    changed: int
    captions: list[str]

    def __bool__(self) -> bool:
        """Tell whether anything is missing."""
        return bool(self.pictures or self.captions)


class Cache:
    """A cache of one source, finished or not, open for reading."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Map its shards."""
        self.folder = folder
        self.manifest = manifest
        self.images = Rows(folder, manifest.shards["images"], manifest.width)
        self.captions = Rows(folder, manifest.shards["captions"], manifest.width)

    def missing(
        self,
        source: Source,
        *,
        images: bool = True,
        captions: bool = True,
        extra_texts: Sequence[str] = (),
    ) -> Missing:
        """Return what the cache lacks: keys with the same size in bytes, and captions.

        ``extra_texts`` are texts that it should also hold, although they are not captions of the
        source.
        """
        pictures: list[int] = []
        changed = 0
        texts: dict[str, None] = {}
        for first, samples in enumerate(_pieces(source)):
            if captions:
                texts.update(dict.fromkeys(text for item in samples for text in item.captions))
            if not images:
                continue
            rows = self.images.find(row_digests(sample.key for sample in samples))
            sizes = self.images.sizes(rows).tolist()
            for number, (sample, row) in enumerate(zip(samples, rows.tolist(), strict=True)):
                size = image_size(sample)
                damaged = self.manifest.damaged(sample.key)
                if (row < 0 or size != sizes[number]) and size != damaged:
                    pictures.append(first * _AT_ONCE + number)
                    changed += row >= 0
        asked = list(dict.fromkeys([*texts, *extra_texts]))
        absent = np.flatnonzero(self.captions.find(row_digests(asked)) < 0)
        return Missing(pictures, changed, [asked[number] for number in absent.tolist()])

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Return the embeddings of texts ``[N, width]``, None unless the cache holds them all."""
        rows = self.captions.find(row_digests(texts))
        return None if (rows < 0).any() else self.captions.take(rows).numpy()


class CachedTeacher:
    """Looks a teacher's embeddings up instead of computing them.

    Args:
        caches: One cache for each source, in the order of the sources.
    """

    def __init__(self, caches: Sequence[Cache]) -> None:
        self._caches = caches
        self.folder = caches[0].folder.parent
        self.width = caches[0].manifest.width
        self.logit_scale = caches[0].manifest.logit_scale
        self.logit_bias = caches[0].manifest.logit_bias
        self._pools: dict[Part, _Pool] = {}

    def attach(self, sources: Sequence[Source]) -> None:
        """Find the rows of the sources, from which :meth:`corpus` draws.

        A cache may hold more: held-out pictures, captions of another list, other texts. A caption
        counts once, however many pictures or sources have it.
        """
        pictures: list[NDArray[np.int64]] = []
        captions: list[NDArray[np.int64]] = []
        seen = np.zeros(0, np.uint64)
        for cache, source in zip(self._caches, sources, strict=True):
            keys, texts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
            for samples in _pieces(source):
                keys.append(cache.images.find(row_digests(sample.key for sample in samples)))
                every = (text for sample in samples for text in sample.captions)
                texts.append(cache.captions.find(row_digests(every)))
            pictures.append(_found(keys, cache.images))
            rows = _found(texts, cache.captions)
            digests = cache.captions.digests(rows)[:, 0]
            captions.append(rows[~np.isin(digests, seen)])
            seen = np.concatenate([seen, digests])
        self._pools = {
            "images": _Pool([cache.images for cache in self._caches], pictures, by_source=True),
            "captions": _Pool(
                [cache.captions for cache in self._caches], captions, by_source=False
            ),
        }

    def corpus(self, part: Part, count: int, *draw: str | int) -> Tensor:
        """Return ``count`` embeddings of the attached sources, float32 ``[count, width]``.

        They are L2-normalised and drawn without repetition. The draw is a function of ``draw``
        alone. Each picture has one view, which is drawn too. If the sources have fewer rows than
        ``count``, all of them are returned.
        """
        return self._pools[part].draw(count, *draw)

    def corpus_ids(self, part: Part, count: int, *draw: str | int) -> Tensor:
        """Return the ids of the rows of :meth:`corpus`, int64 ``[count]``.

        They are those of :func:`picture_ids` and :func:`caption_ids`.
        """
        return self._pools[part].ids(count, *draw)

    def images(self, sources: Sequence[int], keys: Sequence[str], views: Sequence[int]) -> Tensor:
        """Return the embeddings of views of pictures, float32 ``[B, width]``, L2-normalised.

        Raises:
            CacheError: A picture is not in the cache.
        """
        digests, numbers = row_digests(keys), np.asarray(views, np.int64)
        of_source = np.asarray(sources, np.int64)
        result = torch.empty(len(keys), self.width)
        for source in np.unique(of_source).tolist():
            cache, places = self._caches[source], np.flatnonzero(of_source == source)
            rows = cache.images.find(digests[places])
            absent = np.flatnonzero(rows < 0)
            if len(absent):
                raise CacheError(
                    f"{cache.folder}: picture {keys[places[absent[0]]]!r} is not in the cache; "
                    "run `clip-distill cache` again to add it"
                )
            result[torch.from_numpy(places)] = cache.images.take(rows, numbers[places])
        return result

    def captions(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings of captions of any source, float32 ``[B, width]``, L2-normalised.

        Raises:
            CacheError: A caption is not in the cache.
        """
        digests = row_digests(texts)
        result = torch.empty(len(texts), self.width)
        left = np.arange(len(texts))
        for cache in self._caches:
            rows = cache.captions.find(digests[left])
            found = rows >= 0
            result[torch.from_numpy(left[found])] = cache.captions.take(rows[found])
            left = left[~found]
            if not len(left):
                return result
        raise CacheError(
            f"{self._caches[0].folder}: caption {texts[left[0]][:60]!r} is not in the cache; "
            "run `clip-distill cache` again to add it"
        )


class _Pool:
    """Rows of one part of several caches, numbered consecutively."""

    def __init__(
        self, parts: Sequence[Rows], rows: Sequence[NDArray[np.int64]], *, by_source: bool
    ) -> None:
        self._parts = parts
        self._rows = rows
        self._by_source = by_source
        self._ends = np.cumsum([len(some) for some in rows])

    def ids(self, count: int, *draw: str | int) -> Tensor:
        pieces = [
            # A key is unique only within its source; a caption is the same in all sources.
            _ids(part.digests(rows)[:, 0], number if self._by_source else 0)
            for number, (part, rows) in enumerate(self._drawn(count, *draw))
        ]
        return torch.from_numpy(np.concatenate(pieces))

    def draw(self, count: int, *draw: str | int) -> Tensor:
        drawn = list(self._drawn(count, *draw))
        views = draw_numbers(sum(len(rows) for _, rows in drawn), "view of corpus", *draw)
        pieces, start = [], 0
        for part, rows in drawn:
            of_part = views[start : start + len(rows)] % np.uint64(part.views)
            pieces.append(part.take(rows, of_part.astype(np.int64)))
            start += len(rows)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _drawn(self, count: int, *draw: str | int) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """Yield each part with the rows that are drawn from it."""
        numbers = draw_rows(int(self._ends[-1]), count, "corpus", *draw)
        start = begin = 0
        for part, rows, end in zip(self._parts, self._rows, self._ends.tolist(), strict=True):
            stop = int(np.searchsorted(numbers, end))
            yield part, rows[numbers[start:stop] - begin]
            start, begin = stop, end


def picture_ids(sources: Sequence[int], keys: Sequence[str]) -> NDArray[np.int64]:
    """Return an id of each picture, int64 ``[n]``; ``sources`` numbers the source of each key."""
    return _ids(row_digests(keys)[:, 0], np.asarray(sources, np.uint64))


def caption_ids(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return an id of each caption, int64 ``[n]``; it is the same in every source."""
    return _ids(row_digests(texts)[:, 0], 0)


def _ids(digests: NDArray[np.uint64], source: int | NDArray[np.uint64]) -> NDArray[np.int64]:
    # An odd factor gives each source a different offset; sums of uint64 wrap around.
    spread = np.asarray(source, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (digests + spread).view(np.int64)


def _pieces(source: Source) -> Iterator[list[Sample]]:
    for first in range(0, len(source), _AT_ONCE):
        yield [source[number] for number in range(first, min(first + _AT_ONCE, len(source)))]


def _found(pieces: Sequence[NDArray[np.int64]], part: Rows) -> NDArray[np.int64]:
    """Return the rows that were found, each once, in an order independent of the writers."""
    rows = np.unique(np.concatenate(pieces))
    rows = rows[rows >= 0]
    return rows[np.argsort(part.digests(rows)[:, 0], kind="stable")]
