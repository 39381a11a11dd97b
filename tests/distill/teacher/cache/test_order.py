"""A cache of tars: its shards end where the tars end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.shards.source import ShardsSource, open_shards
from distill.teacher.cache._order import shard_ends, share_pictures
from tests.distill.data.shards.tars import samples, write_tar, write_tars
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.teacher.cache.build import NOTHING_SHARED, BuildSettings, Sharing, build_cache
    from distill.teacher.cache.cache import CachedTeacher
    from distill.teacher.cache.rows import row_digests
    from tests.distill.teacher.cache.cache_pieces import SETTINGS, CountingTeacher, Pictures, silent


def six_rows() -> BuildSettings:
    return replace(SETTINGS, shard_rows=6, batch_size=3)


@pytest.fixture
def source(tmp_path: Path) -> ShardsSource:
    return open_shards(str(write_tars(tmp_path / "s", [3, 2, 4, 9, 1])))


def tars_of_cache(folder: Path, source: ShardsSource) -> list[list[str]]:
    """Return the tar of each row, for each shard of the cache."""
    keys = [one.key for one in source]
    names = {
        int(digest): key.partition("/")[0]
        for digest, key in zip(row_digests(keys)[:, 0], keys, strict=True)
    }
    shards = sorted(folder.glob("images-*.keys.npy"))
    return [[names[int(row[0])] for row in np.load(path)] for path in shards]


def test_a_shard_of_the_cache_holds_whole_tars(tmp_path: Path, source: ShardsSource) -> None:
    teacher = CountingTeacher()
    folder = tmp_path / "cache"
    cache, skips = build_cache(folder, source, teacher, settings=six_rows(), progress=silent)
    assert skips == []
    assert tars_of_cache(folder, source) == [
        ["000"] * 3 + ["001"] * 2,
        ["002"] * 4,
        # A tar larger than a shard is split, and shares no shard with another tar.
        ["003"] * 6,
        ["003"] * 3,
        ["004"],
    ]
    assert not cache.missing(source)
    found = CachedTeacher([cache]).images([0] * len(source), [one.key for one in source], [0] * 19)
    colours = np.array([[number, 255 - number, 7] for number in range(19)], np.float32)
    expected = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_a_killed_build_continues(tmp_path: Path, source: ShardsSource) -> None:
    folder = tmp_path / "cache"

    class Killed(CountingTeacher):
        def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.pictures >= 27:
                raise KeyboardInterrupt
            return super().encode_images(pixels)

    with pytest.raises(KeyboardInterrupt):
        build_cache(folder, source, Killed(), settings=six_rows(), progress=silent)
    begun = len(tars_of_cache(folder, source))
    assert begun == 2
    teacher = CountingTeacher()
    cache, _ = build_cache(folder, source, teacher, settings=six_rows(), progress=silent)
    assert teacher.pictures == 3 * 10
    assert not cache.missing(source)
    assert tars_of_cache(folder, source)[begun:] == [["003"] * 6, ["003"] * 3, ["004"]]


def test_unreadable_pictures_do_not_move_the_ends(tmp_path: Path) -> None:
    members = samples(range(5))
    members[2] = ("0001.png", b"no picture")
    write_tar(tmp_path / "s/000.tar", members)
    write_tar(tmp_path / "s/001.tar", samples(range(5, 8)))
    source = open_shards(str(tmp_path / "s"))
    settings = replace(six_rows(), max_skipped=0.5)
    folder = tmp_path / "cache"
    _, skips = build_cache(folder, source, CountingTeacher(), settings=settings, progress=silent)
    assert [skip.where for skip in skips] == ["000/0001"]
    assert tars_of_cache(folder, source) == [["000"] * 4, ["001"] * 3]


def test_processes_embed_whole_tars(source: ShardsSource, tmp_path: Path) -> None:
    numbers = list(range(len(source)))
    parts = [share_pictures(source, numbers, rank=rank, count=2) for rank in range(2)]
    assert sorted([*parts[0], *parts[1]]) == numbers
    tars = [{source[number].key.partition("/")[0] for number in part} for part in parts]
    assert tars == [{"000", "002", "004"}, {"001", "003"}]
    # They run one after the other here; each writes its own shards, as under a launcher.
    folder = tmp_path / "cache"
    for rank in range(2):
        build_cache(
            folder,
            source,
            CountingTeacher(),
            settings=six_rows(),
            progress=silent,
            sharing=Sharing(rank=rank, count=2),
        )
    cache, _ = build_cache(
        folder,
        source,
        CountingTeacher(),
        settings=six_rows(),
        progress=silent,
        sharing=NOTHING_SHARED,
    )
    assert not cache.missing(source)


def test_a_source_without_tars_is_shared_by_rows(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, [str(number) for number in range(7)], ["x"] * 7)
    assert list(share_pictures(pictures, [0, 2, 4, 5], rank=1, count=2)) == [2, 5]
    assert shard_ends(pictures, [0, 2, 4, 5], rows=2) == []
