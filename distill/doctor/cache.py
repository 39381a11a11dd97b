"""The doctor's visit to the caches of the teachers."""

from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.data.sample import Source, Subset
from distill.doctor._samples import Drawn, ReadOnlyProject
from distill.doctor.finding import Finding, attempt, fine, note, wrong
from distill.run.cache_stage import cache_folders
from distill.teacher.cache.build import open_cache
from distill.teacher.cache.cache import Cache
from distill.teacher.cache.manifest import PARTS
from distill.teacher.cache.rows import draw_rows
from distill.teacher.protocol import Teacher

# The number of rows that are read of each file, and the number of files.
_ROWS, _FILES = 64, 4
# Rounding to int8 changes a length by a few hundredths at most.
_LENGTH = 0.05


def examine_caches(
    project: ReadOnlyProject, teachers: Sequence[Teacher], samples: Sequence[Drawn]
) -> Generator[Finding, None, list[list[Cache]]]:
    """Yield the findings about the caches of all sources; return those of each teacher."""
    caches: list[list[Cache]] = [[] for _ in teachers]
    if project.config.train.teacher != "cached" or not teachers:
        return caches
    of_teachers = cache_folders(project, project.config.folder)
    for teacher, folders, found in zip(teachers, of_teachers, caches, strict=True):
        for folder, drawn in zip(folders, samples, strict=True):
            refused: list[Finding] = []
            cache = attempt("cache", partial(_open, project, teacher, folder), refused)
            yield from refused
            if cache is not None:
                found.append(cache)
                yield from examine_cache("cache", cache, Subset(drawn.source, drawn.rows))
    return caches


def _open(project: ReadOnlyProject, teacher: Teacher, folder: Path) -> Cache:
    return open_cache(folder, teacher, project.build_settings)


def examine_cache(about: str, cache: Cache, sample: Source) -> list[Finding]:
    """Check a cache of this teacher and these views against a sample of its source."""
    pictures, captions = len(cache.images), len(cache.captions)
    if not pictures and not captions:
        return [fine(about, f"there is none in {cache.folder} yet")]
    bad = [line for part in PARTS for line in _bad_rows(cache.folder, cache.manifest.shards[part])]
    if bad:
        return [wrong(about, bad[0], f"delete {cache.folder} to build the cache again")]
    changed = cache.missing(sample, captions=False).changed
    if changed:
        sentence = f"{changed} of {len(sample)} pictures have changed since the cache was built"
        return [
            note(about, sentence, "they are embedded again; check that they are the right ones")
        ]
    return [fine(about, f"{pictures:,} pictures and {captions:,} captions in {cache.folder}")]


def _bad_rows(folder: Path, shards: list[dict[str, Any]]) -> list[str]:
    """Return a line for each of a few files with rows that are not embeddings."""
    found = []
    for number in draw_rows(len(shards), _FILES, "shards").tolist():
        name = shards[number]["file"]
        lengths = np.linalg.norm(_some_rows(folder / name), axis=-1)
        # Written so that NaN counts too.
        off = int(np.count_nonzero(~(np.abs(lengths - 1) <= _LENGTH)))
        if off:
            found.append(
                f"{off} of {lengths.size} embeddings in {folder / name} are not normalised"
            )
    return found


def _some_rows(path: Path) -> NDArray[np.float64]:
    array = np.load(path, mmap_mode="r")
    rows = draw_rows(len(array), _ROWS, "rows")
    values = np.asarray(array[rows], np.float64)
    if array.dtype != np.int8:
        return values
    scales = np.load(path.with_suffix(".scales.npy"), mmap_mode="r")
    return values * np.asarray(scales[rows], np.float64)[..., None]
