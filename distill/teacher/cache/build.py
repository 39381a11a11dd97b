"""Building a cache: shard by shard, so that a killed run goes on at the last whole one."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from distill.basis.progress import make_console
from distill.data.sample import Skip, Source, check_skips, image_size, open_image
from distill.data.views import ViewSettings, draw_view, render_view
from distill.data.workers import from_workers, ignore_interrupts
from distill.teacher.cache._order import in_order, shard_ends, share_pictures
from distill.teacher.cache.cache import Cache, Missing
from distill.teacher.cache.manifest import (
    PARTS,
    Identity,
    Manifest,
    Part,
    merge_parts,
    read_manifest,
)
from distill.teacher.cache.rows import StoredAs, row_digests, save_shard
from distill.teacher.protocol import Teacher
from export.runtime.errors import DataError
from export.runtime.preprocess import Preprocessing

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuildSettings:
    """How a cache is written; ``views``, ``view_count`` and ``dtype`` alone change its content."""

    views: ViewSettings
    view_count: int
    dtype: StoredAs
    shard_rows: int
    batch_size: int
    workers: int
    max_skipped: float


def _alone() -> None:
    """Wait for nobody."""


@dataclass(frozen=True)
class Sharing:
    """What a build shares: its work with other processes, captions with other caches.

    ``rank`` of ``count`` is this process, ``wait`` returns once all of them have called it, and
    ``caches`` are those of other sources, whole, of the same teacher.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = _alone
    caches: Sequence[Cache] = ()


NOTHING_SHARED = Sharing()


def identify(teacher: Teacher, settings: BuildSettings) -> Identity:
    """Return what a cache of this teacher with these settings is known by."""
    return Identity(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        preprocessing=teacher.preprocessing.to_dict(),
        views=settings.views.to_dict(),
        view_count=settings.view_count,
        dtype=settings.dtype,
    )


def open_cache(folder: Path, teacher: Teacher, settings: BuildSettings) -> Cache:
    """Open what there is of a cache, nothing where it has not been begun; create nothing.

    Raises:
        CacheError: the folder holds a cache of something else.
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
    progress: Progress,
    parts: Collection[Part] = PARTS,
    extra_texts: Sequence[str] = (),
    sharing: Sharing = NOTHING_SHARED,
) -> tuple[Cache, list[Skip]]:
    """Add to a cache what the source needs and it lacks; return it with the pictures left out.

    ``progress`` is told the part, how many of its rows are done and how many there are. Of the
    source only ``parts`` are embedded: its pictures, its captions, or both.
    ``extra_texts`` are embedded as captions are. Each of several processes embeds its share of
    what is missing, into shards of its own; all must call this, with the same arguments.

    Raises:
        CacheError: the folder holds a cache of something else.
        DataError: more pictures than ``max_skipped`` cannot be read.
    """
    # Refuses what does not fit before anything is created.
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
        # Nobody writes before all have seen the same.
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
    """Create the folder, and build in it alone; the lock of a process that dies goes with it."""
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
            # A file system without locks: there it is up to the user.
            yield
            return
        yield
    finally:
        os.close(number)


class _Build:
    """One process's share of what a cache lacks."""

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
        # The first process goes on with the manifest of all; the others begin parts of their own.
        self._manifest = cache.manifest if sharing.rank == 0 else cache.manifest.empty()
        self._writer = _Writer(cache, self._manifest, settings, sharing)

    def pictures(self, missing: Missing, progress: Progress) -> None:
        """Embed all views of this process's share of the missing pictures."""
        sharing, rows = self._sharing, self._settings.shard_rows
        numbers = share_pictures(
            self._source, missing.pictures, rank=sharing.rank, count=sharing.count
        )
        ends = shard_ends(self._source, numbers, rows=rows)
        pictures = PictureViews(self._source, numbers, self._teacher.preprocessing, self._settings)
        done = 0
        for batch in read_pictures(pictures, self._settings):
            self._note(batch)
            keys, embeddings = _encode(batch, self._teacher, self._settings)
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

    def captions(self, missing: Missing, progress: Progress) -> None:
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

    def _note(self, batch: Sequence["Picture"]) -> None:
        """Remember which pictures of a batch cannot be read, and which can be again."""
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
        """Copy what other caches hold of some texts; return the rest."""
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


class _Writer:
    """Collects rows and writes a shard whenever enough of them are there.

    Process p of W numbers its shards n + p, n + p + W, …, where n is the first number that the
    cache has no shard of: no two processes write the same file, and newer shards come last.
    """

    def __init__(
        self, cache: Cache, manifest: Manifest, settings: BuildSettings, sharing: Sharing
    ) -> None:
        self._folder = cache.folder
        self._manifest = manifest
        self._settings = settings
        self._sharing = sharing
        self._number = {part: cache.manifest.next_number(part) + sharing.rank for part in PARTS}
        self._waiting: dict[Part, list[tuple[NDArray[np.uint64], NDArray[np.float32]]]] = {
            part: [] for part in PARTS
        }

    def add(self, part: Part, keys: NDArray[np.uint64], embeddings: NDArray[np.float32]) -> None:
        if len(keys):
            self._waiting[part].append((keys, embeddings))
        if sum(len(rows) for rows, _ in self._waiting[part]) >= self._settings.shard_rows:
            self.flush(part)

    def flush(self, part: Part) -> None:
        waiting, self._waiting[part] = self._waiting[part], []
        if not waiting:
            return
        path = self._folder / f"{part}-{self._number[part]:05d}.npy"
        self._number[part] += self._sharing.count
        keys = np.concatenate([keys for keys, _ in waiting])
        embeddings = np.concatenate([embeddings for _, embeddings in waiting])
        save_shard(path, keys, embeddings, self._settings.dtype)
        self._manifest.shards[part].append({"file": path.name, "rows": len(keys)})
        self.close()

    def close(self) -> None:
        """List what was written so far."""
        self._manifest.write(self._folder, self._sharing.rank)


def read_pictures(pictures: "PictureViews", settings: BuildSettings) -> Iterable[list["Picture"]]:
    """Yield the pictures in batches, decoded by worker processes."""
    loader = DataLoader(
        pictures,
        batch_size=settings.batch_size,
        collate_fn=list,
        num_workers=settings.workers,
        worker_init_fn=ignore_interrupts if settings.workers else None,
    )
    return from_workers(loader)


def _encode(
    batch: Sequence["Picture"], teacher: Teacher, settings: BuildSettings
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return keys ``[n, 3]`` and embeddings ``[n, views, width]`` of the readable pictures."""
    readable = [picture for picture in batch if picture.pixels is not None]
    shape = (len(readable), settings.view_count, teacher.width)
    if not readable:
        return np.zeros((0, 3), np.uint64), np.zeros(shape, np.float32)
    pixels = torch.from_numpy(np.concatenate([picture.pixels for picture in readable]))
    parts = torch.split(pixels, settings.batch_size)
    embeddings = [teacher.encode_images(part).cpu() for part in parts]
    sizes = np.array([[picture.size] for picture in readable], np.uint64)
    keys = np.concatenate([row_digests(picture.key for picture in readable), sizes], axis=1)
    return keys, torch.cat(embeddings).reshape(shape).numpy()


@dataclass(frozen=True)
class Picture:
    """All views of a picture: uint8 ``[views, H, W, 3]``, None where it cannot be read."""

    key: str
    size: int
    pixels: Any
    reason: str


class PictureViews(Dataset[Picture]):
    """All views of some pictures of a source, at the teacher's size."""

    def __init__(
        self,
        source: Source,
        numbers: Sequence[int],
        preprocessing: Preprocessing,
        settings: BuildSettings,
    ) -> None:
        """Take the pictures' numbers in the source."""
        self._source = source
        self._numbers = numbers
        self._preprocessing = preprocessing
        self._views = settings.views
        self._count = settings.view_count

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int) -> Picture:
        sample = self._source[self._numbers[item]]
        size = image_size(sample)
        try:
            image = open_image(sample, draft=self._views.draft)
            pixels = [
                render_view(
                    image,
                    draw_view(self._views, sample.key, number, size=image.size),
                    self._preprocessing,
                )
                for number in range(self._count)
            ]
        except DataError as error:
            return Picture(sample.key, size, None, str(error))
        return Picture(sample.key, size, np.stack(pixels), "")
