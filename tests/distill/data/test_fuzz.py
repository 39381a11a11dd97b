"""Damaged data of every source: a counted skip or one line, and no picture with another's caption.

Whatever line or entry the damage left alone has to come out as it was.
"""

import base64
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.data.hub import open_hub
from distill.data.sample import Source
from distill.data.tables.base64_lines import open_base64
from distill.data.tables.table import open_table
from tests.distill.data.fuzz_pieces import (
    CAPTIONS,
    CASES,
    COLOURS,
    FILES,
    PICTURES,
    Outcome,
    attempt,
    damage,
    damage_value,
    write_files,
)
from tests.lazy import lazy_imports

with lazy_imports():
    import datasets

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the datasets library's cache inside of the test, and its progress bars out of it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def lines_of(form: str) -> tuple[str | None, list[str]]:
    """Return the header, if there is one, and the line of each colour."""
    if form == "base64":
        return None, [
            f"{caption}\t{base64.b64encode(PICTURES[colour]).decode()}"
            for colour, caption in CAPTIONS.items()
        ]
    if form == "jsonl":
        rows = [
            {"image": FILES[colour], "caption": caption, "label": colour}
            for colour, caption in CAPTIONS.items()
        ]
        return None, [json.dumps(row) for row in rows]
    rows = [(FILES[colour], caption, colour) for colour, caption in CAPTIONS.items()]
    if form == "csv":
        return "image,caption,label", [f'{file},"{text}",{label}' for file, text, label in rows]
    return "image\tcaption\tlabel", ["\t".join(row) for row in rows]


def rows_in(data: bytes, form: str) -> int:
    """Return how many lines of a file have something in them."""
    if form in ("base64", "jsonl"):
        blank = b" \r" if form == "base64" else None
        return sum(bool(line.strip(blank)) for line in data.split(b"\n"))
    lines = re.split("\r\n|\r|\n", data.decode("utf-8-sig"))
    return sum(bool(line.strip()) or "\t" in line for line in lines)


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "base64"])
def test_files_of_lines(tmp_path: Path, form: str) -> None:
    write_files(tmp_path)
    known: dict[Path, str | None] = {}
    header, lines = lines_of(form)
    clean = "\n".join([*([] if header is None else [header]), *lines]).encode() + b"\n"
    path = tmp_path / f"data.{form}"
    opener: Callable[[Path], Source] = open_base64 if form == "base64" else open_table
    path.write_bytes(clean)
    whole = attempt(lambda: opener(path), known=known)
    assert whole.captions == set(CAPTIONS.values())
    read = 0
    for case in range(CASES):
        generator = random.Random(f"{form} {case}")
        data = damage(clean, generator)
        path.write_bytes(data)
        outcome = attempt(lambda: opener(path), known=known)
        if outcome.source is None:
            continue
        read += 1
        # A quote may swallow what follows it, and a comma may split its field.
        quoted = form == "csv" and data.count(b'"') != clean.count(b'"')
        first = header is None or data.startswith((header + "\n").encode())
        if not quoted and first:
            intact = [text for text in CAPTIONS.values() if is_whole(text, lines, data)]
            assert set(intact) <= outcome.shown, (case, intact)
            # A line may end inside of quotes.
            expected = rows_in(data, form) - (header is not None)
            assert outcome.source.rows == expected or (form == "csv" and b'"' in data), case
        samples = len(outcome.source) + len(outcome.source.skipped)
        assert samples >= outcome.source.rows, case
    assert read > CASES // 10


def is_whole(caption: str, lines: list[str], data: bytes) -> bool:
    line = next(line for line in lines if caption in line)
    return line.encode() in data.split(b"\n")


def karpathy() -> dict[str, Any]:
    return {
        "dataset": "colours",
        "images": [
            {
                "imgid": number,
                "filename": FILES[colour],
                "split": "train",
                "sentences": [{"raw": CAPTIONS[colour], "tokens": [colour]}],
            }
            for number, colour in enumerate(COLOURS)
        ],
    }


def coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7000 + number, "file_name": FILES[colour]}
            for number, colour in enumerate(COLOURS)
        ],
        "annotations": [
            {"id": number, "image_id": 7000 + number, "caption": CAPTIONS[colour]}
            for number, colour in enumerate(COLOURS)
        ],
    }


def objects() -> list[dict[str, Any]]:
    return [{"image": FILES[colour], "caption": [CAPTIONS[colour]]} for colour in COLOURS]


def told_of(colour: str, clean: Any, damaged: Any) -> bool:
    """Whether everything that a file says of a colour is left as it was."""

    def entries(value: Any) -> list[str]:
        if not isinstance(value, dict):
            return [json.dumps(entry) for entry in value if isinstance(value, list)]
        lists = [value.get(name) for name in ("images", "annotations")]
        return [json.dumps(entry) for some in lists if isinstance(some, list) for entry in some]

    there = entries(damaged) if isinstance(damaged, dict | list) else []
    number = list(COLOURS).index(colour)
    mine = [
        entry for entry in entries(clean) if FILES[colour] in entry or CAPTIONS[colour] in entry
    ]
    # Another entry with the same id may come first.
    return all(entry in there for entry in mine) and sum(str(7000 + number) in e for e in there) < 3


@pytest.mark.parametrize("form", [karpathy, coco, objects])
def test_files_of_json(tmp_path: Path, form: Callable[[], Any]) -> None:
    write_files(tmp_path)
    known: dict[Path, str | None] = {}
    path = tmp_path / "data.json"
    clean = form()
    path.write_text(json.dumps(clean))
    assert attempt(lambda: open_table(path), known=known).captions == set(CAPTIONS.values())
    read = 0
    for case in range(CASES):
        generator = random.Random(f"{form.__name__} {case}")
        if case % 5 == 0:
            path.write_bytes(damage(json.dumps(clean).encode(), generator))
            attempt(lambda: open_table(path), known=known)
            continue
        damaged = damage_value(clean, generator)
        path.write_text(json.dumps(damaged))
        outcome = attempt(lambda: open_table(path), known=known)
        if outcome.source is None:
            continue
        read += 1
        for colour, caption in CAPTIONS.items():
            if told_of(colour, clean, damaged):
                assert caption in outcome.shown, (case, colour)
    assert read > CASES // 2


def check_rows(source: Source | None, case: int) -> None:
    """See that each row of a file that could be opened is a sample or a counted skip."""
    if source is not None:
        assert source.rows == len(COLOURS), case
        assert len(source) + len(source.skipped) >= source.rows, case


def test_parquet_files(tmp_path: Path) -> None:
    write_files(tmp_path)
    known: dict[Path, str | None] = {}
    inside = [{"bytes": PICTURES[colour], "path": FILES[colour]} for colour in COLOURS]
    path, clean = tmp_path / "data.parquet", []
    for images in (list(FILES.values()), inside):
        columns = {"image": images, "caption": list(CAPTIONS.values()), "label": list(COLOURS)}
        datasets.Dataset.from_dict(columns).to_parquet(str(path))
        clean.append(path.read_bytes())
        assert attempt(lambda: open_table(path), known=known).captions == set(CAPTIONS.values())
    read = 0
    for case in range(CASES):
        # The library takes longer over a file with pictures inside.
        data = damage(clean[case % 5 == 0], random.Random(f"parquet {case}"))
        path.write_bytes(data)
        source = attempt(lambda: open_table(path), known=known).source
        read += source is not None
        check_rows(source, case)
    assert 0 < read < CASES


def test_local_copies_of_hub_sets(tmp_path: Path) -> None:
    pictures = [{"bytes": PICTURES[colour], "path": FILES[colour]} for colour in COLOURS]
    columns = {"image": pictures, "caption": list(CAPTIONS.values()), "label": list(COLOURS)}
    data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    clean, path = tmp_path / "clean", tmp_path / "damaged"
    data.save_to_disk(clean)
    assert attempt(lambda: open_hub(str(clean))).captions == set(CAPTIONS.values())
    names = sorted(file.name for file in clean.iterdir())
    # The Arrow files hold most of the data.
    weights = [6 if name.endswith(".arrow") else 1 for name in names]
    outcomes: list[Outcome] = []
    for case in range(CASES):
        generator = random.Random(f"hub {case}")
        shutil.copytree(clean, path)
        (name,) = generator.choices(names, weights)
        if generator.random() < 0.05:
            (path / name).unlink()
        else:
            (path / name).write_bytes(damage((clean / name).read_bytes(), generator))
        outcomes.append(attempt(lambda: open_hub(str(path))))
        check_rows(outcomes[-1].source, case)
        shutil.rmtree(path)
    assert 0 < sum(outcome.source is not None for outcome in outcomes) < CASES
