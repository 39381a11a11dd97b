"""Shards: WebDataset tars behind an index with random access.

A picture is read when it is opened. Keys, captions and labels come from the index of each tar.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.sample import Extras, Sample, Skip
from distill.data.shards._class_files import CLASSNAMES, ClassFiles
from distill.data.shards._index import TarIndex
from distill.data.shards._indexing import find_indices
from distill.data.shards._pictures import TarPicture, Tars
from distill.data.shards.paths import TAR, find_tars, look_at
from export.runtime.errors import DataError


def open_shards(
    path: str,
    *,
    caption_key: str | None = None,
    classnames: str | Path | None = None,
    index_folder: Path | None = None,
) -> "ShardsSource":
    """Open the tars that a path or pattern names, and index those that have no index yet.

    Samples are in the order of the tars. A key is the tar's name without ``.tar``, then the
    member's name without its suffix. ``classnames`` is a file with the names of numbered classes;
    None reads ``classnames.txt`` in the tars' folder or its parent. If an index cannot be written
    to its tar's folder it goes to ``index_folder``; if that fails too it stays in memory.

    Raises:
        DataError: A tar is missing, cannot be read, or has no sample.
    """
    tars = [look_at(name) for name in find_tars(path)]
    indices = find_indices(tars, caption_key=caption_key, folder=index_folder)
    return ShardsSource(path, Tars(tars), indices, ClassFiles(tars[0].name, classnames))


class ShardsSource:
    """The pictures of several tars, in the order of the tars.

    ``shard_lengths`` are the numbers of samples in each tar. ``class_names`` and ``templates`` come
    from the files next to the tars; None without such a file.
    """

    def __init__(
        self, name: str, tars: Tars, indices: Sequence[TarIndex], files: ClassFiles
    ) -> None:
        """Number the samples of all tars, leaving out those whose class has no name."""
        self.name = name
        self.class_names = files.class_names
        self.templates = files.templates
        self._tars = tars
        self._indices = indices
        self._names = _shard_names(tars.names)
        self.rows = sum(index.rows for index in indices)
        skipped: list[Skip] = []
        self._kept: list[NDArray[np.int64] | None] = []
        for tar, index in zip(tars.names, indices, strict=True):
            skipped += [
                Skip(f"{tar}: {skip.where}", skip.reason, skip.kind) for skip in index.skipped
            ]
            self._kept.append(self._named(tar, index, skipped))
        self.skipped = tuple(skipped)
        lengths = [
            len(index if kept is None else kept)
            for index, kept in zip(indices, self._kept, strict=True)
        ]
        self.shard_lengths = np.array(lengths, np.int64)
        self.extras = Extras(self.shard_lengths, files.class_names, files.templates)
        self._ends = np.cumsum(self.shard_lengths)
        if not len(self):
            first = self.skipped[0]
            raise DataError(
                f"{name}: none of its samples can be used; the first is {first.where}: "
                f"{first.reason}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        number = range(len(self))[index]
        shard = int(np.searchsorted(self._ends, number, side="right"))
        number -= int(self._ends[shard] - self.shard_lengths[shard])
        tar, kept = self._indices[shard], self._kept[shard]
        if kept is not None:
            number = int(kept[number])
        offset, size = tar.place(number)
        label = tar.label(number)
        if isinstance(label, int):
            label = str(label) if self.class_names is None else self.class_names[label]
        return Sample(
            key=f"{self._names[shard]}/{tar.key(number)}",
            image=TarPicture(self._tars, shard, offset, size),
            captions=tar.captions(number),
            label=label,
            group=tar.group(number),
        )

    def _named(self, tar: str, index: TarIndex, skipped: list[Skip]) -> NDArray[np.int64] | None:
        """Return the numbers of the samples whose class has a name; None if all have."""
        names = self.class_names
        if names is None:
            return None
        unknown = [
            place
            for place, label in enumerate(index.labels)
            if isinstance(label, int) and label >= len(names)
        ]
        if not unknown:
            return None
        wrong = np.isin(index.classes(), unknown)
        for number in np.flatnonzero(wrong).tolist():
            reason = (
                f"its class is {index.label(number)}, but {CLASSNAMES} has {len(names):,} names"
            )
            skipped.append(Skip(f"{tar}: {index.key(number)}", reason))
        return np.flatnonzero(~wrong)


def _shard_names(tars: Sequence[str]) -> list[str]:
    """Return the first part of each tar's keys: its name, with folders if names repeat."""
    paths = [tar.removesuffix(TAR) for tar in tars]
    names = [posixpath.basename(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    folder = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    return [posixpath.relpath(path, folder) if folder else path for path in paths]
