"""Samples of a tar: members of one name belong together, in any order."""

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

from distill.basis.words import shorten
from distill.data.marks import PICTURE_SUFFIXES
from distill.data.sample import Skip
from distill.data.shards._members import Gap, Member, read_members

_TEXT_SUFFIXES = ("txt", "json", "cls")
_LABEL_KEY, _GROUP_KEY = "label", "group"
# The keys that are read if the recipe names none: the first before txt, the second after it.
_CAPTIONS_KEY, _CAPTION_KEY = "captions", "caption"
LONGEST_TEXT = 1 << 20
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_MOST_CLASSES = 2**31
Label = int | str


@dataclass(frozen=True)
class TarSample:
    """A picture in a tar: the place of its bytes, its captions, its class and its group.

    A label is the name of a class, or its number in ``classnames.txt``.
    """

    key: str
    offset: int
    size: int
    captions: tuple[str, ...]
    label: Label | None
    group: str | None = None


@dataclass
class _Group:
    """The members of one key."""

    picture: Member | None = None
    texts: dict[str, tuple[Member, bytes]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    doubled: str = ""
    beside_gap: bool = False


def read_samples(
    file: BinaryIO, size: int, *, caption_key: str | None
) -> Iterator[TarSample | Skip]:
    """Yield the samples of a tar, and a skip for each sample that cannot be used.

    The key of a member is its path up to the first dot of its name, as in WebDataset. Hidden
    members are ignored. Captions are the ``caption_key`` of ``json``; if that is None they are its
    ``captions``, otherwise ``txt``, otherwise its ``caption``. The place of a skip is the name of a
    member. If a name has two pictures or two texts, all are skipped, because it is unclear
    which belong together. If some pictures of a tar have texts, a picture without any is skipped:
    its text is missing or lost.
    """
    gatherer = _Gatherer(file)
    yield from gatherer.gather(size)
    alone = "it has no text, but other pictures of the tar have one"
    if gatherer.damaged:
        alone = "its caption may be lost in the damaged part of the tar"
    texts = any(group.texts for group in gatherer.groups.values())
    for key, group in gatherer.groups.items():
        lost = not group.texts and (texts or group.beside_gap)
        yield from _sample(key, group, caption_key, alone=alone if lost else None)


class _Gatherer:
    """Groups the members of a tar by key, and reads their texts."""

    def __init__(self, file: BinaryIO) -> None:
        self.groups: dict[str, _Group] = {}
        self.damaged = False
        self._file = file
        self._last: _Group | None = None
        self._after_gap = False

    def gather(self, size: int) -> Iterator[Skip]:
        for member in read_members(self._file, size):
            if isinstance(member, Gap):
                yield Skip(f"bytes {member.first:,} to {member.end:,}", member.reason)
                if self._last is not None:
                    self._last.beside_gap = True
                self._after_gap = self.damaged = True
            elif member.kind != "folder" and not _hidden(member.name):
                wrong = _unusable(member)
                if wrong is None:
                    self._add(member)
                else:
                    yield Skip(_printable(member.name), wrong, kind=_kind(member.name))

    def _add(self, member: Member) -> None:
        key, suffix = _split_name(posixpath.normpath(member.name))
        group = self._last = self.groups.setdefault(key, _Group())
        group.beside_gap |= self._after_gap
        self._after_gap = False
        if f".{suffix}" in PICTURE_SUFFIXES:
            group.doubled = group.doubled if group.picture is None else "pictures"
            group.picture = member
        elif suffix in _TEXT_SUFFIXES:
            group.doubled = f".{suffix} members" if suffix in group.texts else group.doubled
            group.texts[suffix] = (member, self._read(member))
        else:
            group.others.append(suffix)

    def _read(self, member: Member) -> bytes:
        if member.size > LONGEST_TEXT:
            return b""
        self._file.seek(member.offset)
        return self._file.read(member.size)


def _split_name(name: str) -> tuple[str, str]:
    """Return the key of a member, and its suffix in lower case without the dot."""
    folder, base = posixpath.split(name)
    stem, _, suffix = base.partition(".")
    return _printable(posixpath.join(folder, stem)), _printable(suffix.lower())


def _sample(
    key: str, group: _Group, caption_key: str | None, *, alone: str | None
) -> Iterator[TarSample | Skip]:
    """Yield a sample or the skip of it; ``alone`` is the reason to skip it for its missing text."""
    picture = group.picture
    if picture is None:
        yield Skip(key, _without_picture(group), kind="row" if not group.texts else "picture")
        return
    if group.doubled:
        yield Skip(key, f"it has two {group.doubled}; it is unclear which belong together")
        return
    if picture.size == 0:
        yield Skip(_printable(picture.name), "the picture is empty")
        return
    if alone is not None:
        yield Skip(key, alone)
        return
    texts = _Texts(group)
    captions, label = texts.captions(caption_key), texts.label()
    yield from texts.wrong
    yield TarSample(key, picture.offset, picture.size, captions, label, texts.group())


def _without_picture(group: _Group) -> str:
    found = ", ".join(dict.fromkeys(shorten(name, limit=20) for name in group.others[:4]))
    return "it has no picture (jpg, jpeg, png, webp)" + (
        f"; found {found}; the suffix is everything after the first dot of a name" if found else ""
    )


class _Texts:
    """The text members of a sample; ``wrong`` holds a skip for each that cannot be read."""

    def __init__(self, group: _Group) -> None:
        self.wrong: list[Skip] = []
        self._texts: dict[str, str] = {}
        for part, (member, content) in group.texts.items():
            if member.size > LONGEST_TEXT:
                self._skip(member, f"{member.size:,} bytes of text, more than {LONGEST_TEXT:,}")
                continue
            try:
                self._texts[part] = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                self._skip(member, f"it is not UTF-8 (byte {error.start + 1})")
        self._members = group.texts
        self._json = self._object() if "json" in self._texts else {}

    def captions(self, caption_key: str | None) -> tuple[str, ...]:
        if caption_key is not None:
            if self._json and caption_key not in self._json:
                member, _ = self._members["json"]
                self._skip(member, f"it has no {shorten(caption_key)}, the caption_key")
            return self._listed(caption_key)
        if _CAPTIONS_KEY in self._json:
            return self._listed(_CAPTIONS_KEY)
        if "txt" in self._texts:
            return (self._texts["txt"],) if self._texts["txt"] else ()
        return self._listed(_CAPTION_KEY)

    def label(self) -> Label | None:
        part = "cls" if "cls" in self._texts else "json"
        label = self._texts["cls"] if part == "cls" else self._json.get(_LABEL_KEY)
        if label is None or label == "":
            return None
        # In JSON a text is always a name, even if it looks like a number.
        if part == "cls" and _NUMBER.fullmatch(label):
            label = int(label)
        named = isinstance(label, str) and _is_text(label)
        if named or (type(label) is int and 0 <= label < _MOST_CLASSES):
            return label
        member, _ = self._members[part]
        self._skip(member, f"its class is {shorten(str(label), limit=40)}")
        return None

    def group(self) -> str | None:
        """Return the group; samples of one group are held out together."""
        group = self._json.get(_GROUP_KEY)
        return group if isinstance(group, str) and group and _is_text(group) else None

    def _object(self) -> dict[str, Any]:
        member, _ = self._members["json"]
        try:
            values = json.loads(self._texts["json"])
        except (ValueError, RecursionError):
            self._skip(member, "it is not JSON")
            return {}
        if isinstance(values, dict):
            return values
        self._skip(member, f"its JSON is a {type(values).__name__}, not an object")
        return {}

    def _listed(self, key: str) -> tuple[str, ...]:
        found = self._json.get(key)
        entries = found if isinstance(found, list) else [] if found is None else [found]
        captions = [entry for entry in entries if isinstance(entry, str) and _is_text(entry)]
        if len(captions) < len(entries):
            member, _ = self._members["json"]
            wrong = len(entries) - len(captions)
            self._skip(member, f"{shorten(key)} holds {wrong} captions that are not text")
        return tuple(dict.fromkeys(text for text in captions if text.strip()))

    def _skip(self, member: Member, reason: str) -> None:
        self.wrong.append(Skip(_printable(member.name), reason, kind="row"))


def _is_text(text: str) -> bool:
    """Tell whether a text is valid Unicode; JSON can hold half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _unusable(member: Member) -> str | None:
    parts = PurePosixPath(member.name).parts
    if member.kind == "link":
        return "it is a link; a sample needs the file itself"
    if member.kind == "other":
        return "it is not a regular file"
    if member.name.startswith("/") or ".." in parts or not parts:
        return "its name leads out of the tar"
    return None


def _kind(name: str) -> Literal["picture", "row"]:
    return "picture" if f".{_split_name(name)[1]}" in PICTURE_SUFFIXES else "row"


def _printable(name: str) -> str:
    """Return a name that fits on one line and is Unicode, whatever the tar contains."""
    if name.isprintable():
        return name
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in name
    )
