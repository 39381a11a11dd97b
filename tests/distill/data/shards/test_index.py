"""The index of a tar: built once, next to the tar or elsewhere, and again if the tar changes."""

import os
import pickle
from pathlib import Path

import pytest

from distill.data.sample import open_image
from distill.data.shards._index import TarIndex
from distill.data.shards.source import open_shards
from export.runtime.errors import DataError
from tests.distill.data.shards.tars import colour, samples, write_tar, write_tars

pytestmark = pytest.mark.usefixtures("cache_folder")


def test_an_index_is_built_once_next_to_its_tar(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", samples(range(3)))
    first = open_shards(str(tar))
    index = tmp_path / "0.tar.index"
    held = index.read_bytes(), index.stat().st_mtime_ns
    again = open_shards(str(tar))
    assert [one.captions for one in again] == [one.captions for one in first]
    assert (index.read_bytes(), index.stat().st_mtime_ns) == held
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar", "0.tar.index"]


def test_an_index_of_a_tar_that_changed_is_built_again(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", samples([1, 2]))
    old = open_shards(str(tar))
    assert old[0].captions == ("colour 1",)
    write_tar(tar, samples([3, 4]))
    new = open_shards(str(tar))
    assert [one.captions for one in new] == [("colour 3",), ("colour 4",)]
    # What was opened before does not read the bytes of another tar.
    with pytest.raises(DataError, match="it has changed since it was indexed"):
        open_image(old[0])
    # Nor does a tar count that is older than its index but another one.
    write_tar(tar, samples([5, 6]))
    os.utime(tar, ns=(0, 0))
    assert [one.captions for one in open_shards(str(tar))] == [("colour 5",), ("colour 6",)]


def test_a_changed_bit_of_an_index_is_noticed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", samples([1, 2]))
    open_shards(str(tar))
    index = tmp_path / "0.tar.index"
    content = index.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        index.write_bytes(damaged)
        assert [one.captions for one in open_shards(str(tar))] == [("colour 1",), ("colour 2",)]
        assert index.read_bytes() == content


@pytest.mark.parametrize("damage", ["cut", "magic", "header", "format", "empty"])
def test_a_damaged_index_is_built_again(tmp_path: Path, damage: str) -> None:
    tar = write_tar(tmp_path / "0.tar", samples([1, 2]))
    open_shards(str(tar))
    index = tmp_path / "0.tar.index"
    content = index.read_bytes()
    damaged = {
        "cut": content[:-9],
        "magic": b"x" + content[1:],
        "header": content.replace(b'"arrays"', b'"arrows"'),
        "format": content.replace(b'"format": 2', b'"format": 1'),
        "empty": b"",
    }[damage]
    index.write_bytes(damaged)
    assert [one.captions for one in open_shards(str(tar))] == [("colour 1",), ("colour 2",)]
    assert index.read_bytes() == content


def test_an_index_goes_elsewhere_if_its_tars_folder_is_read_only(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tars(tmp_path / "s", [2])
    write = TarIndex.write

    def refuse_here(index: TarIndex, path: Path) -> None:
        if path.parent == folder:
            raise PermissionError
        write(index, path)

    monkeypatch.setattr(TarIndex, "write", refuse_here)
    assert len(open_shards(str(folder))) == 2
    (index,) = cache_folder.iterdir()
    changed = index.stat().st_mtime_ns
    assert len(open_shards(str(folder))) == 2
    assert index.stat().st_mtime_ns == changed
    mine = tmp_path / "mine"
    assert len(open_shards(str(folder), index_folder=mine)) == 2
    assert len(list(mine.iterdir())) == 1
    assert [path.name for path in folder.iterdir()] == ["000.tar"]


def test_an_index_that_cannot_be_written_anywhere_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tars(tmp_path / "s", [2])

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(TarIndex, "write", refuse)
    source = open_shards(str(folder))
    assert [colour(one)[0] for one in pickle.loads(pickle.dumps(source))] == [0, 1]
    assert [path.name for path in folder.iterdir()] == ["000.tar"]
