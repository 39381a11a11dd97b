"""What a path names: tars, folders and patterns of them, local and at addresses of fsspec."""

from pathlib import Path

import fsspec
import pytest

from distill.data.shards.source import open_shards
from export.runtime.errors import MissingExtraError
from tests.distill.data.shards.tars import colour, failure, samples, write_tar, write_tars

pytestmark = pytest.mark.usefixtures("cache_folder")


def test_paths(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "s", [1] * 12)
    write_tars(tmp_path / "t", [1])
    (folder / "notes.txt").touch()

    def keys(pattern: str) -> list[str]:
        return [one.key.partition("/")[0] for one in open_shards(pattern)]

    every = [f"{number:03d}" for number in range(12)]
    assert keys(str(folder)) == keys(f"{folder}/*.tar") == every
    assert keys(f"file://{folder}/{{000..011}}.tar") == every
    assert keys(f"local://{folder}/*.tar") == every
    assert keys(f"{folder}/{{009..011}}.tar") == every[9:]
    assert keys(f"{folder}/00{{7,2}}.tar") == ["007", "002"]
    assert keys(f"{folder}/0{{0..1}}{{0..1}}.tar") == ["000", "001", "010", "011"]
    # Names alone would not tell these apart.
    both = open_shards(f"{tmp_path}/{{s,t}}/000.tar")
    assert [one.key for one in both] == ["s/000/0000", "t/000/0000"]


def test_paths_that_name_nothing(tmp_path: Path) -> None:
    folder = write_tars(tmp_path, [1, 1])
    assert failure(f"{folder}/{{000..002}}.tar").startswith(f"{folder}/002.tar: there is no such")
    assert "there is no such tar" in failure(f"{folder}/x*.tar")
    assert "must not be greater" in failure(f"{folder}/{{3..1}}.tar")
    assert "is not a range" in failure(f"{folder}/{{a..c}}.tar")
    assert "shards need random access" in failure("pipe:cat x.tar")
    assert "cannot be read" in failure("nonsense://x/000.tar")
    (tmp_path / "empty").mkdir()
    assert "no such tar or folder of tars" in failure(tmp_path / "empty")


def test_tars_at_an_address_of_fsspec(tmp_path: Path, cache_folder: Path) -> None:
    store = fsspec.filesystem("memory")
    for tar in write_tars(tmp_path / "s", [2, 3]).iterdir():
        store.pipe(f"/bucket/{tar.name}", tar.read_bytes())
    store.pipe("/bucket/classnames.txt", b"cat\ndog\n")
    try:
        for pattern in ("{000..001}.tar", "*.tar", ""):
            source = open_shards(f"memory://bucket/{pattern}")
            assert [colour(one)[0] for one in source] == [0, 1, 2, 3, 4]
            assert source.class_names == ("cat", "dog")
        assert len(list(cache_folder.iterdir())) == 2
        store.pipe("/bucket/000.tar", write_tar(tmp_path / "n.tar", samples([9])).read_bytes())
        assert [colour(one)[0] for one in open_shards("memory://bucket/000.tar")] == [9]
        assert "no such tar" in failure("memory://bucket/{000..002}.tar")
    finally:
        store.rm("/bucket", recursive=True)


def test_an_address_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match="Install s3fs"):
        open_shards("s3://bucket/{000..001}.tar")
