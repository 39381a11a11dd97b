"""The index of a tar: the place of each picture and the texts of its sample, mapped into memory.

Each tar has one file, ``NAME.tar.index`` (format 2, little-endian)::

    16 bytes    "clip-distill tar"
    8 bytes     CRC-32 of all that follows, uint64
    8 bytes     length of the header, uint64
    header      JSON: format, the tar's size and stamp, caption_key, rows, labels, skipped, arrays
    arrays      one after the other, each begins at a multiple of 8 bytes

``keys`` and ``captions`` are UTF-8 texts without separators; ``key_ends`` and ``caption_ends`` are
the places where each text ends. ``caption_bounds`` tells which captions belong to a sample,
``offsets`` and ``sizes`` where its picture is, and ``classes`` which of the header's ``labels`` it
has (-1 for none). ``groups`` and ``group_ends`` hold the group of each sample (empty for none);
samples of one group are held out together.
"""

import json
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distill.basis.files import whole_file
from distill.data.sample import Skip
from distill.data.shards._samples import Label, TarSample, read_samples

_FORMAT = 2
SUFFIX = ".index"
_MAGIC = b"clip-distill tar"
_ALIGNED = 8
_DTYPES = {
    "keys": "|u1",
    "key_ends": "<i8",
    "captions": "|u1",
    "caption_ends": "<i8",
    "caption_bounds": "<i8",
    "offsets": "<i8",
    "sizes": "<i8",
    "classes": "<i4",
    "groups": "|u1",
    "group_ends": "<i8",
}


class TarIndex:
    """The samples of one tar by number. ``skipped`` and ``rows`` mean the same as in a source."""

    def __init__(self, header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take what :func:`build_index` or :func:`load_index` found."""
        self._header = header
        self._arrays = arrays
        self._path: Path | None = None
        self.rows: int = header["rows"]
        self.labels: list[Label] = header["labels"]
        self.skipped = tuple(Skip(*entry) for entry in header["skipped"])

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that does not inherit the memory maps the file itself.
        if self._path is None:
            return TarIndex, (self._header, self._arrays)
        return load_index, (self._path,)

    def __len__(self) -> int:
        return len(self._arrays["offsets"])

    def key(self, number: int) -> str:
        """Return a sample's key inside the tar."""
        return self._text("keys", "key_ends", number)

    def place(self, number: int) -> tuple[int, int]:
        """Return offset and size of a picture."""
        return int(self._arrays["offsets"][number]), int(self._arrays["sizes"][number])

    def captions(self, number: int) -> tuple[str, ...]:
        """Return a sample's captions."""
        first, last = self._arrays["caption_bounds"][number : number + 2].tolist()
        return tuple(self._text("captions", "caption_ends", row) for row in range(first, last))

    def label(self, number: int) -> Label | None:
        """Return a sample's class, by name or number."""
        place = int(self._arrays["classes"][number])
        return None if place < 0 else self.labels[place]

    def group(self, number: int) -> str | None:
        """Return a sample's group; samples of one group are held out together."""
        return self._text("groups", "group_ends", number) or None

    def classes(self) -> NDArray[np.int32]:
        """Return the place of each sample's class in ``labels``, ``[N]``; -1 for none."""
        return self._arrays["classes"]

    def fits(self, *, size: int, stamp: str, caption_key: str | None) -> bool:
        """Tell whether this index belongs to a tar of this size, stamp and ``caption_key``."""
        tar = {"size": size, "stamp": stamp}
        return bool(self._header["tar"] == tar and self._header["caption_key"] == caption_key)

    def write(self, path: Path) -> None:
        """Write the index, whole or not at all.

        Raises:
            OSError: It cannot be written there.
        """
        header = json.dumps(self._header, ensure_ascii=True).encode()
        with whole_file(path, shared=True) as temporary, temporary.open("wb") as file:
            head = len(header).to_bytes(8, "little") + header
            file.write(_MAGIC + bytes(8) + head)
            crc = zlib.crc32(head)
            for name in _DTYPES:
                part = b"\0" * (-file.tell() % _ALIGNED) + self._arrays[name].tobytes()
                crc = zlib.crc32(part, crc)
                file.write(part)
            file.seek(len(_MAGIC))
            file.write(crc.to_bytes(8, "little"))

    def _text(self, texts: str, ends: str, number: int) -> str:
        begin, end = self._arrays[ends][number : number + 2].tolist()
        return self._arrays[texts][begin:end].tobytes().decode("utf-8")


def build_index(file: BinaryIO, *, size: int, stamp: str, caption_key: str | None) -> TarIndex:
    """Read a tar of ``size`` bytes and return the index of its samples."""
    columns = _Columns()
    skipped: list[Skip] = []
    for found in read_samples(file, size, caption_key=caption_key):
        if isinstance(found, Skip):
            skipped.append(found)
        else:
            columns.add(found)
    arrays = columns.arrays()
    header = {
        "format": _FORMAT,
        "tar": {"size": size, "stamp": stamp},
        "caption_key": caption_key,
        "rows": len(columns.offsets) + len(skipped),
        "labels": list(columns.labels),
        "skipped": [[skip.where, skip.reason, skip.kind] for skip in skipped],
        "arrays": {name: len(values) for name, values in arrays.items()},
    }
    return TarIndex(header, arrays)


def load_index(path: Path) -> TarIndex:
    """Map an index into memory.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged, or of another format.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path}: it is not the index of a tar")
        crc = int.from_bytes(file.read(8), "little")
        whole: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
        if zlib.crc32(whole[file.tell() :].data) != crc:
            raise ValueError(f"{path}: it is damaged, or of another format than {_FORMAT}")
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        position = file.tell()
    if header["format"] != _FORMAT:
        raise ValueError(f"{path}: it is not an index of format {_FORMAT}")
    arrays = {}
    for name, dtype in _DTYPES.items():
        position += -position % _ALIGNED
        end = position + int(header["arrays"][name]) * np.dtype(dtype).itemsize
        if end > len(whole):
            raise ValueError(f"{path}: it is cut off")
        arrays[name] = np.asarray(whole[position:end]).view(dtype)
        position = end
    index = TarIndex(header, arrays)
    index._path = path
    return index


class _Columns:
    """Samples, gathered in flat buffers."""

    def __init__(self) -> None:
        self.offsets, self.sizes = array("q"), array("q")
        self.labels: dict[Label, int] = {}
        self._classes = array("i")
        self._keys, self._captions = bytearray(), bytearray()
        self._key_ends, self._caption_ends = array("q", [0]), array("q", [0])
        self._caption_bounds = array("q", [0])
        self._groups, self._group_ends = bytearray(), array("q", [0])

    def add(self, sample: TarSample) -> None:
        self.offsets.append(sample.offset)
        self.sizes.append(sample.size)
        self._keys += sample.key.encode("utf-8")
        self._key_ends.append(len(self._keys))
        for caption in sample.captions:
            self._captions += caption.encode("utf-8")
            self._caption_ends.append(len(self._captions))
        self._caption_bounds.append(len(self._caption_ends) - 1)
        label = sample.label
        place = -1 if label is None else self.labels.setdefault(label, len(self.labels))
        self._classes.append(place)
        self._groups += (sample.group or "").encode("utf-8")
        self._group_ends.append(len(self._groups))

    def arrays(self) -> dict[str, NDArray[Any]]:
        columns: dict[str, bytearray | array[int]] = {
            "keys": self._keys,
            "key_ends": self._key_ends,
            "captions": self._captions,
            "caption_ends": self._caption_ends,
            "caption_bounds": self._caption_bounds,
            "offsets": self.offsets,
            "sizes": self.sizes,
            "classes": self._classes,
            "groups": self._groups,
            "group_ends": self._group_ends,
        }
        return {
            name: np.array(memoryview(values), dtype=_DTYPES[name])
            for name, values in columns.items()
        }
