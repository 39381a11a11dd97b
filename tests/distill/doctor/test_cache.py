"""What the doctor finds in caches."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.doctor.finding import Finding
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.doctor.cache import examine_cache
    from distill.teacher.cache.build import build_cache, open_cache
    from distill.teacher.cache.cache import Cache
    from tests.distill.teacher.cache.cache_pieces import (
        CAPTIONS,
        KEYS,
        SETTINGS,
        CountingTeacher,
        Pictures,
        silent,
        write_pictures,
    )


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.fixture
def source(tmp_path: Path) -> Pictures:
    return Pictures(write_pictures(tmp_path), KEYS, CAPTIONS)


def built(folder: Path, source: Pictures, dtype: Any) -> Cache:
    settings = dataclasses.replace(SETTINGS, dtype=dtype)
    teacher = CountingTeacher()
    cache, _ = build_cache(folder, source, teacher, settings=settings, progress=silent)
    return cache


def test_a_cache_that_does_not_exist_yet(tmp_path: Path, source: Pictures) -> None:
    cache = open_cache(tmp_path / "cache", CountingTeacher(), SETTINGS)
    assert levels(examine_cache("cache", cache, source)) == ["fine"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_a_whole_cache(tmp_path: Path, source: Pictures, dtype: Any) -> None:
    cache = built(tmp_path / "cache", source, dtype)
    (finding,) = examine_cache("cache", cache, source)
    assert finding.level == "fine"
    assert "10 pictures and 9 captions" in finding.text


@pytest.mark.parametrize(
    ("part", "value"), [("images", 0.0), ("captions", 3.0), ("images", np.nan)]
)
def test_a_cache_whose_embeddings_are_not_normalised(
    tmp_path: Path, source: Pictures, part: str, value: float
) -> None:
    cache = built(tmp_path / "cache", source, "float16")
    path = sorted(cache.folder.glob(f"{part}-?????.npy"))[-1]
    rows = np.load(path)
    rows[0] = value * rows[0]
    np.save(path, rows)
    (finding,) = examine_cache("cache", cache, source)
    assert finding.level == "wrong"
    assert path.name in finding.text
    assert f"delete {cache.folder}" in finding.way_out


def test_pictures_that_have_changed(tmp_path: Path, source: Pictures) -> None:
    cache = built(tmp_path / "cache", source, "float16")
    with (tmp_path / KEYS[3]).open("ab") as file:
        file.write(b"longer")
    (finding,) = examine_cache("cache", cache, source)
    assert finding.level == "note"
    assert "1 of 10 pictures have changed" in finding.text
