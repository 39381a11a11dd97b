"""The tars that a path names: one, a folder or a pattern; local, or an address for fsspec."""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from export.runtime.errors import DataError, MissingExtraError

TAR = ".tar"
_HEAD = 4096
_LONGEST_RANGE = 10_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAGIC = re.compile(r"[*?[]")
_LOCAL = re.compile("(file|local)://")
# What the file systems of fsspec call the mark of a file's content, or of its last change.
_STAMPS = ("ETag", "etag", "md5Hash", "generation", "version_id", "LastModified", "Last-Modified")
_STAMPS_TIME = ("last_modified", "mtime", "updated", "modified", "created")


def is_shards(path: str) -> bool:
    """Tell whether a path on the command line names tars: a tar, a pattern or a folder."""
    if path.lower().endswith(TAR) or "://" in path:
        return True
    place = Path(path)
    return place.is_dir() and any(map(_is_tar, place.iterdir()))


def find_tars(path: str) -> list[str]:
    """Return the tars that a path names, each once: in the order of braces, otherwise sorted.

    Raises:
        DataError: There is none, or a tar that the path names is missing.
    """
    if path.startswith("pipe:"):
        raise DataError(
            f"{path}: shards need random access, which the output of a program lacks; write it to "
            "files, or give an address such as s3://bucket/{000..099}.tar"
        )
    tars: dict[str, None] = {}
    for name in _expand_braces(path):
        found = _listed(name)
        if not found:
            raise DataError(f"{name}: there is no such tar or folder of tars")
        tars.update(dict.fromkeys(found))
    return list(tars)


def _expand_braces(pattern: str) -> Iterator[str]:
    """Yield the names that a pattern with ``{000..099}`` and ``{a,b}`` stands for, in its order.

    Raises:
        DataError: A range is incomplete, descending or too long.
    """
    if Path(pattern).exists():
        yield pattern
        return
    pieces: list[list[str]] = []
    rest = 0
    for found in _BRACES.finditer(pattern):
        pieces += [[pattern[rest : found.start()]], _choices(found[1], pattern)]
        rest = found.end()
    pieces.append([pattern[rest:]])
    yield from map("".join, itertools.product(*pieces))


def _choices(inside: str, pattern: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        if ".." in inside or not inside:
            raise DataError(
                f"{pattern}: {{{inside}}} is not a range; write for example {{000..099}}"
            )
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < _LONGEST_RANGE:
        raise DataError(
            f"{pattern}: {{{inside}}} goes from {first} to {last}; the first must not be greater"
        )
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _listed(name: str) -> list[str]:
    if is_remote(name):
        return _listed_remote(name)
    name = _LOCAL.sub("", name, count=1) if _LOCAL.match(name) else name
    place = Path(name)
    if place.is_dir():
        return sorted(str(entry) for entry in place.iterdir() if _is_tar(entry))
    if place.is_file():
        return [name]
    if not _MAGIC.search(name):
        return []
    found = Path(place.anchor).glob(str(place.relative_to(place.anchor)))
    return sorted(str(entry) for entry in found if entry.is_file())


def _is_tar(path: Path) -> bool:
    return path.name.lower().endswith(TAR) and not path.name.startswith(".")


def _listed_remote(name: str) -> list[str]:
    with one_line(name):
        store, path = _store(name)
        if "::" in name:
            # Names inside a chain of file systems cannot be turned back into addresses.
            return [name] if store.exists(path) else []
        if _MAGIC.search(path):
            return sorted(store.unstrip_protocol(entry) for entry in store.glob(path))
        if not path.lower().endswith(TAR) and store.isdir(path):
            entries = store.ls(path, detail=False)
            return sorted(
                store.unstrip_protocol(entry) for entry in entries if entry.lower().endswith(TAR)
            )
        return [store.unstrip_protocol(path)] if store.exists(path) else []


def is_remote(name: str) -> bool:
    """Tell whether a name is an address that fsspec opens."""
    return "://" in name and not _LOCAL.match(name)


@dataclass(frozen=True)
class TarFile:
    """A tar as it is now: its name, its size in bytes, and a stamp of its content.

    ``changed`` is the time of its last change in nanoseconds, 0 for a tar that is not local.
    """

    name: str
    size: int
    stamp: str
    changed: int


def look_at(name: str) -> TarFile:
    """Return a tar's size and stamp.

    Raises:
        DataError: It cannot be read.
    """
    with one_line(name):
        if is_remote(name):
            store, path = _store(name)
            info = store.info(path)
            stamp = next((str(info[key]) for key in _STAMPS + _STAMPS_TIME if info.get(key)), "")
            if info.get("size") is None:
                raise OSError("the server does not report its size")
            return TarFile(name, int(info["size"]), stamp, 0)
        with Path(name).open("rb") as file:
            status = os.fstat(file.fileno())
            head = hashlib.blake2b(file.read(_HEAD), digest_size=16).hexdigest()
        return TarFile(name, status.st_size, head, status.st_mtime_ns)


def open_tar(name: str) -> BinaryIO:
    """Open a tar, or a file next to it, to read it from beginning to end."""
    if is_remote(name):
        store, path = _store(name)
        return cast(BinaryIO, store.open(path, "rb"))
    return Path(name).open("rb")


def exists(name: str) -> bool:
    """Tell whether there is such a file."""
    if not is_remote(name):
        return Path(name).is_file()
    with one_line(name):
        store, path = _store(name)
        return bool(store.exists(path))


def read_range(name: str, offset: int, size: int) -> bytes:
    """Return a range of bytes of a tar that is not local."""
    store, path = _store(name)
    return bytes(store.cat_file(path, start=offset, end=offset + size))


def _store(name: str) -> tuple[Any, str]:
    # fsspec keeps one file system for each process and thread.
    from fsspec.core import url_to_fs

    store, path = url_to_fs(name)
    return store, path


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn any exception of a file system into one line that names the file."""
    try:
        yield
    except (DataError, MissingExtraError):
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise MissingExtraError(
            f"{name}: fsspec needs a library that is not installed: {reason}"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{name}: it cannot be read: {reason or type(error).__name__}") from error
