"""What the doctor looks for in a cache that is there already."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.data.sample import Source
from distill.doctor.finding import Finding, fine, note, wrong
from distill.teacher.cache.cache import Cache
from distill.teacher.cache.manifest import PARTS
from distill.teacher.cache.rows import draw_rows

# So many rows of so many shards are read.
ROWS, SHARDS = 64, 4
# Rounding to int8 changes a length by a few hundredths at most.
LENGTH = 0.05


def examine_cache(about: str, cache: Cache, drawn: Source) -> list[Finding]:
    """Look at a cache of this teacher and these views; ``drawn`` is a part of its source."""
    pictures, captions = len(cache.images), len(cache.captions)
    if not pictures and not captions:
        return [fine(about, f"none yet in {cache.folder}")]
    bad = [line for part in PARTS for line in _bad_rows(cache.folder, cache.manifest.shards[part])]
    if bad:
        return [wrong(about, bad[0], f"delete {cache.folder} to build it again")]
    changed = cache.missing(drawn, captions=False).changed
    if changed:
        told = f"{changed} of {len(drawn)} pictures have changed since it was built"
        return [note(about, told, "they are embedded again; see that they are the right ones")]
    return [fine(about, f"{pictures:,} pictures and {captions:,} captions in {cache.folder}")]


def _bad_rows(folder: Path, shards: list[dict[str, Any]]) -> list[str]:
    """Say which of a few shards hold rows that are no embeddings."""
    found = []
    for number in draw_rows(len(shards), SHARDS, "shards").tolist():
        name = shards[number]["file"]
        lengths = np.linalg.norm(_some_rows(folder / name), axis=-1)
        # Written so that what is no number is counted too.
        off = int(np.count_nonzero(~(np.abs(lengths - 1) <= LENGTH)))
        if off:
            found.append(
                f"{off} of {lengths.size} embeddings of {folder / name} are not normalised"
            )
    return found


def _some_rows(path: Path) -> NDArray[np.float64]:
    array = np.load(path, mmap_mode="r")
    rows = draw_rows(len(array), ROWS, "rows")
    values = np.asarray(array[rows], np.float64)
    if array.dtype != np.int8:
        return values
    scales = np.load(path.with_suffix(".scales.npy"), mmap_mode="r")
    return values * np.asarray(scales[rows], np.float64)[..., None]
