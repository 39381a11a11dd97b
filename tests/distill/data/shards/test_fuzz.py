"""Damaged tars: a counted skip or one line, never a traceback, a silent loss or a wrong pair."""

import io
import random
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.sample import Sample, open_image
from distill.data.shards.source import ShardsSource, open_shards
from export.runtime.errors import ClipDistillError, DataError
from tests.distill.data.fuzz_pieces import CASES
from tests.distill.data.shards.tars import picture, write_tar

# A case takes little time here, so there are more of them: 700 for 500 of the others.
TARS = CASES * 7 // 5
Members = list[tuple[str, bytes | str]]


def caption(number: int) -> str:
    """Name the picture's colour, in a way that tells whether a bit of the text was changed."""
    text = f"colour {number}"
    return f"{text} sum {zlib.crc32(text.encode())}"


def said(text: str) -> int | None:
    found = re.fullmatch(r"(colour (\d+)) sum (\d+)", text)
    whole = found is not None and int(found[3]) == zlib.crc32(found[1].encode())
    return int(found[2]) if found is not None and whole else None


def shown(image: Image.Image) -> int | None:
    """Return the number that a picture shows, None if its pixels were changed."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    red, green, blue = pixels[0].tolist()
    return red if (pixels == pixels[0]).all() and (green, blue) == (255 - red, 7) else None


def sound(draw: random.Random) -> Members:
    members: Members = []
    for number in draw.sample(range(256), draw.randint(1, 8)):
        name = f"{'long/' * draw.choice([0, 0, 40])}{number:03d}"
        form = draw.choice(["png", "webp"])
        members.append((f"{name}.{form}", picture(number, "PNG" if form == "png" else "WEBP")))
        text = caption(number)
        json = f'{{"caption": ["{text}"], "label": {number}}}'
        members.append(draw.choice([(f"{name}.txt", text), (f"{name}.json", json)]))
    return members


# --- damage of the members


def without_a_caption(members: Members, draw: random.Random) -> None:
    members.pop(draw.randrange(len(members) // 2) * 2 + 1)


def without_a_picture(members: Members, draw: random.Random) -> None:
    members.pop(draw.randrange(len(members) // 2) * 2)


def twice(members: Members, draw: random.Random) -> None:
    """Give a sample another picture and another caption of the same name, or one of both."""
    name = draw.choice(members)[0].partition(".")[0]
    suffix = next((text for text, _ in members if text in (f"{name}.txt", f"{name}.json")), "")
    number = draw.randrange(256)
    place = draw.randrange(len(members) + 1)
    text = caption(number)
    new: Members = [
        (f"{name}.png", picture(number)),
        (suffix or f"{name}.txt", f'{{"caption": "{text}"}}' if "json" in suffix else text),
    ]
    members[place:place] = draw.choice([new, new[::-1], new[:1], new[1:]])


def rubbish(members: Members, draw: random.Random) -> None:
    name = draw.choice(["x.bin", "7.txt", "a.json", "b.cls", "..", ".", "", "c.png", "d", "é.txt"])
    members.insert(draw.randrange(len(members)), (name, draw.randbytes(draw.randrange(3000))))


def climbing(members: Members, draw: random.Random) -> None:
    place = draw.randrange(len(members))
    name, content = members[place]
    members[place] = (draw.choice(["/", "../", "a/../../", "//", "/../"]) + name, content)


def empty(members: Members, draw: random.Random) -> None:
    place = draw.randrange(len(members))
    members[place] = (members[place][0], b"")


def shuffled(members: Members, draw: random.Random) -> None:
    draw.shuffle(members)


# --- damage of the bytes


def cut_off(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def flipped(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 12)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def lost_in_the_middle(content: bytearray, draw: random.Random) -> None:
    first = draw.randrange(len(content))
    del content[first : first + draw.choice([1, 100, 512, 1024, 3000])]


def zeroed(content: bytearray, draw: random.Random) -> None:
    # Zeros at the end of a tar look like its fill: what stood there was never there.
    used = len(content.rstrip(b"\0"))
    length = min(draw.choice([1, 512, 4096]), used // 2)
    first = draw.randrange(max(used - length - 1024, 1))
    content[first : first + length] = bytes(length)


def overwritten(content: bytearray, draw: random.Random) -> None:
    first = draw.randrange(len(content))
    length = min(draw.choice([10, 512, 2000]), len(content) - first)
    content[first : first + length] = draw.randbytes(length)


def put_in(content: bytearray, draw: random.Random) -> None:
    first = draw.randrange(len(content))
    content[first:first] = draw.randbytes(draw.choice([1, 511, 512, 5000]))


def appended(content: bytearray, draw: random.Random) -> None:
    content += draw.randbytes(draw.randrange(1, 3000))


def all_of_headers(content: bytearray, draw: random.Random) -> None:
    """Change numbers and types in headers, and make their sums right again."""
    for first in range(0, len(content) - 511, 512):
        if content[first + 257 : first + 262] == b"ustar" and draw.random() < 0.3:
            field = draw.choice([(124, 12), (156, 1), (0, 4), (345, 3), (100, 8)])
            begin = first + field[0]
            content[begin : begin + field[1]] = draw.randbytes(field[1])
            content[first + 148 : first + 156] = b" " * 8
            total = sum(content[first : first + 512])
            content[first + 148 : first + 156] = f"{total:06o}\0 ".encode()


OF_MEMBERS: list[Callable[[Members, random.Random], None]] = [
    without_a_caption,
    without_a_picture,
    twice,
    rubbish,
    climbing,
    empty,
    shuffled,
]
REMOVING = (without_a_caption, without_a_picture, climbing)
OF_BYTES: list[Callable[[bytearray, random.Random], None]] = [
    cut_off,
    flipped,
    lost_in_the_middle,
    zeroed,
    overwritten,
    put_in,
    appended,
    all_of_headers,
]


def damaged_tar(path: Path, draw: random.Random) -> tuple[list[str], set[int]]:
    """Write a damaged tar; return what was done to it, and the numbers of its pictures."""
    members = sound(draw)
    kinds = draw.choice([1, 1, 2, 3])
    done: list[str] = []
    changes = draw.sample(OF_MEMBERS, draw.randint(0, kinds))
    if twice in changes:
        # If one of the two were missing, the other would be the only one with that name.
        changes = [change for change in changes if change not in REMOVING]
    for change in changes:
        change(members, draw)
        done.append(change.__name__)
    names = {name.rpartition("/")[2].partition(".")[0] for name, _ in members}
    numbers = {int(name) for name in names if len(name) == 3 and name.isdecimal()}
    form = draw.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
    write_tar(path, members, form=form)
    # If one of two samples with the same name is lost, the other looks like the only one.
    if twice not in changes and (draw.random() < 0.7 or not done):
        content = bytearray(path.read_bytes())
        of_bytes = draw.choice(OF_BYTES)
        of_bytes(content, draw)
        path.write_bytes(content)
        done.append(of_bytes.__name__)
    return done, numbers


def check(source: ShardsSource) -> tuple[set[int], int]:
    """Check every pair; return the numbers of whole pairs, and how many are known to be damaged."""
    whole: set[int] = set()
    damaged = 0
    assert len({one.key for one in source}) == len(source)
    for one in source:
        number = read(one)
        captions = {said(text) for text in one.captions}
        # A pair that is wrong would name two numbers.
        assert len((captions | {number}) - {None}) <= 1, one.key
        if number is None or None in captions:
            damaged += 1
        else:
            whole.add(number)
    return whole, damaged


def read(one: Sample) -> int | None:
    try:
        return shown(open_image(one))
    except DataError as error:
        return None if "\n" not in str(error) else -1


def opened(path: Path) -> ShardsSource | str:
    """Return the source, or the line that says why there is none."""
    try:
        return open_shards(str(path))
    except ClipDistillError as error:
        return str(error)


def test_damaged_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused = skipped = 0
    for case in range(TARS):
        draw = random.Random(case)
        path = tmp_path / f"{case}.tar"
        done, numbers = damaged_tar(path, draw)
        source = opened(path)
        if isinstance(source, str):
            assert "\n" not in source, (case, done)
            assert source.startswith(str(path)), (case, done)
            refused += 1
            continue
        whole, damaged = check(source)
        # Every loss is reported: by a skip, or by the reader of the picture or text.
        if not numbers <= whole:
            assert source.skipped or damaged, (case, done, numbers - whole)
        lines = [f"{skip.where} {skip.reason}" for skip in source.skipped]
        assert all("\n" not in line for line in lines), (case, done)
        skipped += bool(lines)
    assert refused > TARS * 3 // 70
    assert skipped > TARS * 2 // 7


def test_pictures_and_captions_tell_their_numbers() -> None:
    assert said(caption(7)) == 7
    assert said(caption(7).replace("7", "8", 1)) is None
    assert shown(Image.open(io.BytesIO(picture(9)))) == 9
