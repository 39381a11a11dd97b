"""Any source written as shards, with the same bytes each time."""

import io
import json
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.data.sample import Sample, Skip, Source, open_image
from distill.data.shards._indexing import find_indices
from distill.data.shards.source import open_shards
from distill.data.tables.table import open_table
from export.runtime.errors import DataError, RecipeError, RunError
from tests.distill.data.shards.pictures import contents, saved, table
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.data.shards.write import ShardSettings, write_shards
    from distill.run.shards_stage import write_data


def four_per_shard(**changes: Any) -> ShardSettings:
    return ShardSettings(
        **{"size": None, "per_shard": 4, "workers": 0, "max_skipped": 0.1, **changes}
    )


class Samples:
    """A source of the given samples."""

    name = "samples"
    skipped: tuple[Skip, ...] = ()

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self.rows = len(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def source_of(count: int) -> Samples:
    return Samples([Sample(str(n), saved(n), (f"c {n}",), None) for n in range(count)])


def test_written_shards_hold_the_same_data(tmp_path: Path) -> None:
    texts: list[tuple[tuple[str, ...], str | None]] = [
        (("one",), None),
        (("one", "two"), "cat"),
        ((" space around ",), "7"),
        ((), "red fox"),
        ((), None),
        (("None",), None),
        (("two\nlines", "\ufeffmark"), None),
        (("\ufeffmark",), None),
        (("日本語 🦊",), "日本"),
    ]
    samples = [
        Sample(f"k/{number}", saved(number), captions, label)
        for number, (captions, label) in enumerate(texts)
    ]
    written = write_shards(Samples(samples), tmp_path / "out", four_per_shard())
    assert (written.shards, written.samples, written.skipped) == (3, 9, [])
    source = open_shards(str(tmp_path / "out"))
    assert [(one.captions, one.label) for one in source] == texts
    assert source.shard_lengths.tolist() == [4, 4, 1]
    assert source[5].key == "000001/000000005"
    for number, one in enumerate(source):
        assert not isinstance(one.image, Path | bytes)
        # Pictures that other readers of WebDataset know are copied, not written again.
        assert one.image.read() == saved(number)


def test_members_are_what_other_readers_expect(tmp_path: Path) -> None:
    samples = [
        Sample("a", saved(1, "JPEG"), ("one",), None),
        Sample("b", saved(2, "WEBP"), ("one", "two"), "cat"),
        Sample("c", saved(3, "BMP"), ("three",), "dog"),
    ]
    write_shards(Samples(samples), tmp_path / "out", four_per_shard())
    with tarfile.open(tmp_path / "out/000000.tar") as tar:
        members = {member.name: tar.extractfile(member) for member in tar}
        read = {name: file.read() for name, file in members.items() if file is not None}
    assert list(read) == [
        "000000000.jpg",
        "000000000.txt",
        "000000001.webp",
        "000000001.json",
        "000000002.png",
        "000000002.txt",
        "000000002.json",
    ]
    assert read["000000000.txt"] == b"one"
    assert json.loads(read["000000001.json"]) == {"captions": ["one", "two"], "label": "cat"}
    assert json.loads(read["000000002.json"]) == {"label": "dog"}
    assert Image.open(io.BytesIO(read["000000002.png"])).getpixel((0, 0)) == (3, 100, 200)


def test_writing_again_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(10)
    settings = ShardSettings(size=20, per_shard=4, workers=0, max_skipped=0.1)
    write_shards(source, tmp_path / "a", settings)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    parallel = ShardSettings(size=20, per_shard=4, workers=2, max_skipped=0.1)
    write_shards(source, tmp_path / "b", parallel)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert {name for name in contents(tmp_path / "a") if name.endswith(".tar")} == {
        f"00000{number}.tar" for number in range(3)
    }


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    turned = Image.new("RGB", (200, 100), (9, 9, 9))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was turned: shown upright it is 100 wide and 200 high
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    samples = [
        Sample("small", saved(1, size=(32, 90)), (), None),
        Sample("large", saved(2, size=(301, 100)), (), None),
        Sample("turned", buffer.getvalue(), (), None),
    ]
    settings = ShardSettings(size=32, per_shard=10, workers=0, max_skipped=0.1)
    write_shards(Samples(samples), tmp_path / "out", settings)
    source = open_shards(str(tmp_path / "out"))
    assert [open_image(one).size for one in source] == [(32, 90), (96, 32), (32, 64)]
    image = source[0].image
    assert not isinstance(image, Path | bytes)
    assert image.read() == saved(1, size=(32, 90))


def test_writing_goes_on_at_the_last_whole_shard(tmp_path: Path) -> None:
    write_shards(source_of(10), tmp_path / "whole", four_per_shard())
    out = tmp_path / "out"

    class Interrupted(Samples):
        """Counts reads, and is interrupted by the user in the third shard."""

        read = 0
        left = 9

        def __getitem__(self, index: int) -> Sample:
            found = super().__getitem__(index)
            return Sample(found.key, Interrupting(self, found.image), found.captions, None)

    class Interrupting:
        def __init__(self, owner: Interrupted, content: object) -> None:
            self._owner, self._content = owner, content
            self.name, self.size = "picture", len(saved(0))

        def read(self) -> bytes:
            self._owner.read += 1
            if self._owner.read == self._owner.left:
                raise KeyboardInterrupt
            assert isinstance(self._content, bytes)
            return self._content

    source = Interrupted([source_of(10)[number] for number in range(10)])
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped; 2 of 3 shards are complete in .*out; the same"
    ):
        write_shards(source, out, four_per_shard())
    assert sorted(contents(out)) == sorted(
        {name for name in contents(tmp_path / "whole") if not name.startswith("000002")}
    )
    source.read, source.left = 0, 100
    written = write_shards(source, out, four_per_shard())
    assert source.read == 2
    assert (written.shards, written.samples) == (3, 10)
    tars = {name: data for name, data in contents(out).items() if name.endswith(".tar")}
    assert tars == {n: d for n, d in contents(tmp_path / "whole").items() if n in tars}
    # Complete shards are not written again; a missing one is.
    (out / "000001.tar").unlink()
    source.read = 0
    write_shards(source, out, four_per_shard())
    assert source.read == 4
    assert (out / "000001.tar").read_bytes() == tars["000001.tar"]


def test_pictures_that_cannot_be_read_are_left_out_and_listed(tmp_path: Path) -> None:
    samples = [source_of(30)[number] for number in range(30)]
    samples[7] = Sample("gone", tmp_path / "gone.png", (), None)
    samples[20] = Sample("broken", b"no picture", (), None)
    written = write_shards(Samples(samples), tmp_path / "out", four_per_shard())
    assert [skip.where for skip in written.skipped] == ["gone", "broken"]
    assert written.samples == 28
    keys = [one.key for one in open_shards(str(tmp_path / "out"))]
    assert "000001/000000007" not in keys
    assert keys[7] == "000002/000000008"
    manifest = json.loads((tmp_path / "out/shards.json").read_text())
    assert manifest["shards"]["000001.tar"]["skipped"][0][0] == "gone"
    few = ShardSettings(size=None, per_shard=4, workers=0, max_skipped=0.01)
    with pytest.raises(DataError, match="1 of 30 pictures had to be skipped"):
        write_shards(Samples(samples), tmp_path / "few", few)


def test_what_only_looks_like_a_picture_is_left_out(tmp_path: Path) -> None:
    samples = [source_of(2)[0], Sample("cut", saved(1, "JPEG")[:300], ("c",), None)]
    many = ShardSettings(size=None, per_shard=4, workers=0, max_skipped=0.5)
    written = write_shards(Samples(samples), tmp_path / "out", many)
    assert [skip.where for skip in written.skipped] == ["cut"]


def test_samples_of_one_group_stay_one(tmp_path: Path) -> None:
    groups = ["a", None, "a", "é"]
    captions = [("c",), (), ("c", "d"), ()]
    samples = [
        Sample(str(number), saved(number), text, None, group)
        for number, (group, text) in enumerate(zip(groups, captions, strict=True))
    ]
    write_shards(Samples(samples), tmp_path / "out", four_per_shard())
    source = open_shards(str(tmp_path / "out"))
    assert [one.group for one in source] == groups
    assert [one.captions for one in source] == captions


def test_large_pictures_are_left_out_if_the_recipe_says_so(tmp_path: Path) -> None:
    data = table(tmp_path)
    (tmp_path / "3.png").write_bytes(saved(3, size=(90, 80)))
    limits = ["data.max_pixels=5000", "data.max_skipped=0.2", "data.workers=0"]
    write_data(str(data), tmp_path / "out", overrides=limits)
    manifest = json.loads((tmp_path / "out/shards.json").read_text())
    ((where, reason),) = manifest["shards"]["000000.tar"]["skipped"]
    assert "3.png" in where
    assert "5,000" in reason


def test_what_the_source_left_out_is_listed_too(tmp_path: Path) -> None:
    data = table(tmp_path)
    (tmp_path / "3.png").unlink()
    write_data(str(data), tmp_path / "out", overrides=["data.max_skipped=0.2", "data.workers=0"])
    manifest = json.loads((tmp_path / "out/shards.json").read_text())
    ((where, reason),) = manifest["left_out"]
    assert where.startswith(str(data))
    assert "3.png" in reason


def test_a_recipe_may_have_only_data(tmp_path: Path) -> None:
    data = table(tmp_path)
    recipe = tmp_path / "data.yaml"
    recipe.write_text(f"data:\n  train: {{kind: table, path: {data}}}\n  workers: 0\n")
    write_data(str(recipe), tmp_path / "out")
    assert len(open_shards(str(tmp_path / "out"))) == len(open_table(data))
    recipe.write_text(f"data:\n  train: {{kind: tabel, path: {data}}}\n")
    with pytest.raises(RecipeError, match=r"data\.train\.kind"):
        write_data(str(recipe), tmp_path / "other")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/000000.tar").write_text("mine")
    with pytest.raises(RunError, match=r"photos: the folder is not empty \(000000\.tar\)"):
        write_shards(source_of(3), tmp_path / "photos", four_per_shard())
    assert (tmp_path / "photos/000000.tar").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="it is not a folder"):
        write_shards(source_of(3), tmp_path / "file", four_per_shard())


@pytest.mark.parametrize(
    ("source", "changes", "found"),
    [
        (source_of(11), {}, "written with another samples"),
        (Samples([*(source_of(9)), Sample("9", b"x", (), None)]), {}, "another data"),
        (source_of(10), {"size": 32}, r"another --size \(None, now 32\)"),
        (source_of(10), {"per_shard": 5}, r"another --per-shard \(4, now 5\)"),
    ],
)
def test_shards_of_other_data_or_settings_are_refused(
    tmp_path: Path, source: Source, changes: dict[str, Any], found: str
) -> None:
    write_shards(source_of(10), tmp_path / "out", four_per_shard())
    before = contents(tmp_path / "out")
    with pytest.raises(RunError, match=found):
        write_shards(source, tmp_path / "out", four_per_shard(**changes))
    assert contents(tmp_path / "out") == before
    (tmp_path / "out/shards.json").write_text("{")
    with pytest.raises(RunError, match="it is damaged"):
        write_shards(source_of(10), tmp_path / "out", four_per_shard())


def test_the_index_is_written_next_to_the_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(source_of(10), tmp_path / "out", four_per_shard())

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the index is there")

    time.sleep(0.05)
    for path in (tmp_path / "out").glob("*.index"):
        path.touch()
    monkeypatch.setattr("distill.data.shards._indexing.build_index", never)
    assert len(open_shards(str(tmp_path / "out"))) == 10
    assert find_indices([], caption_key=None, folder=None) == []
