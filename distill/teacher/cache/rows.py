"""Rows of a cache: many embeddings found, drawn and read at once from memory-mapped shards."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.basis.draws import draw_integers
from distill.basis.files import whole_file
from export.runtime.errors import CacheError

StoredAs = Literal["float16", "float32", "int8"]
# Above this share of all rows, drawing one by one would mostly meet what was drawn before.
_MANY = 1 / 8
_LARGEST_BYTE = 127


def row_digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return the two 64-bit digests by which a key or a caption is found, uint64 ``[n, 2]``."""
    # What draw_integers("row", text, count=2) gives, without its general ways.
    parts = [
        hashlib.blake2b(b"str:row\0str:" + text.encode("utf-8", "surrogatepass"), digest_size=16)
        for text in texts
    ]
    joined = b"".join(part.digest() for part in parts)
    return np.frombuffer(joined, "<u8").reshape(-1, 2).astype(np.uint64, copy=False)


def _quantise(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round vectors ``[…, D]`` to int8 with one scale each, ``[…]``: max |x| / 127, symmetric."""
    largest = np.abs(embeddings).max(axis=-1)
    scales = (largest / _LARGEST_BYTE).astype(np.float32)
    steps = np.rint(embeddings / np.where(scales > 0, scales, 1)[..., None])
    return steps.astype(np.int8), scales


def save_shard(
    path: Path, keys: NDArray[np.uint64], embeddings: NDArray[np.float32], dtype: StoredAs
) -> None:
    """Write a shard and what belongs to it, each under a temporary name first, itself last."""
    _save(path.with_suffix(".keys.npy"), keys)
    if dtype == "int8":
        rounded, scales = _quantise(embeddings)
        _save(path.with_suffix(".scales.npy"), scales)
        _save(path, rounded)
    else:
        _save(path, embeddings.astype(dtype))


def draw_numbers(count: int, *draw: str | int) -> NDArray[np.uint64]:
    """Return unsigned 64-bit integers ``[count]`` that follow from ``draw`` alone.

    They are the raw stream of Philox, which numpy promises never to change.
    """
    raw: NDArray[np.uint64] = _stream(*draw).random_raw(count)
    return raw


def draw_rows(total: int, count: int, *draw: str | int) -> NDArray[np.int64]:
    """Return ``count`` different numbers below ``total`` that follow from ``draw``, ascending.

    All are returned where ``count`` is no smaller than ``total``.
    """
    if count >= total:
        return np.arange(total)
    stream = _stream(*draw)
    if count > total * _MANY:
        chosen = np.argsort(stream.random_raw(total), kind="stable")[:count]
        return np.sort(chosen)
    drawn = np.zeros(0, np.int64)
    first = np.zeros(0, np.int64)
    while len(first) < count:
        more = (stream.random_raw(count + count // 4) % np.uint64(total)).astype(np.int64)
        drawn = np.concatenate([drawn, more])
        first = np.unique(drawn, return_index=True)[1]
    # In the order of drawing, so that no number is favoured for its size.
    return np.sort(drawn[np.sort(first)[:count]])


def _stream(*draw: str | int) -> np.random.Philox:
    return np.random.Philox(key=np.array(draw_integers(*draw, count=2), np.uint64))


class Rows:
    """One part of a cache, memory-mapped: embeddings found by the digest of a text."""

    def __init__(self, folder: Path, shards: Iterable[Mapping[str, Any]], width: int) -> None:
        """Map the whole shards of embeddings of a width.

        Raises:
            CacheError: a shard is missing or has another length than the manifest says.
        """
        self._width = width
        self._shards: list[_Shard] = []
        keys: list[NDArray[np.uint64]] = []
        for entry in shards:
            path = folder / entry["file"]
            try:
                shard = _Shard(path)
                key = np.load(path.with_suffix(".keys.npy"))
            except (OSError, ValueError, EOFError) as error:
                raise CacheError(
                    f"{path}: the shard is missing or damaged; delete {folder} to build it again"
                ) from error
            if shard.rows != entry["rows"] or key.shape != (entry["rows"], 3):
                raise CacheError(
                    f"{path}: {shard.rows} rows where the manifest says {entry['rows']}; "
                    f"delete {folder} to build it again"
                )
            self._shards.append(shard)
            keys.append(key)
        self._keys = np.concatenate(keys) if keys else np.zeros((0, 3), np.uint64)
        # Stable, so that of two rows for one picture the later one, which replaced it, comes last.
        self._order = np.lexsort((self._keys[:, 1], self._keys[:, 0]))
        self._sorted = self._keys[self._order, 0]
        self._ends = np.cumsum([shard.rows for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def views(self) -> int:
        """How many views a row has; 1 for captions."""
        return self._shards[0].views if self._shards else 1

    def find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the newest row of each digest ``[n, 2]``, -1 where there is none."""
        if not len(self._keys):
            return np.full(len(digests), -1)
        place = np.searchsorted(self._sorted, digests[:, 0], side="right") - 1
        rows = self._order[np.maximum(place, 0)]
        found = (place >= 0) & (self._keys[rows, 0] == digests[:, 0])
        # Two texts with one first digest: there is hardly a cache in which it happens.
        for number in np.flatnonzero(found & (self._keys[rows, 1] != digests[:, 1])):
            same = np.flatnonzero((self._keys[:, :2] == digests[number]).all(axis=1))
            found[number] = len(same) > 0
            rows[number] = same[-1] if len(same) else 0
        return np.where(found, rows, -1)

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes in bytes that the pictures of rows had; -1 for the row -1."""
        sizes = np.full(len(rows), -1)
        sizes[rows >= 0] = self._keys[rows[rows >= 0], 2]
        return sizes

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the digests by which rows are found, ``[n, 2]``."""
        return self._keys[rows, :2]

    def take(self, rows: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> Tensor:
        """Return the embeddings of rows in their order, float32 ``[n, width]``, L2-normalised.

        ``views`` chooses a view of each row of pictures. Shards are read in ascending order.
        """
        vectors = rows * self.views + (0 if views is None else views)
        order = np.argsort(vectors, kind="stable")
        ascending = vectors[order]
        pieces, start, begin = [], 0, 0
        for shard, end in zip(self._shards, self._ends * self.views, strict=True):
            stop = int(np.searchsorted(ascending, end))
            if stop > start:
                pieces.append(shard.read(torch.from_numpy(ascending[start:stop] - begin)))
            start, begin = stop, int(end)
        if not pieces:
            return torch.zeros(0, self._width)
        values = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        # Rounding takes a vector off the unit sphere, float16 by up to 5e-4.
        values /= torch.linalg.vector_norm(values, dim=1, keepdim=True).clamp_min(1e-12)
        if np.array_equal(ascending, vectors):
            return values
        result = torch.empty_like(values)
        result[torch.from_numpy(order)] = values
        return result


class _Shard:
    """One file of embeddings, memory-mapped; each view is a vector of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Copy on write: torch wants memory that may be written to, and nothing here writes.
        array = np.load(path, mmap_mode="c")
        self.rows = len(array)
        self.views = int(array.shape[1]) if array.ndim == 3 else 1
        self._vectors = torch.from_numpy(array.reshape(-1, array.shape[-1]))
        self._scales: Tensor | None = None
        if array.dtype == np.int8:
            scales = np.load(path.with_suffix(".scales.npy"))
            if scales.shape != array.shape[:-1]:
                raise ValueError(f"{path}: one scale a vector is missing")
            self._scales = torch.from_numpy(scales.reshape(-1, 1))

    def __reduce__(self) -> tuple[type["_Shard"], tuple[Path]]:
        # A worker process maps the file itself instead of getting a copy of it.
        return _Shard, (self._path,)

    def read(self, vectors: Tensor) -> Tensor:
        """Return vectors by their numbers in this shard, float32 ``[n, width]``."""
        values = self._vectors.index_select(0, vectors)
        if self._scales is None:
            return values.float()
        return values * self._scales.index_select(0, vectors)


def _save(path: Path, array: NDArray[Any]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
