"""Several processes build one cache, and any number of them can continue a killed build."""

import dataclasses
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.sample import Skip
from distill.recipe.load import load_recipe
from export.runtime.errors import DataError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.run.pipeline import build_cache as build_by_recipe
    from distill.teacher.cache.build import BuildSettings, Sharing, build_cache
    from distill.teacher.cache.cache import Cache
    from distill.teacher.cache.rows import row_digests
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

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path)


class LeftAloneError(Exception):
    """Another process died, so this one would wait forever."""


def build_together(
    folder: Path, source: Pictures, teachers: Sequence[CountingTeacher], settings: BuildSettings
) -> list[tuple[Cache, list[Skip]] | BaseException]:
    """Build one cache in one thread per teacher, each in the place of a process."""
    results: dict[int, Any] = {}
    failed: list[int] = []
    met_without: list[int] = []
    # Checked once all have arrived: a process that fails later has still arrived.
    barrier = threading.Barrier(len(teachers), lambda: met_without.extend(failed), timeout=60)

    def wait() -> None:
        barrier.wait()
        if met_without:
            raise LeftAloneError

    def work(rank: int) -> None:
        sharing = Sharing(rank=rank, count=len(teachers), wait=wait)
        try:
            results[rank] = build_cache(
                folder / "cache",
                source,
                teachers[rank],
                settings=settings,
                progress=silent,
                sharing=sharing,
            )
        except LeftAloneError as error:
            results[rank] = error
        except BaseException as error:
            results[rank] = error
            failed.append(rank)
            # The others do their share until they would wait for this one.
            barrier.wait()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(teachers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(len(teachers))]


def by_key(folder: Path, part: str) -> dict[tuple[int, int], np.ndarray]:
    """Return every embedding in the manifest by its digests, read with NumPy alone."""
    manifest = json.loads((folder / "manifest.json").read_text())
    found: dict[tuple[int, int], np.ndarray] = {}
    for shard in manifest[part]:
        keys = np.load((folder / shard["file"]).with_suffix(".keys.npy"))
        for key, row in zip(keys.tolist(), np.load(folder / shard["file"]), strict=True):
            assert (key[0], key[1]) not in found, "a row was embedded twice"
            found[key[0], key[1]] = row
    return found


def rows_listed(folder: Path, part: str) -> int:
    return sum(
        shard["rows"]
        for path in folder.glob("manifest*.json")
        for shard in json.loads(path.read_text())[part]
    )


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_share_the_work_and_build_the_same_cache(
    pictures: Path, tmp_path: Path, count: int
) -> None:
    source = Pictures(pictures, KEYS, CAPTIONS)
    alone = CountingTeacher()
    build_cache(tmp_path / "one", source, alone, settings=SETTINGS, progress=silent)
    teachers = [CountingTeacher() for _ in range(count)]
    results = build_together(tmp_path, source, teachers, SETTINGS)
    assert not any(isinstance(result, BaseException) for result in results)
    assert sum(teacher.pictures for teacher in teachers) == alone.pictures
    assert sorted(text for teacher in teachers for text in teacher.texts) == sorted(alone.texts)
    assert all(teacher.pictures for teacher in teachers)
    for part in ("images", "captions"):
        one, many = by_key(tmp_path / "one", part), by_key(tmp_path / "cache", part)
        assert one.keys() == many.keys()
        assert all(np.array_equal(one[key], many[key]) for key in one)
    assert [path.name for path in (tmp_path / "cache").glob("manifest*")] == ["manifest.json"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_processes_continues_a_killed_build(
    pictures: Path, tmp_path: Path, count: int
) -> None:
    class Dying(CountingTeacher):
        def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.pictures >= 12:
                raise KeyboardInterrupt
            return super().encode_images(pixels)

    settings = dataclasses.replace(SETTINGS, shard_rows=2)
    source = Pictures(pictures, KEYS, CAPTIONS)
    killed = build_together(tmp_path, source, [CountingTeacher(), Dying()], settings)
    assert isinstance(killed[1], KeyboardInterrupt)
    names = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("images-*.npy")}
    # The first process wrote all of its five pictures, the second four of its five.
    assert rows_listed(tmp_path / "cache", "images") == 9
    teachers = [CountingTeacher() for _ in range(count)]
    results = build_together(tmp_path, source, teachers, settings)
    assert not any(isinstance(result, BaseException) for result in results)
    assert sum(teacher.pictures for teacher in teachers) == 1 * SETTINGS.view_count
    assert len(by_key(tmp_path / "cache", "images")) == 10
    for name, content in names.items():
        assert (tmp_path / "cache" / name).read_bytes() == content


def test_all_processes_report_pictures_that_any_of_them_cannot_read(
    pictures: Path, tmp_path: Path
) -> None:
    for number in (4, 7):
        (pictures / f"{number}.png").write_bytes(b"no picture")
    source = Pictures(pictures, KEYS, CAPTIONS)
    settings = dataclasses.replace(SETTINGS, max_skipped=0.2)
    results = build_together(tmp_path, source, [CountingTeacher(), CountingTeacher()], settings)
    for result in results:
        assert not isinstance(result, BaseException)
        assert sorted(skip.where for skip in result[1]) == ["4.png", "7.png"]
    # Each process has as many as the limit allows; together they have more.
    other = tmp_path / "other"
    limit = dataclasses.replace(SETTINGS, max_skipped=0.1)
    results = build_together(other, source, [CountingTeacher(), CountingTeacher()], limit)
    assert [type(result) for result in results] == [DataError, DataError]


def test_a_repaired_picture_is_embedded_by_any_process_and_no_longer_reported(
    pictures: Path, tmp_path: Path
) -> None:
    intact = (pictures / "5.png").read_bytes()
    (pictures / "5.png").write_bytes(b"no picture")
    source = Pictures(pictures, KEYS, CAPTIONS)
    settings = dataclasses.replace(SETTINGS, max_skipped=0.2)
    build_together(tmp_path, source, [CountingTeacher()], settings)
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes() + b"\0")
    (pictures / "5.png").write_bytes(intact)
    results = build_together(tmp_path, source, [CountingTeacher(), CountingTeacher()], settings)
    for result in results:
        assert not isinstance(result, BaseException)
        assert result[1] == []
        assert not result[0].missing(source)


def test_a_second_run_waits_for_the_one_that_builds(pictures: Path, tmp_path: Path) -> None:
    class Slow(CountingTeacher):
        def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return super().encode_images(pixels)

    source = Pictures(pictures, KEYS, CAPTIONS)
    teachers = [Slow(), Slow()]
    threads = [
        threading.Thread(
            target=build_cache,
            args=(tmp_path / "cache", source, teacher),
            kwargs={"settings": SETTINGS, "progress": silent},
        )
        for teacher in teachers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(teacher.pictures for teacher in teachers) == [0, 30]
    assert len(by_key(tmp_path / "cache", "images")) == 10


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with captioned pictures and a small teacher of random weights."""
    return make_world(tmp_path_factory.mktemp("world"))


def cache_of(output: Path) -> Path:
    return next(output.glob("cache/*/*"))


def assert_same_embeddings(ours: Path, theirs: Path) -> None:
    for part in ("images", "captions"):
        one, many = by_key(ours, part), by_key(theirs, part)
        assert one.keys() == many.keys()
        for key, row in one.items():
            # Other batches pad texts differently, which changes at most one bit of float16.
            assert np.allclose(row, many[key], atol=2e-3)


@pytest.mark.slow
def test_torchrun_builds_the_cache_with_two_processes(world: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            *TORCHRUN,
            "-m",
            "distill",
            "cache",
            write_recipe(world, tmp_path / "two"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    build_by_recipe(load_recipe(write_recipe(world, tmp_path / "one")))
    two = cache_of(tmp_path / "two")
    assert_same_embeddings(cache_of(tmp_path / "one"), two)
    # Each of two processes uses every second number.
    numbers = sorted(int(path.stem[-5:]) for path in two.glob("images-?????.npy"))
    assert numbers == list(range(len(numbers)))
    state = json.loads((tmp_path / "two" / "state.json").read_text())
    assert state["stages"]["cache"]["finished"]


@pytest.mark.slow
def test_a_killed_process_loses_only_its_unfinished_shard(world: Path, tmp_path: Path) -> None:
    recipe = write_recipe(world, tmp_path / "killed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "distill", "cache", str(recipe)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    deadline = time.monotonic() + 200
    ready = f"{tmp_path}/killed/cache/*/*"
    while time.monotonic() < deadline and processes[1].poll() is None:
        parts = [p for p in Path("/").glob(f"{ready[1:]}/manifest*.json") if p.exists()]
        if len(parts) == 2 and all('"images-' in path.read_text() for path in parts):
            break
        time.sleep(0.002)
    for process in reversed(processes):
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
    folder = cache_of(tmp_path / "killed")
    kept = rows_listed(folder, "images")
    listed = {
        shard["file"]: (folder / shard["file"]).read_bytes()
        for path in folder.glob("manifest*.json")
        for shard in json.loads(path.read_text())["images"]
    }
    build_by_recipe(load_recipe(recipe))
    total = len(by_key(folder, "images"))
    assert 0 < kept < total
    assert all((folder / name).read_bytes() == content for name, content in listed.items())
    build_by_recipe(load_recipe(write_recipe(world, tmp_path / "one")))
    assert_same_embeddings(cache_of(tmp_path / "one"), folder)


def test_digests_follow_the_documented_hash() -> None:
    digest = hashlib.blake2b("str:row\0str:a cäption".encode(), digest_size=16).digest()
    expected = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    assert row_digests(["a cäption"]).tolist() == [expected]
