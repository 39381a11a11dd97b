"""Rows of a cache: embeddings that are found, drawn and read from memory-mapped shards."""

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
# If a greater share of all rows is drawn, drawing one by one would mostly repeat earlier draws.
_MANY = 1 / 8
_LARGEST_BYTE = 127


def row_digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return the two 64-bit digests by which a key or a caption is found, uint64 ``[n, 2]``."""
    # The same as draw_integers("row", text, count=2), but faster.
    parts = [
        hashlib.blake2b(b"str:row\0str:" + text.encode("utf-8", "surrogatepass"), digest_size=16)
        for text in texts
    ]
    joined = b"".join(part.digest() for part in parts)
    return np.frombuffer(joined, "<u8").reshape(-1, 2).astype(np.uint64, copy=False)


def _quantise(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round vectors ``[…, D]`` to int8, symmetrically, with scales ``[…]`` of max |x| / 127."""
    largest = np.abs(embeddings).max(axis=-1)
    scales = (largest / _LARGEST_BYTE).astype(np.float32)
    steps = np.rint(embeddings / np.where(scales > 0, scales, 1)[..., None])
    return steps.astype(np.int8), scales


def save_shard(
    path: Path, keys: NDArray[np.uint64], embeddings: NDArray[np.float32], dtype: StoredAs
) -> None:
    """Write the files of a shard, each whole, its embeddings last."""
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

    If ``count`` is at least ``total``, all of them are returned.
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
    # The first ones in the order of drawing, so smaller numbers are not favoured.
    return np.sort(drawn[np.sort(first)[:count]])


def _stream(*draw: str | int) -> np.random.Philox:
    return np.random.Philox(key=np.array(draw_integers(*draw, count=2), np.uint64))


class Rows:
    """One part of a cache, memory-mapped: embeddings that are found by digests.

    Args:
        folder: The folder of the cache.
        shards: The file and the number of rows of each shard, as the manifest lists them.
        width: Width of the embeddings.

    Raises:
        CacheError: A shard is missing, damaged, or has another number of rows than listed.
    """

    def __init__(self, folder: Path, shards: Iterable[Mapping[str, Any]], width: int) -> None:
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
                    f"{path}: {shard.rows} rows, but the manifest lists {entry['rows']}; "
                    f"delete {folder} to build it again"
                )
            self._shards.append(shard)
            keys.append(key)
        self._keys = np.concatenate(keys) if keys else np.zeros((0, 3), np.uint64)
        # The sort is stable: of two rows for one picture, the newer one is last.
        self._order = np.lexsort((self._keys[:, 1], self._keys[:, 0]))
        self._sorted = self._keys[self._order, 0]
        self._ends = np.cumsum([shard.rows for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def views(self) -> int:
        """How many views each row has; 1 for captions."""
        return self._shards[0].views if self._shards else 1

    def find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the newest row of each digest ``[n, 2]``, -1 if there is none."""
        if not len(self._keys):
            return np.full(len(digests), -1)
        place = np.searchsorted(self._sorted, digests[:, 0], side="right") - 1
        rows = self._order[np.maximum(place, 0)]
        found = (place >= 0) & (self._keys[rows, 0] == digests[:, 0])
        # Two texts share their first digest, which hardly ever happens.
        for number in np.flatnonzero(found & (self._keys[rows, 1] != digests[:, 1])):
            same = np.flatnonzero((self._keys[:, :2] == digests[number]).all(axis=1))
            found[number] = len(same) > 0
            rows[number] = same[-1] if len(same) else 0
        return np.where(found, rows, -1)

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes in bytes of the pictures when they were embedded; -1 for row -1."""
        sizes = np.full(len(rows), -1)
        sizes[rows >= 0] = self._keys[rows[rows >= 0], 2]
        return sizes

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the digests of rows, ``[n, 2]``."""
        return self._keys[rows, :2]

    def take(self, rows: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> Tensor:
        """Return the embeddings of rows in the given order, float32 ``[n, width]``, L2-normalised.

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
        # Rounding changes the length of vectors, by up to 5e-4 in float16.
        values /= torch.linalg.vector_norm(values, dim=1, keepdim=True).clamp_min(1e-12)
        if np.array_equal(ascending, vectors):
            return values
        result = torch.empty_like(values)
        result[torch.from_numpy(order)] = values
        return result


class _Shard:
    """One memory-mapped file of embeddings, in which each view is a vector."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Copy on write: torch requires writable memory, although nothing here writes to it.
        array = np.load(path, mmap_mode="c")
        self.rows = len(array)
        self.views = int(array.shape[1]) if array.ndim == 3 else 1
        self._vectors = torch.from_numpy(array.reshape(-1, array.shape[-1]))
        self._scales: Tensor | None = None
        if array.dtype == np.int8:
            scales = np.load(path.with_suffix(".scales.npy"))
            if scales.shape != array.shape[:-1]:
                raise ValueError(f"{path}: each vector needs one scale")
            self._scales = torch.from_numpy(scales.reshape(-1, 1))

    def __reduce__(self) -> tuple[type["_Shard"], tuple[Path]]:
        # A worker process maps the file itself instead of receiving a copy of it.
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
