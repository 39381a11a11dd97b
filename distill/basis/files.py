"""Write files and folders that appear whole under their names, or not at all.

Everything is written under a hidden temporary name in the same folder and then renamed, so a reader
never sees half of it. A killed process may leave ``.NAME.tmp`` behind or, between the two renames
of a folder, ``.NAME.old``. :func:`is_temporary` recognises both.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_temporary(name: str) -> bool:
    """Tell whether a killed process left a file or folder of this name behind."""
    return name.startswith(".") and name.endswith((".tmp", ".old"))


def write_whole(path: Path, content: str | bytes, *, shared: bool = False) -> None:
    """Write a file, text as UTF-8; ``shared`` is as in :func:`whole_file`.

    Raises:
        OSError: The file cannot be written; an older one is still there.
    """
    content = content.encode("utf-8") if isinstance(content, str) else content
    with whole_file(path, shared=shared) as temporary:
        temporary.write_bytes(content)


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename the file to ``path`` at the end.

    If the block raises, the temporary file is removed and an older ``path`` is left as it was.

    Args:
        path: The name of the finished file, in a folder that exists.
        shared: Whether other processes may write this file at the same time. Each then has its own
            temporary file, and the last one to finish wins.

    Raises:
        OSError: The file cannot be renamed.
    """
    temporary = path.with_name(f".{path.name}{_unique(shared)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder to fill, and put it in place of ``path`` at the end.

    An older ``path`` is kept until then, and left as it was if the block raises. What a killed
    process left behind is removed, but its older folder is put back if ``path`` is missing.

    Args:
        path: The name of the finished folder. Its parents are created.
        shared: Whether other processes may write this folder at the same time, as for a file.

    Raises:
        OSError: A folder cannot be created or renamed.
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
