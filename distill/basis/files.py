"""Files and folders that appear whole under their names or do not appear at all.

Everything is written under a hidden temporary name in the same folder and then renamed, so a reader
never sees half of it. A process that is killed may leave ``.NAME.tmp`` behind and, between the two
renames of a folder, ``.NAME.old``; :func:`is_temporary` knows both.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_temporary(name: str) -> bool:
    """Tell whether this is the name of something unfinished or replaced, left by a killed write."""
    return name.startswith(".") and name.endswith((".tmp", ".old"))


def write_whole(path: Path, content: str | bytes, *, shared: bool = False) -> None:
    """Write a file, text as UTF-8; ``shared`` is as in :func:`whole_file`.

    Raises:
        OSError: the file cannot be written; an older one is still there.
    """
    content = content.encode("utf-8") if isinstance(content, str) else content
    with whole_file(path, shared=shared) as temporary:
        temporary.write_bytes(content)


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; at the end the file takes the name ``path``.

    If the block raises, the temporary file is removed and an older ``path`` is left as it was.

    Args:
        path: The name of the finished file, in a folder that exists.
        shared: Whether others may write this file at the same time. Each then has a temporary file
            of its own, and the last one to finish wins.

    Raises:
        OSError: the file cannot be renamed.
    """
    temporary = path.with_name(f".{path.name}{_unique(shared)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder to fill; at the end it takes the place of ``path``.

    An older ``path`` is kept until then, and left as it was if the block raises. If an earlier
    process was killed, what it left is removed, or put back if ``path`` is missing.

    Args:
        path: The name of the finished folder. Its parents are created.
        shared: Whether others may write this folder at the same time, as in :func:`whole_file`.

    Raises:
        OSError: a folder cannot be created or renamed.
    """
    unique = _unique(shared)
    temporary = path.with_name(f".{path.name}{unique}.tmp")
    old = path.with_name(f".{path.name}{unique}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _put_in_place(temporary, path, old=old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(new: Path, path: Path, *, old: Path) -> None:
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _unique(shared: bool) -> str:
    return f".{secrets.token_hex(4)}" if shared else ""
