"""Estimates of what a cache costs, made before it is built."""

import dataclasses
import os
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.cli.app import main
from distill.recipe.load import load_recipe
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.run.estimate import (
        Estimate,
        Speeds,
        Workload,
        overlapped,
        stored_bytes,
    )
    from distill.run.pipeline import build_cache as build_by_recipe
    from distill.teacher.cache.build import build_cache
    from tests.distill.teacher.cache.cache_pieces import (
        CAPTIONS,
        KEYS,
        SETTINGS,
        CountingTeacher,
        Pictures,
        make_world,
        silent,
        write_pictures,
        write_recipe,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with captioned pictures and a small teacher of random weights."""
    return make_world(tmp_path_factory.mktemp("world"))


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_the_bytes_are_those_of_the_arrays_that_a_build_writes(tmp_path: Path, dtype: Any) -> None:
    settings = dataclasses.replace(SETTINGS, dtype=dtype)
    source = Pictures(write_pictures(tmp_path), KEYS, CAPTIONS)
    cache, _ = build_cache(
        tmp_path / "cache", source, CountingTeacher(), settings=settings, progress=silent
    )
    held = sum(np.load(path).nbytes for path in cache.folder.glob("*.npy"))
    assert stored_bytes(len(KEYS), len(set(CAPTIONS)), 3, settings) == held


def test_it_prints_what_is_to_do_and_writes_nothing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(world, tmp_path / "run")
    before = everything(world), everything(tmp_path)
    assert main(["cache", "--estimate", str(recipe)]) == 0
    assert (everything(world), everything(tmp_path)) == before
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    # 5 % of 160 pictures, by the hash of their keys, are held out.
    assert set(lines) == {
        "to embed",
        "on disk",
        "measured",
        "building",
        "cached",
        "live teacher",
        "the cache pays",
    }
    assert "× 2 views" in lines["to embed"]
    assert "float16" in lines["on disk"]
    assert f"free at {tmp_path}/run/cache" in lines["on disk"]
    pays = re.compile(r"never|in a run of (1 epoch|[\d,]+ epochs) or more")
    assert pays.fullmatch(lines["the cache pays"].strip())


@pytest.mark.slow
def test_it_counts_what_a_build_then_embeds(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(world, tmp_path / "run")
    main(["cache", "--estimate", str(recipe)])
    first = capsys.readouterr().out.splitlines()[0]
    build_by_recipe(load_recipe(recipe))
    caches = tmp_path / "run" / "cache"
    pictures = sum(len(np.load(path)) for path in caches.rglob("images-?????.npy"))
    captions = sum(len(np.load(path)) for path in caches.rglob("captions-?????.npy"))
    assert f"{pictures} of {pictures} pictures × 2 views" in first
    assert f"{captions} of {captions} captions" in first
    before = everything(tmp_path)
    main(["cache", "--estimate", str(recipe)])
    out = capsys.readouterr().out
    assert f"0 of {pictures} pictures × 2 views, 0 of {captions} captions" in out
    assert "0 B to write" in out
    assert everything(tmp_path) == before


def test_a_disk_that_is_too_small_is_reported_in_one_line(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = namedtuple("usage", "total used free")
    asked: list[Path] = []

    def small(path: Path) -> Any:
        asked.append(path)
        return usage(10, 9, 1000)

    monkeypatch.setattr(shutil, "disk_usage", small)
    recipe = write_recipe(world, tmp_path / "run", cache={"views": 2, "folder": f"{tmp_path}/a/b"})
    assert main(["cache", "--estimate", str(recipe)]) == 0
    # The folder does not exist yet, so its parent's disk is checked.
    assert asked == [tmp_path]
    warning = capsys.readouterr().out.splitlines()[-1]
    assert warning.startswith(f"warning: {tmp_path}/a/b has 1.0 kB free, and the cache needs ")
    assert not (tmp_path / "a").exists()


def test_scenes_that_are_not_rendered_are_not_rendered_for_it(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"train": {"kind": "scenes", "count": 64}}
    recipe = write_recipe(world, tmp_path / "run", data=data)
    assert main(["cache", "--estimate", str(recipe)]) == 2
    assert "not rendered yet, and --estimate writes nothing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_a_teacher_has_nothing_to_cache(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"teacher": "absent", "batch_size": 16, "steps": 4}
    recipe = write_recipe(
        world, tmp_path / "run", teacher=None, train=train, losses={"contrastive": 1}
    )
    with_width = ["--set", "student.width=16"]
    assert main(["cache", "--estimate", str(recipe), *with_width]) == 2
    assert "nothing to cache" in capsys.readouterr().err


def test_the_cache_pays_once_the_live_teacher_has_cost_as_much() -> None:
    estimate = Estimate(
        work=Workload(10, 10, 10, 10),
        speeds=Speeds(1, 1, 1, 1, 1, 1),
        bytes_whole=0,
        bytes_to_write=0,
        bytes_free=0,
        build_seconds=100.0,
        live_epoch_seconds=31.0,
        cached_epoch_seconds=1.0,
        epochs=3.0,
    )
    # Three epochs save 90 seconds, four save 120.
    assert estimate.pays_from_epochs == 4
    assert dataclasses.replace(estimate, build_seconds=90.0).pays_from_epochs == 3
    assert dataclasses.replace(estimate, cached_epoch_seconds=31.0).pays_from_epochs is None


def test_reading_hides_behind_the_teacher_only_where_it_has_other_cores() -> None:
    assert overlapped(8.0, 10.0, workers=0, device="cuda") == 18.0
    assert overlapped(8.0, 10.0, workers=2, device="cuda") == 10.0
    assert overlapped(80.0, 10.0, workers=2, device="cuda") == 40.0
    cores = os.cpu_count() or 1
    assert overlapped(8.0, 10.0, workers=4, device="cpu") == pytest.approx(10 + 8 / cores)
