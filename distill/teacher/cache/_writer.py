"""Writing the shards of a cache, one whole shard after another."""

import numpy as np
from numpy.typing import NDArray

from distill.teacher.cache.cache import Cache
from distill.teacher.cache.manifest import PARTS, Manifest, Part
from distill.teacher.cache.rows import StoredAs, save_shard


class ShardWriter:
    """Collects rows and writes a shard as soon as it has enough of them.

    Process p of W numbers its shards n + p, n + p + W and so on; n is the first free number in the
    cache. So no two processes write the same file, and newer shards have greater numbers.

    Args:
        cache: The cache that is added to.
        manifest: Lists the shards that this process writes.
        dtype: How embeddings are stored.
        shard_rows: How many rows a shard holds.
        rank: The number of this process.
        count: How many processes build the cache.
    """

    def __init__(
        self,
        cache: Cache,
        manifest: Manifest,
        *,
        dtype: StoredAs,
        shard_rows: int,
        rank: int,
        count: int,
    ) -> None:
        self._folder = cache.folder
        self._manifest = manifest
        self._dtype: StoredAs = dtype
        self._shard_rows = shard_rows
        self._rank = rank
        self._count = count
        self._number = {part: cache.manifest.next_number(part) + rank for part in PARTS}
        self._waiting: dict[Part, list[tuple[NDArray[np.uint64], NDArray[np.float32]]]] = {
            part: [] for part in PARTS
        }

    def add(self, part: Part, keys: NDArray[np.uint64], embeddings: NDArray[np.float32]) -> None:
        """Add rows, and write a shard if there are enough."""
        if len(keys):
            self._waiting[part].append((keys, embeddings))
        if sum(len(rows) for rows, _ in self._waiting[part]) >= self._shard_rows:
            self.flush(part)

    def flush(self, part: Part) -> None:
        """Write the waiting rows of a part as a shard, if there are any."""
        waiting, self._waiting[part] = self._waiting[part], []
        if not waiting:
            return
        path = self._folder / f"{part}-{self._number[part]:05d}.npy"
        self._number[part] += self._count
        keys = np.concatenate([keys for keys, _ in waiting])
        embeddings = np.concatenate([embeddings for _, embeddings in waiting])
        save_shard(path, keys, embeddings, self._dtype)
        self._manifest.shards[part].append({"file": path.name, "rows": len(keys)})
        self.close()

    def close(self) -> None:
        """Write the manifest, which lists the shards written so far."""
        self._manifest.write(self._folder, self._rank)
