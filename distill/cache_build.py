"""Building a cache: shard by shard, so that a killed run goes on at the last whole one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from distill.cache import Cache, Identity, Manifest, Part, image_size, read_manifest, row_digest
from distill.data.sample import Skip, Source, check_skips, open_image
from distill.teacher.protocol import Teacher
from distill.train.batches import ignore_interrupts
from distill.views import ViewSettings, draw_view, render_view
from export.runtime.errors import DataError
from export.runtime.preprocess import Preprocessing


@dataclass(frozen=True)
class BuildSettings:
    """How a cache is written; ``dtype`` alone changes what stands in it."""

    view_count: int
    dtype: str
    shard_rows: int
    batch_size: int
    workers: int
    max_skipped: float


def identify(teacher: Teacher, views: ViewSettings, settings: BuildSettings) -> Identity:
    """Return what a cache of this teacher and these views is known by."""
    return Identity(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        preprocessing=teacher.preprocessing.to_dict(),
        views=views.to_dict(),
        view_count=settings.view_count,
        dtype=settings.dtype,
    )


def build_cache(
    folder: Path,
    source: Source,
    teacher: Teacher,
    *,
    views: ViewSettings,
    settings: BuildSettings,
    progress: Callable[[str, int, int], None],
) -> tuple[Cache, list[Skip]]:
    """Add to a cache what the source needs and it lacks; return it with the pictures left out.

    ``progress`` is told the part, how many of its rows are done and how many there are.

    Raises:
        CacheError: the folder holds a cache of something else.
        DataError: more pictures than ``max_skipped`` cannot be read.
    """
    identity = identify(teacher, views, settings)
    manifest = read_manifest(folder, identity)
    if manifest is None:
        manifest = Manifest(
            identity=identity.to_dict(),
            width=teacher.width,
            logit_scale=teacher.logit_scale,
            logit_bias=teacher.logit_bias,
        )
    cache = Cache(folder, manifest)
    missing = cache.missing(source)
    if not missing:
        return cache, _unreadable(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, manifest, settings)
    pictures = _PictureViews(source, missing.pictures, teacher.preprocessing, views, settings)
    done = 0
    for batch in _read(pictures, settings):
        keys, embeddings = _encode(batch, teacher, settings, manifest)
        writer.add("images", keys, embeddings)
        done += len(batch)
        skips = _unreadable(manifest)
        check_skips(source.name, skips, len(source), max_skipped=settings.max_skipped)
        progress("pictures", done, len(missing.pictures))
    writer.flush("images")
    for first in range(0, len(missing.captions), settings.batch_size):
        texts = missing.captions[first : first + settings.batch_size]
        keys = np.array([(*row_digest(text), 0) for text in texts], np.uint64)
        writer.add("captions", keys, teacher.encode_texts(texts).cpu().numpy())
        progress("captions", first + len(texts), len(missing.captions))
    writer.flush("captions")
    manifest.write(folder)
    return Cache(folder, manifest), _unreadable(manifest)


class _Writer:
    """Collects rows and writes a shard whenever enough of them are there."""

    def __init__(self, folder: Path, manifest: Manifest, settings: BuildSettings) -> None:
        self._folder = folder
        self._manifest = manifest
        self._settings = settings
        self._waiting: dict[Part, list[tuple[NDArray[np.uint64], NDArray[Any]]]] = {
            "images": [],
            "captions": [],
        }

    def add(self, part: Part, keys: NDArray[np.uint64], embeddings: NDArray[np.float32]) -> None:
        if len(keys):
            self._waiting[part].append((keys, embeddings.astype(self._settings.dtype)))
        if sum(len(rows) for rows, _ in self._waiting[part]) >= self._settings.shard_rows:
            self.flush(part)

    def flush(self, part: Part) -> None:
        waiting, self._waiting[part] = self._waiting[part], []
        if not waiting:
            return
        shards = self._manifest.shards[part]
        path = self._folder / f"{part}-{len(shards):05d}.npy"
        keys = np.concatenate([keys for keys, _ in waiting])
        _save(path.with_suffix(".keys.npy"), keys)
        _save(path, np.concatenate([embeddings for _, embeddings in waiting]))
        shards.append({"file": path.name, "rows": len(keys)})
        self._manifest.write(self._folder)


def _save(path: Path, array: NDArray[Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)


def _unreadable(manifest: Manifest) -> list[Skip]:
    return [Skip(where=key, reason=entry["reason"]) for key, entry in manifest.unreadable.items()]


def _read(pictures: "_PictureViews", settings: BuildSettings) -> Iterable[list["_Picture"]]:
    return DataLoader(
        pictures,
        batch_size=settings.batch_size,
        collate_fn=list,
        num_workers=settings.workers,
        worker_init_fn=ignore_interrupts if settings.workers else None,
    )


def _encode(
    batch: Sequence["_Picture"], teacher: Teacher, settings: BuildSettings, manifest: Manifest
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return keys ``[n, 3]`` and embeddings ``[n, views, width]`` of the readable pictures."""
    readable = [picture for picture in batch if picture.pixels is not None]
    for picture in batch:
        manifest.unreadable.pop(picture.key, None)
        if picture.pixels is None:
            entry = {"bytes": picture.size, "reason": picture.reason}
            manifest.unreadable[picture.key] = entry
    shape = (len(readable), settings.view_count, teacher.width)
    if not readable:
        return np.zeros((0, 3), np.uint64), np.zeros(shape, np.float32)
    pixels = torch.from_numpy(np.concatenate([picture.pixels for picture in readable]))
    parts = torch.split(pixels, settings.batch_size)
    embeddings = [teacher.encode_images(part).cpu() for part in parts]
    keys = np.array([(*row_digest(item.key), item.size) for item in readable], np.uint64)
    return keys, torch.cat(embeddings).reshape(shape).numpy()


@dataclass(frozen=True)
class _Picture:
    key: str
    size: int
    pixels: Any  # uint8 [views, H, W, 3], None where the picture cannot be read
    reason: str


class _PictureViews(Dataset[_Picture]):
    """All views of one picture, at the teacher's size."""

    def __init__(
        self,
        source: Source,
        numbers: Sequence[int],
        preprocessing: Preprocessing,
        views: ViewSettings,
        settings: BuildSettings,
    ) -> None:
        self._source = source
        self._numbers = numbers
        self._preprocessing = preprocessing
        self._views = views
        self._count = settings.view_count

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int) -> _Picture:
        sample = self._source[self._numbers[item]]
        size = image_size(sample)
        try:
            image = open_image(sample)
        except DataError as error:
            return _Picture(sample.key, size, None, str(error))
        pixels = [
            render_view(
                image,
                draw_view(self._views, sample.key, number, size=image.size),
                self._preprocessing,
            )
            for number in range(self._count)
        ]
        return _Picture(sample.key, size, np.stack(pixels), "")
