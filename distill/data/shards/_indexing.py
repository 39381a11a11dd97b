"""Find the index of each tar, and build those that are missing or older than their tar."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distill.basis.progress import progress_bar
from distill.data.shards._index import SUFFIX, TarIndex, build_index, load_index
from distill.data.shards.paths import TarFile, is_remote, look_at, one_line, open_tar
from export.runtime.errors import DataError

_GZIP = b"\x1f\x8b"
# A remote store answers many requests at once; a local disk is read tar by tar.
_THREADS = 8


def find_indices(
    tars: Sequence[TarFile], *, caption_key: str | None, folder: Path | None
) -> list[TarIndex]:
    """Return the index of each tar, from the tar's folder or from ``folder``; build missing ones.

    ``folder`` is by default ``clip-distill/shards`` inside ``XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        DataError: A tar cannot be read, or has no sample.
    """
    folder = folder or _default_folder()
    places = [_places(tar, caption_key, folder) for tar in tars]
    found = [_existing(tar, of_tar, caption_key) for tar, of_tar in zip(tars, places, strict=True)]
    missing = [number for number, index in enumerate(found) if index is None]
    if missing:
        threads = _THREADS if any(is_remote(tars[number].name) for number in missing) else 1
        with progress_bar("indexing shards", len(missing)) as bar, ThreadPoolExecutor(threads) as p:
            jobs = ((tars[number], places[number], caption_key) for number in missing)
            for done, index in enumerate(p.map(lambda job: _build(*job), jobs), start=1):
                found[missing[done - 1]] = index
                bar.update(done)
    return [index for index in found if index is not None]


def _places(tar: TarFile, caption_key: str | None, folder: Path) -> list[Path]:
    """Return where the index of a tar may be: first in the tar's folder."""
    mark = "" if caption_key is None else f".{_digest(caption_key, 8)}"
    if is_remote(tar.name):
        return [folder / f"{_digest(tar.name, 32)}{mark}{SUFFIX}"]
    path = Path(tar.name).absolute()
    beside = path.with_name(f"{path.name}{mark}{SUFFIX}")
    return [beside, folder / f"{_digest(str(path), 32)}{mark}{SUFFIX}"]


def _existing(tar: TarFile, places: Sequence[Path], caption_key: str | None) -> TarIndex | None:
    for place in places:
        try:
            index = load_index(place)
            newer = place.stat().st_mtime_ns > tar.changed
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if newer and index.fits(size=tar.size, stamp=tar.stamp, caption_key=caption_key):
            return index
    return None


def write_index(path: Path) -> None:
    """Write the index of a local tar into its folder.

    Raises:
        DataError: The tar cannot be read, or has no sample.
    """
    tar = look_at(str(path))
    _build(tar, _places(tar, None, path.parent)[:1], None)


def _build(tar: TarFile, places: Sequence[Path], caption_key: str | None) -> TarIndex:
    with one_line(tar.name), open_tar(tar.name) as file:
        if tar.size == 0:
            raise DataError(f"{tar.name}: the tar is empty; copy it again, or leave it out")
        if file.read(len(_GZIP)) == _GZIP:
            raise DataError(
                f"{tar.name}: it is compressed, so it has no random access; unpack it (gunzip)"
            )
        index = build_index(file, size=tar.size, stamp=tar.stamp, caption_key=caption_key)
    if not len(index):
        why = f"; {index.skipped[0].where}: {index.skipped[0].reason}" if index.skipped else ""
        raise DataError(f"{tar.name}: none of its samples can be used{why}")
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            index.write(place)
            # Mapping the file frees the memory that building it took.
            return load_index(place)
        except (OSError, ValueError):
            continue
    return index


def _default_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "clip-distill" / "shards"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
