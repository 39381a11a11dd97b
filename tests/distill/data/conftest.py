import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

WritePictures = Callable[..., Path]
WriteTable = Callable[..., Path]


@pytest.fixture
def write_pictures(tmp_path: Path) -> WritePictures:
    """Write pictures of 4 x 3 pixels, each of one colour, and return their folder."""

    def write(names: Iterable[str], *, folder: str = ".") -> Path:
        for number, name in enumerate(names):
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3), (number, 100, 200)).save(file, "PNG")
        return tmp_path / folder

    return write


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteTable:
    """Write rows as a CSV, quoted as spreadsheets do."""

    def write(rows: Iterable[Iterable[str]], *, name: str = "captions.csv") -> Path:
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return tmp_path / name

    return write


@pytest.fixture
def write_text(tmp_path: Path) -> WriteTable:
    """Write a table byte for byte."""

    def write(content: str | bytes, *, name: str = "captions.csv") -> Path:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the user's cache into the test, and return the folder of tar indices in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/clip-distill/shards"
