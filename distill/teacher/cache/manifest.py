"""The manifest of a cache: its identity and the list of its whole shards.

Several processes can build one cache. The first writes ``manifest.json``. Each other process p
writes a part, ``manifest-p.json``, which lists its own shards. Reading a cache merges the parts.
The first process also merges the files, before and after a build, so any number of processes can
continue a killed build.
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

# Recipe fields whose values have other names in a manifest.
_FIELDS = {"view_count": "cache.views", "dtype": "cache.dtype"}
_KINDS = {"center": "centre crops", "random": "random crops"}


@dataclass(frozen=True)
class Identity:
    """Everything that cached embeddings depend on, except the data."""

    teacher: str
    fingerprint: str
    preprocessing: Mapping[str, Any]
    views: Mapping[str, Any]
    view_count: int
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return the values as the manifest holds them."""
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
    """The content of ``manifest.json``, or of one process's part of it.

    Attributes:
        identity: The values of an ``Identity``.
        width: Width of the embeddings.
        logit_scale: The teacher's logit scale.
        logit_bias: The teacher's logit bias.
        shards: The file and the number of rows of each shard.
        unreadable: The size of each unreadable picture and the reason, by its key. In a part,
            None means that the picture can be read again.
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
        """Write the manifest, or the part of a process, whole."""
        fixed = {key for key, entry in self.unreadable.items() if entry is None and process == 0}
        values = {
            "format": _FORMAT,
            **self.identity,
            "width": self.width,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "images": self.shards["images"],
            "captions": self.shards["captions"],
            "unreadable": {
                key: entry for key, entry in self.unreadable.items() if key not in fixed
            },
        }
        write_whole(_manifest_path(folder, process), json.dumps(values, indent=1) + "\n")

    def empty(self) -> "Manifest":
        """Return a manifest of the same cache that lists nothing yet."""
        return Manifest(dict(self.identity), self.width, self.logit_scale, self.logit_bias)

    def damaged(self, key: str) -> int | None:
        """Return the size in bytes of a picture that cannot be read, None for other pictures."""
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
    """Return the merged manifest of a cache, or None if there is no cache yet.

    Raises:
        CacheError: The manifest is damaged, or the cache was built by another teacher, with
            other preprocessing or for other views; the message names the differences.
    """
    # manifest.json comes last: a part that vanishes meanwhile has been merged into it.
    parts = [_read(path, identity) for path in _part_paths(folder)]
    whole = _read(folder / "manifest.json", identity)
    manifests = [manifest for manifest in (whole, *parts) if manifest is not None]
    if not manifests:
        return None
    merged = manifests[0].empty()
    for part in PARTS:
        # After a killed merge, manifest.json and a part list the same shards.
        named = {shard["file"]: shard for manifest in manifests for shard in manifest.shards[part]}
        merged.shards[part] = sorted(named.values(), key=_shard_number)
    for manifest in manifests:
        merged.unreadable.update(manifest.unreadable)
    merged.unreadable = {key: entry for key, entry in merged.unreadable.items() if entry}
    return merged


def merge_parts(folder: Path, identity: Identity, new: Manifest) -> None:
    """Merge all parts into one manifest; a cache that does not exist yet begins with ``new``.

    Raises:
        CacheError: As in :func:`read_manifest`.
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
            f"{folder}: the cache was built for {_KINDS[held]}, but the recipe asks for "
            f"{_KINDS[wanted]} (views.kind: {wanted}); set views.kind: {held}, or set "
            "cache.folder to another folder to build a new cache there"
        )
    different = [
        f"{_FIELDS.get(path, path)} is {json.dumps(was)}, the recipe asks for {json.dumps(now)}"
        for path, was, now in differences(found, asked)
    ]
    if different:
        raise CacheError(
            f"{folder}: the cache was built with other settings ({'; '.join(different)}); "
            "restore those settings, or set cache.folder to another folder to build a new "
            "cache there"
        )
