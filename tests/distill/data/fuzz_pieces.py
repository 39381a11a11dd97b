"""What the fuzz tests share: pictures whose captions name their colour, and ways to damage them.

Each fuzz test damages its input in many ways, one case for each seed. The environment variable
``CLIP_DISTILL_FUZZ_CASES`` sets how many cases a test runs. The default of 40 takes a few seconds
for all fuzz tests together; continuous integration sets 500.
"""

import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from distill.data.sample import Sample, Source, open_image
from export.runtime.errors import ClipDistillError, DataError

CASES = int(os.environ.get("CLIP_DISTILL_FUZZ_CASES", "40"))
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (120, 0, 120),
}
NAMES = {pixel: name for name, pixel in COLOURS.items()}
# No damage that is drawn here turns one of these into another.
FILES = {name: f"{number}{name}-{name[::-1]}.png" for number, name in enumerate(COLOURS)}
CAPTIONS = {name: f"here {name} is seen, {name} alone" for name in COLOURS}
OF_FILE = {file: name for name, file in FILES.items()}
OF_CAPTION = {caption: name for name, caption in CAPTIONS.items()}
JUNK: tuple[Any, ...] = (
    *(None, 0, -1, 1.5, True, [], {}, "", " ", "\0", "a\0b", "\ud800x", "x" * 5000, [[[[]]]]),
    *({"raw": 3}, ["None"], "../../etc/passwd", "/", "NA", "\u202e\u0627", 10**40, [None, 7]),
    *("a\nb", "a\r\u2028b\ud800"),
)


def png(colour: str, *, size: int = 3) -> bytes:
    """Return a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


PICTURES = {name: png(name) for name in COLOURS}


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged input: its line of error, or its source and what it holds.

    ``shown`` are the captions whose picture was seen.
    """

    error: str | None
    source: Source | None = None
    captions: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()


def attempt(
    open_it: Callable[[], Source],
    *,
    meanwhile: Callable[[], None] | None = None,
    known: dict[Path, str | None] | None = None,
) -> Outcome:
    """Open a source, let something happen, and read all of it; see that nothing is mixed up.

    ``known`` remembers the colours of files that stay what they are.
    """
    try:
        source = open_it()
    except ClipDistillError as error:
        return Outcome(one_line(error))
    if meanwhile is not None:
        meanwhile()
    captions: set[str] = set()
    shown: set[str] = set()
    keys = []
    for number in range(len(source)):
        sample = source[number]
        keys.append(sample.key)
        captions.update(sample.captions)
        colour = colour_of(sample, known)
        if colour is not None:
            told = {OF_CAPTION[text] for text in sample.captions if text in OF_CAPTION}
            assert told <= {colour}, (sample.key, told, colour)
            assert sample.label not in COLOURS or sample.label == colour, sample.key
            assert OF_FILE.get(Path(sample.key).name, colour) == colour, sample.key
            shown.update(sample.captions)
    assert len(set(keys)) == len(keys)
    for skip in source.skipped:
        assert skip.where
        assert skip.reason
        assert "\n" not in skip.reason
    return Outcome(None, source, frozenset(captions), frozenset(keys), frozenset(shown))


def colour_of(sample: Sample, known: dict[Path, str | None] | None = None) -> str | None:
    """Return the colour that a picture shows, None if it cannot be read or shows another."""
    if known is not None and isinstance(sample.image, Path):
        if sample.image not in known:
            known[sample.image] = colour_of(sample)
        return known[sample.image]
    try:
        image = open_image(sample)
    except DataError as error:
        one_line(error)
        return None
    found = image.getcolors(4)
    return NAMES.get(found[0][1]) if found is not None and len(found) == 1 else None


def one_line(error: Exception) -> str:
    """Return the message of an error, which has to be one line that can be printed."""
    text = str(error)
    assert text.strip()
    assert "\n" not in text, text
    assert len(text) < 2000, text
    text.encode("utf-8")
    return text


def damage(data: bytes, generator: random.Random) -> bytes:
    """Flip, add, take away or cut off bytes, in up to four places."""
    result = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        place = generator.randrange(len(result) + 1)
        match generator.randrange(8):
            case 0 if place < len(result):
                result[place] = generator.randrange(256)
            case 1:
                del result[place:]
            case 2:
                result[place:place] = generator.choice([b"\0", b'"', b"\n", b"\r", b"\xff", b"\t"])
            case 3:
                result[place:place] = generator.choice(
                    [b",", b"\xed\xa0\x80", b"\xe2\x80\xa8", "🐕\u202e".encode(), b"{", b"]", b"\\"]
                )
            case 4:
                del result[place : place + 1]
            case 5:
                result[place:place] = generator.randbytes(3)
            case 6:
                result[place:place] = b"\xef\xbb\xbf"
            case _ if place < len(result):
                result[place] ^= 1 << generator.randrange(8)
    return bytes(result)


def damage_value(value: Any, generator: random.Random) -> Any:
    """Return a copy of a JSON value with one thing in it replaced, doubled or taken out."""
    copy = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        entries = node.items() if isinstance(node, dict) else enumerate(node)
        for key, entry in entries:
            places.append((node, key))
            if isinstance(entry, dict | list):
                visit(entry)

    visit(copy)
    node, key = generator.choice(places)
    match generator.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, list):
            node.insert(key, node[key])
        case _:
            node[key] = generator.choice(JUNK)
    return copy


def write_files(folder: Path) -> Path:
    """Write the pictures as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for colour, file in FILES.items():
        (folder / file).write_bytes(PICTURES[colour])
    return folder
