"""Samples of a tar: members of one name belong together, in whatever order they stand."""

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

from distill.basis.words import shorten
from distill.data.pictures import PICTURE_SUFFIXES
from distill.data.sample import Skip
from distill.data.shards._members import Gap, Member, read_members

_TEXT_SUFFIXES = ("txt", "json", "cls")
_LABEL_KEY, _GROUP_KEY = "label", "group"
# Keys that are looked at where the recipe names none, the one before and the one after txt.
_CAPTIONS_KEY, _CAPTION_KEY = "captions", "caption"
LONGEST_TEXT = 1 << 20
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_MOST_CLASSES = 2**31
Label = int | str


@dataclass(frozen=True)
class TarSample:
    """A picture of a tar: where its bytes are, its captions, its class and its group.

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
    """What was found of one key."""

    picture: Member | None = None
    texts: dict[str, tuple[Member, bytes]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    doubled: str = ""
    beside_gap: bool = False


def read_samples(
    file: BinaryIO, size: int, *, caption_key: str | None
) -> Iterator[TarSample | Skip]:
    """Yield the samples of a tar, and every one that cannot be used.

    The key of a member is its path up to the first dot of its name, as in WebDataset. Hidden
    members are passed over. Captions are the ``caption_key`` of ``json``; where that is None its
    ``captions``, else ``txt``, else its ``caption``. The places of skips are names of members.
    Of two pictures or two texts of one name none is taken, since either may be the other's. Where
    pictures of a tar have texts, one without any is left out: its own is missing, or was lost.
    """
    gatherer = _Gatherer(file)
    yield from gatherer.gather(size)
    alone = "no text of this name, though other pictures of the tar have one"
    if gatherer.damaged:
        alone = "its caption may be lost in the damaged part of the tar"
    texts = any(group.texts for group in gatherer.groups.values())
    for key, group in gatherer.groups.items():
        lost = not group.texts and (texts or group.beside_gap)
        yield from _sample(key, group, caption_key, alone=alone if lost else None)


class _Gatherer:
    """Sorts the members of a tar into groups; texts are read on the way."""

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
            group.doubled = suffix if suffix in group.texts else group.doubled
            group.texts[suffix] = (member, self._read(member))
        else:
            group.others.append(suffix)

    def _read(self, member: Member) -> bytes:
        if member.size > LONGEST_TEXT:
            return b""
        self._file.seek(member.offset)
        return self._file.read(member.size)


def _split_name(name: str) -> tuple[str, str]:
    """Return the key of a member and its suffix in small letters, without the dot."""
    folder, base = posixpath.split(name)
    stem, _, suffix = base.partition(".")
    return _printable(posixpath.join(folder, stem)), _printable(suffix.lower())


def _sample(
    key: str, group: _Group, caption_key: str | None, *, alone: str | None
) -> Iterator[TarSample | Skip]:
    """Yield a sample or why there is none; ``alone`` is what is wrong where it lacks a text."""
    picture = group.picture
    if picture is None:
        yield Skip(key, _without_picture(group), kind="row" if not group.texts else "picture")
        return
    if group.doubled:
        yield Skip(key, f"two {group.doubled} of this name; which belong together is not known")
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
    return "no picture of this name (jpg, jpeg, png, webp)" + (
        f"; found {found}; what follows the first dot of a name is its kind" if found else ""
    )


class _Texts:
    """What the text members of a sample say; ``wrong`` is what could not be read."""

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
        # In JSON a text is a name, whatever it looks like.
        if part == "cls" and _NUMBER.fullmatch(label):
            label = int(label)
        named = isinstance(label, str) and _is_text(label)
        if named or (type(label) is int and 0 <= label < _MOST_CLASSES):
            return label
        member, _ = self._members[part]
        self._skip(member, f"its class is {shorten(str(label), limit=40)}")
        return None

    def group(self) -> str | None:
        """Return what samples that are held out together share."""
        group = self._json.get(_GROUP_KEY)
        return group if isinstance(group, str) and group and _is_text(group) else None

    def _object(self) -> dict[str, Any]:
        member, _ = self._members["json"]
        try:
            values = json.loads(self._texts["json"])
        except (ValueError, RecursionError):
            self._skip(member, "it is no JSON")
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
            self._skip(member, f"{shorten(key)} holds {wrong} captions that are no text")
        return tuple(dict.fromkeys(text for text in captions if text.strip()))

    def _skip(self, member: Member, reason: str) -> None:
        self.wrong.append(Skip(_printable(member.name), reason, kind="row"))


def _is_text(text: str) -> bool:
    """Tell whether a text is Unicode; JSON can hold one half of a surrogate pair."""
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
        return "it is no plain file"
    if member.name.startswith("/") or ".." in parts or not parts:
        return "its name leads out of the tar"
    return None


def _kind(name: str) -> Literal["picture", "row"]:
    return "picture" if f".{_split_name(name)[1]}" in PICTURE_SUFFIXES else "row"


def _printable(name: str) -> str:
    """Return a name that fits into a line and is Unicode, whatever stands in the tar."""
    if name.isprintable():
        return name
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in name
    )
