"""Damaged pictures and folders: a counted skip or one line, and no picture of another class."""

import io
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.folder import open_folder
from distill.data.images import open_images
from distill.data.sample import Sample, open_image
from distill.data.tables.table import open_table
from export.runtime.errors import DataError
from tests.distill.data.fuzz_pieces import (
    CAPTIONS,
    CASES,
    COLOURS,
    FILES,
    PICTURES,
    attempt,
    damage,
    one_line,
    png,
)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """Return a PNG of one colour, small in bytes at any size."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    row = b"\0" * ((side + 7) // 8 + 1)
    body = b"".join(rows.compress(row) for _ in range(side)) + rows.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, form: str, **arguments) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **arguments)
    return file.getvalue()


BOMB = bomb(30_000)
# The beginning of a HEIC file, as phones write them.
HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEmiafMiHBheic" + bytes(200)


# Opens a picture with 100 MB more than what the process has by then.
WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from distill.data.sample import Sample, open_image
image = Path(sys.argv[1])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 100_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print(open_image(Sample("x", image, (), None)).size)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for its memory")
def test_a_bomb_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    def told(data: bytes) -> str:
        (tmp_path / "x.png").write_bytes(data)
        command = [sys.executable, "-c", WITH_LITTLE_MEMORY, str(tmp_path / "x.png")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert told(png("red", size=20)) == "(20, 20)"
    assert "cannot be read (over 178,956,970 pixels)" in told(BOMB)
    # What the limit lets through is decoded, and finds no memory here: so the limit is real.
    assert "cannot be read" in (answer := told(bomb(12_000)))
    assert "over" not in answer


def test_the_user_can_lower_the_limit_of_pixels() -> None:
    with pytest.raises(DataError, match=r"^bomb: the picture cannot be read \(over 178,956,970 "):
        open_image(Sample("bomb", BOMB, (), None))
    # Pillow warns of pictures like this one, which an error here would be.
    with pytest.raises(
        DataError, match=r"^x: 10000 x 10000 pixels, more than the limit of 50,000,000; "
    ):
        open_image(Sample("x", bomb(10_000), (), None, max_pixels=50_000_000))
    data = png("red", size=20)
    with pytest.raises(
        DataError, match=r"^x: 20 x 20 pixels, more than the limit of 399; .*max_pixels"
    ):
        open_image(Sample("x", data, (), None, max_pixels=399))
    assert open_image(Sample("x", data, (), None, max_pixels=400)).size == (20, 20)


def test_odd_pictures_are_read_right_or_named() -> None:
    frames = [Image.new("RGB", (5, 4), COLOURS[name]) for name in ("red", "blue")]
    gif = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    deep = saved(Image.fromarray(np.full((2, 2), 51_400, np.uint16)), "PNG")
    cmyk = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    pictures = {"gif": gif, "deep": deep, "cmyk": cmyk, "one": png("blue", size=1)}
    shown = {
        name: open_image(Sample(f"{name}.jpg", data, (), None)).getpixel((0, 0))
        for name, data in pictures.items()
    }
    assert shown["gif"] == COLOURS["red"]
    assert shown["deep"] == (200, 200, 200)
    assert np.abs(np.subtract(shown["cmyk"], COLOURS["red"])).max() <= 4
    assert shown["one"] == COLOURS["blue"]
    for data in (HEIC, b"", b"\0", gif[:9], cmyk[:40]):
        with pytest.raises(DataError) as caught:
            open_image(Sample("a\nb\udcff.jpg", data, (), None))
        assert one_line(caught.value).startswith(r"a\nb\udcff.jpg: ")


def spoil(file: Path, generator: random.Random) -> None:
    """Put something else in the place of a picture."""
    content = file.read_bytes()
    file.unlink()
    match generator.randrange(5):
        case 0:
            file.write_bytes(damage(content, generator))
        case 1:
            file.write_bytes(generator.choice([b"", b"\0", HEIC, BOMB, b"<svg/>"]))
        case 2:
            file.mkdir()
        case 3:
            file.symlink_to(generator.choice([file.name, "gone.png", "..", "."]))
        case _:
            os.mkfifo(file)


def misplace(folder: Path, file: Path, generator: random.Random) -> None:
    """Give a picture another name or place, or put something odd next to it."""
    names = (f".{file.name}", f"{file.stem}.txt", file.stem, "a\nb.png", "ä" * 120 + ".png")
    match generator.randrange(4):
        case 0:
            name = generator.choice([*names, "犬 🐕.png", os.fsdecode(b"\xff\xfe.png")])
            file.rename(file.with_name(name))
        case 1:
            (file.parent / "loop").unlink(missing_ok=True)
            (file.parent / "loop").symlink_to(generator.choice([folder, file.parent, "loop"]))
        case 2:
            deep = file.parent / "/".join("d" * 40)
            deep.mkdir(parents=True, exist_ok=True)
            file.rename(deep / file.name)
        case _:
            (file.parent / "notes.md").write_bytes(file.read_bytes())


def restore(folder: Path, clean: dict[str, bytes], *, touched: set[str]) -> None:
    """Take away what does not belong into a folder or was touched, and write that again."""
    tops = {name.partition("/")[0] for name in clean}
    spoilt = {name.partition("/")[0] for name in touched}
    for entry in list(os.scandir(folder)):
        if entry.name not in tops or entry.name in spoilt:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
    for name, content in clean.items():
        if name.partition("/")[0] in spoilt:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def pictures_of(kind: str) -> dict[str, bytes]:
    """Return the pictures of a clean folder by their names."""
    if kind == "folder":
        names = ("a.png", "in/b.png")
        return {f"{colour}/{name}": PICTURES[colour] for colour in COLOURS for name in names}
    return {FILES[colour]: PICTURES[colour] for colour in COLOURS}


def lying_in(folder: Path) -> set[str]:
    """Return the paths of the files and links in a folder that are named like pictures."""
    found = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place) / name for name in names if not name.startswith(".")):
            if path.suffix == ".png" and (path.is_symlink() or path.is_file()):
                found.add(place_of(path))
    return found


def place_of(path: Path) -> str:
    """Return a path without the links on the way to it."""
    return str(path.parent.resolve() / path.name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "images", "table"])
def test_damaged_folders(tmp_path: Path, kind: str) -> None:
    pictures, clean, sources = pictures_of(kind), pictures_of(kind), 0
    rows = "".join(f'{FILES[name]},"{CAPTIONS[name]}"\n' for name in COLOURS)
    if kind == "table":
        clean["data.csv"] = f"image,caption\n{rows}".encode()
    opener = {
        "folder": lambda: open_folder(tmp_path),
        "images": lambda: open_images(tmp_path),
        "table": lambda: open_table(tmp_path / "data.csv"),
    }[kind]
    touched = set(clean)
    for case in range(CASES):
        generator = random.Random(f"{kind} {case}")
        restore(tmp_path, clean, touched=touched)
        broken = generator.sample(sorted(pictures), generator.choice([1, 1, 2, 4]))
        for name in broken:
            if generator.random() < 0.6:
                spoil(tmp_path / name, generator)
            else:
                misplace(tmp_path, tmp_path / name, generator)
        late = generator.choice(["", *pictures])
        touched = {*broken, *([late] if late else [])}

        def vanish(file: Path = tmp_path / late) -> None:
            if file.is_file() and not file.is_symlink():
                file.unlink()

        there = lying_in(tmp_path)
        outcome = attempt(opener, meanwhile=vanish)
        if outcome.source is not None:
            sources += 1
            if kind != "table":
                told = [tmp_path / key for key in outcome.keys]
                told += [Path(skip.where) for skip in outcome.source.skipped]
                assert there <= {place_of(path) for path in told}, case
            assert set(pictures) - set(broken) <= outcome.keys, case
            if kind == "table":
                # Everything that is missing is counted.
                assert len(outcome.source) + len(outcome.source.skipped) == len(COLOURS), case
    assert sources > CASES // 2
