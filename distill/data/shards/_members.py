"""The members of a tar, and the gaps without a whole member.

This module walks the blocks itself and only parses headers with Python's tarfile, whose own walk
ends silently at the first damaged header. Layout: POSIX.1-2017, pax, "ustar Interchange Format".
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

_BLOCK = 512
_MAGIC = b"ustar"
_MAGIC_AT = 257
# Long names and pax records have headers of their own; none is larger than a megabyte.
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED_GNU = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_LONGEST_HEADERS = 1 << 20
_MOST_HEADERS = 8
_CHUNK = 1 << 20
# Two blocks of zeros end a tar; writers pad the last record to 20 blocks.
_END_MARK = 2 * _BLOCK
_RECORD = 20 * _BLOCK


@dataclass(frozen=True)
class Member:
    """A whole member; its content is the ``size`` bytes from ``offset`` on."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    offset: int
    size: int


@dataclass(frozen=True)
class Gap:
    """A range of bytes in which members may be lost."""

    first: int
    end: int
    reason: str


def read_members(file: BinaryIO, size: int) -> Iterator[Member | Gap]:
    """Yield the members of a tar of ``size`` bytes in their order, and gaps in which some are lost.

    After a damaged header the walk continues at the next sound one. It also continues after an end
    mark, so concatenated tars are read completely.
    """
    position = zeros = 0
    complete = True
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK)
        if not block.strip(b"\0"):
            position += _BLOCK
            zeros += _BLOCK
            continue
        if zeros and (zeros < _END_MARK or position % _RECORD):
            yield Gap(position - zeros, position, f"{zeros:,} zeros between two members")
        zeros = 0
        header = _read_header(file, block)
        if header is None:
            found, reason = _next_header(file, position + 1, size), "a header is missing or damaged"
        else:
            info, length = header
            content = info.size if _has_content(info) else 0
            begin = position + length
            if begin + content <= size:
                yield Member(info.name, _kind(info), begin, content)
                position = begin + -(-content // _BLOCK) * _BLOCK
                continue
            found, reason = _next_header(file, begin, size), f"{info.name[:80]!r} is cut off"
        yield Gap(position, found, reason)
        position, complete = found, found < size
    if complete and (zeros == 0 or size % _BLOCK):
        yield Gap(size, size, "the tar has no end mark, so its end may be cut off")
    elif zeros > _END_MARK + _RECORD:
        yield Gap(size - zeros, size, f"{zeros:,} zeros at the end, in which members may be lost")


def _read_header(file: BinaryIO, block: bytes) -> tuple[tarfile.TarInfo, int] | None:
    """Return a header and its length, including extended headers before it; None if damaged."""
    run = block
    try:
        info = _parse(block)
        for _ in range(_MOST_HEADERS):
            if info.type not in _EXTENDED + _EXTENDED_GNU:
                break
            length = -(-info.size // _BLOCK) * _BLOCK + _BLOCK
            if not _BLOCK <= length <= _LONGEST_HEADERS:
                return None
            more = file.read(length)
            if len(more) < length:
                return None
            run += more
            info = _parse(more[-_BLOCK:])
        else:
            return None
        if len(run) > _BLOCK:
            with tarfile.TarFile(fileobj=io.BytesIO(run), encoding="utf-8") as tar:
                extended = tar.next()
            if extended is None:
                return None
            info = extended
    except Exception:  # tarfile may raise almost anything on damaged pax records.
        return None
    return None if info.size < 0 else (info, len(run))


def _parse(block: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")


def _next_header(file: BinaryIO, start: int, size: int) -> int:
    """Return the offset of the next sound header, at ``start`` or later; the size if none."""
    position = start
    while position < size:
        file.seek(position)
        # Chunks overlap, so every header is whole in one of them.
        chunk = file.read(_CHUNK + _BLOCK)
        found = chunk.find(_MAGIC, _MAGIC_AT)
        while found >= 0:
            header = chunk[found - _MAGIC_AT : found - _MAGIC_AT + _BLOCK]
            if len(header) == _BLOCK and _is_header(header):
                return position + found - _MAGIC_AT
            found = chunk.find(_MAGIC, found + 1)
        position += _CHUNK
    return size


def _is_header(block: bytes) -> bool:
    try:
        _parse(block)
    except (tarfile.TarError, ValueError):
        return False
    return True


def _has_content(info: tarfile.TarInfo) -> bool:
    return info.isreg() or info.type not in tarfile.SUPPORTED_TYPES


def _kind(info: tarfile.TarInfo) -> Literal["file", "folder", "link", "other"]:
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "folder"
    sparse = info.issparse() or info.type == tarfile.GNUTYPE_SPARSE
    return "file" if info.isreg() and not sparse else "other"
