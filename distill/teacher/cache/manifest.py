"""What a cache is known by, and the list of its whole shards.

Several processes build one cache. The first writes ``manifest.json``; process p of the others
writes ``manifest-p.json``, which lists what it has done so far. Reading merges them, and the first
process makes one of them before a build and after it, so that a killed build is taken up by any
number of processes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.basis.differences import differences
from distill.basis.files import write_whole
from distill.data.sample import Skip
from export.runtime.errors import CacheError

_FORMAT = 1
Part = Literal["images", "captions"]
PARTS: tuple[Part, ...] = ("images", "captions")

# Which field of a recipe a value of the manifest comes from, where it is called otherwise.
_FIELDS = {"view_count": "cache.views", "dtype": "cache.dtype"}
_KINDS = {"center": "centre crops", "random": "random crops"}


@dataclass(frozen=True)
class Identity:
    """What cached embeddings depend on, beside the data."""

    teacher: str
    fingerprint: str
    preprocessing: Mapping[str, Any]
    views: Mapping[str, Any]
    view_count: int
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return the values as they stand in the manifest."""
        return {
            "teacher": self.teacher,
            "fingerprint": self.fingerprint,
            "preprocessing": dict(self.preprocessing),
            "views": dict(self.views),
            "view_count": self.view_count,
            "dtype": self.dtype,
        }


@dataclass
class Manifest:
    """The content of ``manifest.json``, or the part of it that one process writes.

    ``unreadable`` maps the key of a picture to its size and what is wrong with it; None, in a
    part, says that the picture can be read now.
    """

    identity: dict[str, Any]
    width: int
    logit_scale: float
    logit_bias: float
    shards: dict[Part, list[dict[str, Any]]] = field(
        default_factory=lambda: {"images": [], "captions": []}
    )
    unreadable: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def write(self, folder: Path, process: int = 0) -> None:
        """Write the manifest (or a process's part) whole, under a temporary name first."""
        mended = {key for key, entry in self.unreadable.items() if entry is None and process == 0}
        values = {
            "format": _FORMAT,
            **self.identity,
            "width": self.width,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "images": self.shards["images"],
            "captions": self.shards["captions"],
            "unreadable": {
                key: entry for key, entry in self.unreadable.items() if key not in mended
            },
        }
        write_whole(_manifest_path(folder, process), json.dumps(values, indent=1) + "\n")

    def empty(self) -> "Manifest":
        """Return a manifest of the same cache that lists nothing yet."""
        return Manifest(dict(self.identity), self.width, self.logit_scale, self.logit_bias)

    def damaged(self, key: str) -> int | None:
        """Return the size of a picture that cannot be read, None for any other."""
        entry = self.unreadable.get(key)
        return None if entry is None else int(entry["bytes"])

    def skips(self) -> list[Skip]:
        """Return the pictures that cannot be read, with the reason of each."""
        return [
            Skip(where=key, reason=entry["reason"])
            for key, entry in self.unreadable.items()
            if entry is not None
        ]

    def next_number(self, part: Part) -> int:
        """Return the first number that no shard of a part has."""
        return max((_shard_number(shard) + 1 for shard in self.shards[part]), default=0)


def _manifest_path(folder: Path, process: int) -> Path:
    """Return the manifest that a process writes."""
    return folder / ("manifest.json" if process == 0 else f"manifest-{process}.json")


def _shard_number(shard: Mapping[str, Any]) -> int:
    """Return the number in a shard's name; a shard with a greater one is newer."""
    return int(Path(shard["file"]).stem.rpartition("-")[2])


def read_manifest(folder: Path, identity: Identity) -> Manifest | None:
    """Return the manifest of a cache, all parts merged, or None where there is no cache yet.

    Raises:
        CacheError: the cache is damaged, or was made by another teacher, preprocessing or of
            other views; the message names what differs.
    """
    # The whole one last: a part that vanishes meanwhile has become a piece of it.
    parts = [_read(path, identity) for path in _part_paths(folder)]
    whole = _read(folder / "manifest.json", identity)
    manifests = [manifest for manifest in (whole, *parts) if manifest is not None]
    if not manifests:
        return None
    merged = manifests[0].empty()
    for part in PARTS:
        # A killed merge leaves shards that are listed twice.
        named = {shard["file"]: shard for manifest in manifests for shard in manifest.shards[part]}
        merged.shards[part] = sorted(named.values(), key=_shard_number)
    for manifest in manifests:
        merged.unreadable.update(manifest.unreadable)
    merged.unreadable = {key: entry for key, entry in merged.unreadable.items() if entry}
    return merged


def merge_parts(folder: Path, identity: Identity, new: Manifest) -> None:
    """Make one manifest of all parts; ``new`` is what a cache that is not there yet begins with.

    Raises:
        CacheError: as in :func:`read_manifest`.
    """
    merged, parts = read_manifest(folder, identity), _part_paths(folder)
    if merged is None or parts:
        (merged or new).write(folder)
    for path in parts:
        path.unlink()


def _part_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("manifest-*.json"))


def _read(path: Path, identity: Identity) -> Manifest | None:
    try:
        values = json.loads(path.read_text())
        known = values["format"] == _FORMAT
        found = {key: values[key] for key in identity.to_dict()}
        manifest = Manifest(
            identity=found,
            width=values["width"],
            logit_scale=values["logit_scale"],
            logit_bias=values["logit_bias"],
            shards={"images": values["images"], "captions": values["captions"]},
            unreadable=values["unreadable"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path}: not a cache manifest of format {_FORMAT}; delete the folder to build it again"
        ) from error
    if not known:
        raise CacheError(
            f"{path}: format {values['format']}, but this version reads format {_FORMAT}; "
            "set cache.folder to another folder"
        )
    _check(path.parent, found, identity.to_dict())
    return manifest


def _check(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    held, wanted = found["views"].get("kind"), asked["views"].get("kind")
    if held != wanted and held in _KINDS and wanted in _KINDS:
        raise CacheError(
            f"{folder}: the cache was built for {_KINDS[held]}, and the recipe asks for "
            f"{_KINDS[wanted]} (views.kind: {wanted}); go back to views.kind: {held}, or set "
            "cache.folder to another folder to build a new cache there"
        )
    different = [
        f"{_FIELDS.get(path, path)} is {json.dumps(was)}, the recipe asks for {json.dumps(now)}"
        for path, was, now in differences(found, asked)
    ]
    if different:
        raise CacheError(
            f"{folder}: the cache was built for something else ({'; '.join(different)}); "
            "go back to those settings, or set cache.folder to another folder to build a new "
            "cache there"
        )
