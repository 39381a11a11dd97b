"""Building a cache shard by shard, so a killed run continues after the last whole shard."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.basis.progress import make_console
from distill.data.sample import Skip, Source, check_skips
from distill.data.views import ViewSettings
from distill.teacher.cache._order import in_order, shard_ends, share_pictures
from distill.teacher.cache._pictures import Picture, PictureViews, embed_pictures, read_pictures
from distill.teacher.cache._writer import ShardWriter
from distill.teacher.cache.cache import Cache, Missing
from distill.teacher.cache.manifest import (
    PARTS,
    Identity,
    Manifest,
    Part,
    merge_parts,
    read_manifest,
)
from distill.teacher.cache.rows import StoredAs, row_digests
from distill.teacher.protocol import Teacher

_Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuildSettings:
    """How a cache is built. Only ``views``, ``view_count`` and ``dtype`` change its content.

    Attributes:
        views: How views are drawn.
        view_count: How many views each picture has.
        dtype: How embeddings are stored.
        shard_rows: How many rows a shard holds.
        batch_size: How many views or captions are embedded at a time.
        workers: How many processes decode pictures.
        max_skipped: The share of pictures that may be unreadable, between 0 and 1.
    """

    views: ViewSettings
    view_count: int
    dtype: StoredAs
    shard_rows: int
    batch_size: int
    workers: int
    max_skipped: float


def _alone() -> None:
    """Return at once: there is no other process to wait for."""


@dataclass(frozen=True)
class Sharing:
    """Other processes that share the work of a build, and caches that share its captions.

    Attributes:
        rank: The number of this process.
        count: How many processes build the cache.
        wait: Returns once all processes have called it.
        caches: Finished caches of the same teacher for other sources.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = _alone
    caches: Sequence[Cache] = ()


NOTHING_SHARED = Sharing()


def identify(teacher: Teacher, settings: BuildSettings) -> Identity:
    """Return the identity of a cache for this teacher and these settings."""
    return Identity(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        preprocessing=teacher.preprocessing.to_dict(),
        views=settings.views.to_dict(),
        view_count=settings.view_count,
        dtype=settings.dtype,
    )


def open_cache(folder: Path, teacher: Teacher, settings: BuildSettings) -> Cache:
    """Open a cache, finished or not, without creating anything; a missing one is empty.

    Raises:
        CacheError: The folder holds a cache of another teacher, other views or another dtype.
    """
    identity = identify(teacher, settings)
    manifest = read_manifest(folder, identity)
    return Cache(folder, manifest or _begin(teacher, identity))


def build_cache(
    folder: Path,
    source: Source,
    teacher: Teacher,
    *,
    settings: BuildSettings,
    progress: _Progress,
    parts: Collection[Part] = PARTS,
    extra_texts: Sequence[str] = (),
    sharing: Sharing = NOTHING_SHARED,
) -> tuple[Cache, list[Skip]]:
    """Add what a cache lacks for a source; return the cache and the pictures that cannot be read.

    If several processes build the cache, all of them call this with the same arguments, and each
    embeds its share of the missing rows into its own shards.

    Args:
        folder: The folder of the cache.
        source: The source of pictures and captions.
        teacher: The teacher that embeds them.
        settings: How the cache is built.
        progress: Called with the part, how many of its rows are done and how many there are.
        parts: Whether pictures, captions or both are embedded.
        extra_texts: Further texts, embedded as captions are.
        sharing: Other processes and other caches.

    Raises:
        CacheError: The folder holds a cache of another teacher, other views or another dtype.
        DataError: A greater share of the pictures than ``max_skipped`` cannot be read.
    """
    # This refuses a cache with another identity before anything is created.
    cache = open_cache(folder, teacher, settings)
    identity, main = identify(teacher, settings), sharing.rank == 0
    new = _begin(teacher, identity)
    with _only_builder(folder, active=main):
        if main:
            merge_parts(folder, identity, new)
        sharing.wait()
        cache = open_cache(folder, teacher, settings)
        missing = cache.missing(
            source,
            images="images" in parts,
            captions="captions" in parts,
            extra_texts=extra_texts,
        )
        # No process writes before all of them have seen the same cache.
        sharing.wait()
        if missing:
            build = _Build(source, teacher, settings, cache, sharing)
            build.pictures(missing, progress)
            build.captions(missing, progress)
            sharing.wait()
            if main:
                merge_parts(folder, identity, new)
            sharing.wait()
            cache = open_cache(folder, teacher, settings)
    skips = cache.manifest.skips()
    if missing:
        check_skips(source.name, skips, len(source), max_skipped=settings.max_skipped)
    return cache, skips


def _begin(teacher: Teacher, identity: Identity) -> Manifest:
    return Manifest(
        identity=identity.to_dict(),
        width=teacher.width,
        logit_scale=teacher.logit_scale,
        logit_bias=teacher.logit_bias,
    )


@contextmanager
def _only_builder(folder: Path, *, active: bool) -> Iterator[None]:
    """Create the folder and lock it against other builds; the lock ends with the process."""
    if not active:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            make_console().print(f"cache: another run builds {folder}; waiting for it")
            fcntl.flock(number, fcntl.LOCK_EX)
        except OSError:
            # The file system has no locks, so the user has to avoid two builds at once.
            yield
            return
        yield
    finally:
        os.close(number)


class _Build:
    """One process's share of a build."""

    def __init__(
        self,
        source: Source,
        teacher: Teacher,
        settings: BuildSettings,
        cache: Cache,
        sharing: Sharing,
    ) -> None:
        self._source = source
        self._teacher = teacher
        self._settings = settings
        self._sharing = sharing
        self._held = cache.manifest
        # The first process continues the cache's manifest; each other one begins its own part.
        self._manifest = cache.manifest if sharing.rank == 0 else cache.manifest.empty()
        self._writer = ShardWriter(
            cache,
            self._manifest,
            dtype=settings.dtype,
            shard_rows=settings.shard_rows,
            rank=sharing.rank,
            count=sharing.count,
        )

    def pictures(self, missing: Missing, progress: _Progress) -> None:
        """Embed all views of this process's share of the missing pictures."""
        sharing, settings = self._sharing, self._settings
        numbers = share_pictures(
            self._source, missing.pictures, rank=sharing.rank, count=sharing.count
        )
        ends = shard_ends(self._source, numbers, rows=settings.shard_rows)
        pictures = PictureViews(
            self._source,
            numbers,
            self._teacher.preprocessing,
            views=settings.views,
            view_count=settings.view_count,
        )
        done = 0
        for batch in read_pictures(
            pictures, batch_size=settings.batch_size, workers=settings.workers
        ):
            self._note(batch)
            keys, embeddings = embed_pictures(
                batch,
                self._teacher,
                view_count=settings.view_count,
                batch_size=settings.batch_size,
            )
            readable = np.cumsum([picture.pixels is not None for picture in batch])
            begin = 0
            while ends and ends[0] <= done + len(batch):
                end = int(readable[ends.pop(0) - done - 1])
                self._writer.add("images", keys[begin:end], embeddings[begin:end])
                self._writer.flush("images")
                begin = end
            self._writer.add("images", keys[begin:], embeddings[begin:])
            done += len(batch)
            progress("pictures", done, len(numbers))
        self._writer.flush("images")

    def captions(self, missing: Missing, progress: _Progress) -> None:
        """Embed this process's share of the missing captions, or copy them from other caches."""
        sharing = self._sharing
        texts = self._copied(missing.captions[sharing.rank :: sharing.count])
        texts = in_order(self._source, texts, rows=self._settings.shard_rows)
        for first in range(0, len(texts), self._settings.batch_size):
            some = texts[first : first + self._settings.batch_size]
            self._add_captions(some, self._teacher.encode_texts(some).cpu().numpy())
            progress("captions", first + len(some), len(texts))
        self._writer.flush("captions")
        self._writer.close()

    def _note(self, batch: Sequence[Picture]) -> None:
        """Record the pictures of a batch that cannot be read, or can be read again."""
        held, noted = self._held.unreadable, self._manifest.unreadable
        for picture in batch:
            if picture.pixels is None:
                noted[picture.key] = {"bytes": picture.size, "reason": picture.reason}
            elif picture.key in held:
                noted[picture.key] = None
        skips = self._manifest.skips()
        limit = self._settings.max_skipped
        check_skips(self._source.name, skips, len(self._source), max_skipped=limit)

    def _copied(self, texts: list[str]) -> list[str]:
        """Copy the texts that other caches hold, and return the rest."""
        for cache in self._sharing.caches:
            rows = cache.captions.find(row_digests(texts))
            held = [text for text, row in zip(texts, rows, strict=True) if row >= 0]
            for first in range(0, len(held), self._settings.shard_rows):
                some = held[first : first + self._settings.shard_rows]
                found = cache.captions.find(row_digests(some))
                self._add_captions(some, cache.captions.take(found).numpy())
            texts = [text for text, row in zip(texts, rows, strict=True) if row < 0]
        return texts

    def _add_captions(self, texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        digests = row_digests(texts)
        keys = np.concatenate([digests, np.zeros((len(texts), 1), np.uint64)], axis=1)
        self._writer.add("captions", keys, embeddings)
