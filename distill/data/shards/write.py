"""Write any source as WebDataset tars; the same source always gives the same bytes.

A folder of shards (format 1)::

    000000.tar, 000000.tar.index, …     whole tars and their indices
    shards.json                         the source, the settings, and what was left out

Sample i of the source is in tar ⌊i / per_shard⌋ as ``I.jpg`` (or ``.png``, ``.webp``), with
``I.txt`` if it has one caption, and ``I.json`` with ``captions`` if it has several and with
``label`` if it has a class; I is i with nine digits.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader, Dataset

from distill.basis.files import is_temporary, whole_file, write_whole
from distill.basis.progress import progress_bar
from distill.data.sample import Skip, Source, check_skips, image_size
from distill.data.shards._indexing import write_index
from distill.data.shards._packing import Packed, pack
from distill.data.workers import ignore_interrupts
from export.runtime.errors import RunError

_FORMAT = 1
_MANIFEST = "shards.json"
_AT_ONCE = 16


@dataclass(frozen=True)
class ShardSettings:
    """How shards are written; ``size`` limits the shorter side in pixels, None keeps it."""

    size: int | None
    per_shard: int
    workers: int
    max_skipped: float


@dataclass(frozen=True)
class _Written:
    """The content of a folder of shards."""

    shards: int
    samples: int
    bytes: int
    skipped: list[Skip]


def write_shards(source: Source, folder: Path, settings: ShardSettings) -> _Written:
    """Write a source's shards into a folder, except those that are already there.

    Pictures are copied byte for byte, with two exceptions: those larger than ``size`` become JPEG
    of quality 95, and formats other than JPEG, PNG and WebP become PNG. A picture that cannot be
    read is left out.

    Raises:
        RunError: The folder holds something else, or shards of other data or settings.
        DataError: More pictures than ``max_skipped`` cannot be read; whole shards are kept.
        KeyboardInterrupt: After Ctrl-C; the text says how many shards are whole.
    """
    every = range(len(source))
    starts = every[:: settings.per_shard]
    manifest = _Manifest(folder, source, settings)
    missing = {
        shard: every[start : start + settings.per_shard]
        for shard, start in enumerate(starts)
        if not manifest.holds(shard)
    }
    packed = _packed(source, [number for part in missing.values() for number in part], settings)
    done = len(source) - sum(map(len, missing.values()))
    try:
        with progress_bar("writing shards", len(source), done=done) as bar:
            for shard, part in missing.items():
                with _ShardWriter(folder / _shard_name(shard)) as writer:
                    for one in islice(packed, len(part)):
                        writer.add(one)
                        done += 1
                        bar.update(done)
                manifest.add(shard, writer)
                _check(source, manifest, settings)
    except KeyboardInterrupt as error:
        whole = sum(map(manifest.holds, range(len(starts))))
        raise KeyboardInterrupt(
            f"stopped; {whole} of {len(starts)} shards are complete in {folder}; the same command "
            "continues from there"
        ) from error
    return manifest.written()


def _check(source: Source, manifest: "_Manifest", settings: ShardSettings) -> None:
    skipped = manifest.written().skipped
    check_skips(source.name, skipped, len(source), max_skipped=settings.max_skipped)


def _shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"{number:06d}.tar"


class _Manifest:
    """The content of ``shards.json``."""

    def __init__(self, folder: Path, source: Source, settings: ShardSettings) -> None:
        """Read the file or start a new one; refuse a folder with other content."""
        self._folder = folder
        self._path = folder / _MANIFEST
        self._made_from: dict[str, Any] = {
            "format": _FORMAT,
            "samples": len(source),
            "digest": _digest(source),
            "size": settings.size,
            "per_shard": settings.per_shard,
        }
        # What the source left out while indexing, before any picture was read.
        self._left_out = [[skip.where, skip.reason] for skip in source.skipped]
        self._shards: dict[str, dict[str, Any]] = {}
        held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        if folder.exists() and not folder.is_dir():
            raise RunError(f"--out {folder}: it is not a folder; choose another one")
        if _MANIFEST in held:
            self._read()
        elif any(not is_temporary(name) for name in held):
            raise RunError(
                f"--out {folder}: the folder is not empty ({', '.join(held[:4])}) and has no "
                f"{_MANIFEST}; choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def holds(self, number: int) -> bool:
        """Tell whether a shard is whole."""
        entry = self._shards.get(_shard_name(number))
        if entry is None:
            return False
        path = self._folder / _shard_name(number)
        return entry["samples"] == 0 or (path.is_file() and path.stat().st_size == entry["bytes"])

    def add(self, number: int, writer: "_ShardWriter") -> None:
        """List a shard that was written."""
        self._shards[_shard_name(number)] = {
            "samples": writer.samples,
            "bytes": writer.bytes,
            "skipped": [[skip.where, skip.reason] for skip in writer.skipped],
        }
        self._write()

    def written(self) -> _Written:
        """Return what is listed so far."""
        entries = list(self._shards.values())
        return _Written(
            shards=sum(entry["samples"] > 0 for entry in entries),
            samples=sum(entry["samples"] for entry in entries),
            bytes=sum(entry["bytes"] for entry in entries),
            skipped=[Skip(*line) for entry in entries for line in entry["skipped"]],
        )

    def _read(self) -> None:
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            shards: dict[str, dict[str, Any]] = values.pop("shards")
            for entry in shards.values():
                _ = entry["samples"] + entry["bytes"], [Skip(*line) for line in entry["skipped"]]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(f"{self._path}: it is damaged; choose another --out") from error
        names = {"digest": "the data", "per_shard": "--per-shard", "size": "--size"}
        for key, value in self._made_from.items():
            if values.get(key) != value:
                was = "" if key == "digest" else f" ({values.get(key)}, now {value})"
                raise RunError(
                    f"--out {self._folder}: its shards were written with another "
                    f"{names.get(key, key).removeprefix('the ')}{was}; choose another folder, use "
                    "the same as before, or delete the folder"
                )
        self._shards = shards

    def _write(self) -> None:
        shards = dict(sorted(self._shards.items()))
        content = {**self._made_from, "left_out": self._left_out, "shards": shards}
        values = json.dumps(content, indent=1) + "\n"
        write_whole(self._path, values)


class _ShardWriter:
    """One tar, written whole or not at all; a tar without samples is not written."""

    def __init__(self, path: Path) -> None:
        self.samples = 0
        self.bytes = 0
        self.skipped: list[Skip] = []
        self._path = path
        self._opened = ExitStack()
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> "_ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)
        if kind is None and self.samples:
            self.bytes = self._path.stat().st_size
            write_index(self._path)

    def add(self, packed: Packed) -> None:
        if packed.skip is not None:
            self.skipped.append(packed.skip)
            return
        tar = self._open()
        self.samples += 1
        for suffix, content in packed.members.items():
            # The defaults of a TarInfo are the same everywhere: no owner, no time.
            info = tarfile.TarInfo(f"{packed.number:09d}.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    def _open(self) -> tarfile.TarFile:
        if self._tar is None:
            temporary = self._opened.enter_context(whole_file(self._path))
            self._tar = self._opened.enter_context(
                tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT)
            )
        return self._tar


class _Samples(Dataset[Packed]):
    """Samples as members of a tar, made in worker processes."""

    def __init__(self, source: Source, numbers: Sequence[int], size: int | None) -> None:
        self._source = source
        self._numbers = numbers
        self._size = size

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int) -> Packed:
        number = self._numbers[item]
        return pack(self._source[number], number, size=self._size)


def _packed(source: Source, numbers: Sequence[int], settings: ShardSettings) -> Iterator[Packed]:
    loader = DataLoader(
        _Samples(source, numbers, settings.size),
        batch_size=min(_AT_ONCE, settings.per_shard),
        collate_fn=list,
        num_workers=settings.workers,
        worker_init_fn=ignore_interrupts if settings.workers else None,
    )
    for batch in loader:
        yield from batch


def _digest(source: Source) -> str:
    """Return a digest of a source's samples in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for number in range(len(source)):
        sample = source[number]
        values = [sample.key, sample.captions, sample.label, image_size(sample)]
        digest.update(json.dumps(values).encode())
    return digest.hexdigest()
