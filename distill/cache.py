"""The teacher's embeddings on disk: found by key and by caption, checked before they are trusted.

A cache is a folder for one teacher and one source (format 1)::

    manifest.json          who made it, of which views; the list of whole shards
    images-00000.npy       [rows, views, width]    images-00000.keys.npy      [rows, 3]
    captions-00000.npy     [rows, width]           captions-00000.keys.npy    [rows, 3]

A row of ``keys`` holds two 64-bit digests of the picture's key (or the caption's text) and the
picture's size in bytes (0 for a caption). A shard counts once the manifest lists it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.counter import draw_integers
from distill.data.pairs import iterate
from distill.data.sample import Sample, Source
from export.runtime.errors import CacheError

FORMAT = 1
Part = Literal["images", "captions"]
PARTS: tuple[Part, ...] = ("images", "captions")


@dataclass(frozen=True)
class Identity:
    """What cached embeddings depend on, beside the data."""

    teacher: str
    fingerprint: str
    preprocessing: Mapping[str, Any]
    views: Mapping[str, Any]
    view_count: int
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return the values as they stand in the manifest."""
        return {
            "teacher": self.teacher,
            "fingerprint": self.fingerprint,
            "preprocessing": dict(self.preprocessing),
            "views": dict(self.views),
            "view_count": self.view_count,
            "dtype": self.dtype,
        }


@dataclass
class Manifest:
    """The content of ``manifest.json``."""

    identity: dict[str, Any]
    width: int
    logit_scale: float
    logit_bias: float
    shards: dict[Part, list[dict[str, Any]]] = field(
        default_factory=lambda: {"images": [], "captions": []}
    )
    unreadable: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest whole, under a temporary name first."""
        values = {
            "format": FORMAT,
            **self.identity,
            "width": self.width,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "images": self.shards["images"],
            "captions": self.shards["captions"],
            "unreadable": self.unreadable,
        }
        temporary = folder / "manifest.json.tmp"
        temporary.write_text(json.dumps(values, indent=1) + "\n")
        temporary.replace(folder / "manifest.json")


def read_manifest(folder: Path, identity: Identity) -> Manifest | None:
    """Return the manifest of a cache, or None where there is no cache yet.

    Raises:
        CacheError: the cache is damaged, or was made by another teacher, preprocessing or of
            other views; the message names what differs.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        known = values["format"] == FORMAT
        found = {key: values[key] for key in identity.to_dict()}
        manifest = Manifest(
            identity=found,
            width=values["width"],
            logit_scale=values["logit_scale"],
            logit_bias=values["logit_bias"],
            shards={"images": values["images"], "captions": values["captions"]},
            unreadable=values["unreadable"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path}: not a cache manifest of format {FORMAT}; delete the folder to build it again"
        ) from error
    if not known:
        raise CacheError(
            f"{path}: format {values['format']}, but this version reads format {FORMAT}; "
            "set cache.folder to another folder"
        )
    different = _differences(found, identity.to_dict())
    if different:
        raise CacheError(
            f"{folder}: the cache was built for something else ({'; '.join(different)}); "
            "go back to those settings, or set cache.folder to another folder"
        )
    return manifest


def _differences(found: Any, asked: Any, path: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(asked, dict):
        keys = sorted(found.keys() | asked.keys())
        return [
            line
            for key in keys
            for line in _differences(found.get(key), asked.get(key), f"{path}.{key}".lstrip("."))
        ]
    # The manifest has been through JSON: a tuple came back as a list.
    if json.dumps(found) == json.dumps(asked):
        return []
    return [f"{path} is {json.dumps(found)}, the recipe asks for {json.dumps(asked)}"]


def row_digest(text: str) -> tuple[int, int]:
    """Return the two 64-bit digests by which a key or a caption is found."""
    first, second = draw_integers("row", text, count=2)
    return first, second


def image_size(sample: Sample) -> int:
    """Return the size of a sample's picture in bytes, 0 where its file is gone."""
    if isinstance(sample.image, bytes):
        return len(sample.image)
    try:
        return sample.image.stat().st_size
    except OSError:
        return 0


class Rows:
    """One part of a cache, memory-mapped: embeddings found by the digest of a text."""

    def __init__(self, folder: Path, shards: Iterable[Mapping[str, Any]]) -> None:
        """Map the whole shards.

        Raises:
            CacheError: a shard is missing or has another length than the manifest says.
        """
        self._arrays: list[NDArray[Any]] = []
        keys: list[NDArray[np.uint64]] = []
        for shard in shards:
            path = folder / shard["file"]
            try:
                array = np.load(path, mmap_mode="r")
                key = np.load(path.with_suffix(".keys.npy"))
            except (OSError, ValueError, EOFError) as error:
                raise CacheError(
                    f"{path}: the shard is missing or damaged; delete {folder} to build it again"
                ) from error
            if len(array) != shard["rows"] or key.shape != (shard["rows"], 3):
                raise CacheError(
                    f"{path}: {len(array)} rows where the manifest says {shard['rows']}; "
                    f"delete {folder} to build it again"
                )
            self._arrays.append(array)
            keys.append(key)
        self._keys = np.concatenate(keys) if keys else np.zeros((0, 3), np.uint64)
        # Stable, so that of two rows for one picture the later one, which replaced it, comes last.
        self._order = np.argsort(self._keys[:, 0], kind="stable")
        self._sorted = self._keys[self._order, 0]
        self._ends = np.cumsum([len(array) for array in self._arrays])

    def find(self, digest: tuple[int, int]) -> int | None:
        """Return the number of the newest row with this digest."""
        last = int(np.searchsorted(self._sorted, np.uint64(digest[0]), side="right")) - 1
        while last >= 0 and int(self._sorted[last]) == digest[0]:
            row = int(self._order[last])
            if int(self._keys[row, 1]) == digest[1]:
                return row
            last -= 1
        return None

    def size(self, row: int) -> int:
        """Return the size in bytes that the picture of a row had."""
        return int(self._keys[row, 2])

    def embedding(self, row: int) -> NDArray[Any]:
        """Return one row: ``[views, width]`` for a picture, ``[width]`` for a caption."""
        shard = int(np.searchsorted(self._ends, row, side="right"))
        start = 0 if shard == 0 else int(self._ends[shard - 1])
        array: NDArray[Any] = self._arrays[shard][row - start]
        return array


@dataclass(frozen=True)
class Missing:
    """What a cache lacks for a source: pictures never seen, pictures changed since, captions."""

    pictures: list[int]
    changed: int
    captions: list[str]

    def __bool__(self) -> bool:
        """Tell whether anything is missing."""
        return bool(self.pictures or self.captions)


class Cache:
    """A finished or unfinished cache of one source, open for reading."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Map its shards."""
        self.folder = folder
        self.manifest = manifest
        self.images = Rows(folder, manifest.shards["images"])
        self.captions = Rows(folder, manifest.shards["captions"])

    def missing(self, source: Source, *, images: bool = True, captions: bool = True) -> Missing:
        """Compare the cache with the data: every key with the same size, and every caption."""
        pictures: list[int] = []
        changed = 0
        texts: dict[str, None] = {}
        for number, sample in enumerate(iterate(source)):
            if images:
                row = self.images.find(row_digest(sample.key))
                size = image_size(sample)
                known = None if row is None else self.images.size(row)
                damaged = self.manifest.unreadable.get(sample.key, {}).get("bytes")
                if size not in (known, damaged):
                    pictures.append(number)
                    changed += known is not None
            if captions:
                texts.update(dict.fromkeys(sample.captions))
        absent = [text for text in texts if self.captions.find(row_digest(text)) is None]
        return Missing(pictures, changed, absent)


class CachedTeacher:
    """Looks embeddings up instead of computing them; one cache for each source."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        """Take the caches in the order of the sources."""
        self._caches = caches
        self.width = caches[0].manifest.width
        self.logit_scale = caches[0].manifest.logit_scale
        self.logit_bias = caches[0].manifest.logit_bias

    def images(self, sources: Sequence[int], keys: Sequence[str], views: Sequence[int]) -> Tensor:
        """Return the embeddings of views of pictures, float32 ``[B, width]``, L2-normalised.

        Raises:
            CacheError: a picture is not in the cache.
        """
        rows = []
        for source, key, view in zip(sources, keys, views, strict=True):
            part = self._caches[source].images
            row = part.find(row_digest(key))
            if row is None:
                raise CacheError(
                    f"{self._caches[source].folder}: picture {key!r} is not in the cache; "
                    "run `clip-distill cache` again to add it"
                )
            rows.append(part.embedding(row)[view])
        return _normalised(rows)

    def captions(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings of captions of any source, float32 ``[B, width]``, L2-normalised.

        Raises:
            CacheError: a caption is not in the cache.
        """
        return _normalised([self._caption(text) for text in texts])

    def _caption(self, text: str) -> NDArray[Any]:
        digest = row_digest(text)
        for cache in self._caches:
            row = cache.captions.find(digest)
            if row is not None:
                return cache.captions.embedding(row)
        raise CacheError(
            f"{self._caches[0].folder}: caption {text[:60]!r} is not in the cache; "
            "run `clip-distill cache` again to add it"
        )


def _normalised(rows: Sequence[NDArray[Any]]) -> Tensor:
    # Rounding to float16 takes a vector off the unit sphere by up to 5e-4.
    embeddings = torch.from_numpy(np.stack(rows).astype(np.float32))
    return torch.nn.functional.normalize(embeddings, dim=-1)
