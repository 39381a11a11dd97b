"""WebDataset tars as a source."""

import io
import json
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import fsspec
import pytest
import torch

from distill.data.sample import Sample, Source, check_source, open_image, split_by_hash
from distill.data.shards import ShardsSource, open_shards, shard_lengths
from distill.data.tar_index import TarIndex
from distill.data.tar_pictures import MOST_OPEN
from export.runtime.errors import DataError, MissingExtraError
from tests.distill.data.tars import picture, sample, samples, write_files, write_tar, write_tars


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/clip-distill/shards"


def failure(path: Path | str, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        open_shards(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def colour(found: Sample) -> tuple[int, ...]:
    pixel = open_image(found).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def reasons(source: Source) -> list[str]:
    return [skip.reason for skip in source.skipped]


def test_samples_stand_in_the_order_of_the_tars(tmp_path: Path) -> None:
    source = open_shards(str(write_tars(tmp_path / "s", [3, 2])))
    assert len(source) == source.rows == 5
    assert source.skipped == ()
    assert [one.key for one in source] == [
        "000/0000",
        "000/0001",
        "000/0002",
        "001/0003",
        "001/0004",
    ]
    for number, one in enumerate(source):
        assert colour(one) == (number, 255 - number, 7)
        assert one.captions == (f"colour {number}",)
        assert one.label is None
        assert not isinstance(one.image, Path | bytes)
        assert one.image.size == len(one.image.read()) == len(picture(number))
    assert source[-1].key == "001/0004"
    with pytest.raises(IndexError):
        source[5]


def test_members_belong_together_by_name_in_any_order_and_form(tmp_path: Path) -> None:
    members = samples([1, 2])
    long_name = "folder/" + "x" * 200
    members = [*members[::2], *members[1::2], ("./3.webp", picture(3, "WEBP")), ("3.txt", "c 3")]
    members += [(f"{long_name}.txt", "c 4"), (f"{long_name}.PNG", picture(4))]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        source = open_shards(str(write_tar(tmp_path / f"{form}.tar", members, form=form)))
        assert [(one.key.partition("/")[2], one.captions[0]) for one in source] == [
            ("0001", "colour 1"),
            ("0002", "colour 2"),
            ("3", "c 3"),
            (long_name, "c 4"),
        ]
        assert [colour(one)[0] for one in source] == [1, 2, 3, 4]
        assert source.skipped == ()


def test_captions_of_txt_and_json(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        [
            *sample(0, txt=" one \n"),
            *sample(1, json='{"caption": "one", "url": "x"}'),
            *sample(2, json='{"caption": ["one", "two", "one", " "]}'),
            *sample(3, txt="of txt", json='{"caption": "of json"}'),
            *sample(4, txt="of txt", json='{"captions": ["a", "b"]}'),
            *sample(5, json='{"title": "None"}', txt="x"),
            *sample(6, txt=""),
            ("0007.png", picture(7)),
            *sample(8, txt="NA"),
        ],
    )
    captions = [one.captions for one in open_shards(str(tar))]
    assert captions == [
        ("one",),
        ("one",),
        ("one", "two"),
        ("of txt",),
        ("a", "b"),
        ("x",),
        (),
        (),
        ("NA",),
    ]
    titled = open_shards(str(tar), caption_key="title")
    assert [one.captions for one in titled] == [()] * 5 + [("None",)] + [()] * 3
    # Each way of reading has an index of its own.
    assert [one.captions for one in open_shards(str(tar))] == captions


def test_labels_by_name_and_by_number(tmp_path: Path) -> None:
    members = [
        *sample(0, cls="1"),
        *sample(1, cls="cat\n", txt="x"),
        *sample(2, json='{"label": 0}'),
        *sample(3, json='{"label": "7"}'),
        *sample(4, cls="2"),
    ]
    tar = write_tar(tmp_path / "set/test/0.tar", members)
    assert [one.label for one in open_shards(str(tar))] == ["1", "cat", "0", "7", "2"]
    # The layout of CLIP-benchmark: the files stand one folder above a split's tars.
    write_files(
        tmp_path / "set",
        {
            "classnames.txt": "red fox\ngreen_apple\n",
            "zeroshot_classification_templates.txt": "a photo of a {c}.\nart of a {c}.\n",
        },
    )
    source = open_shards(str(tar.parent))
    assert [one.label for one in source] == ["green_apple", "cat", "red fox", "7"]
    assert source.class_names == ("red fox", "green_apple")
    assert source.templates == ("a photo of a {c}.", "art of a {c}.")
    assert reasons(source) == ["its class is 2, and classnames.txt has 2"]
    write_files(tmp_path, {"mine.txt": "a\nb\nc\n"})
    mine = open_shards(str(tar), classnames=tmp_path / "mine.txt")
    assert [one.label for one in mine] == ["b", "cat", "a", "7", "c"]
    # The number of a line is that of a class: an empty one is no line to leave out.
    write_files(tmp_path, {"mine.txt": "a\n\nc\n"})
    assert "line 2 of it is empty" in failure(tar, classnames=str(tmp_path / "mine.txt"))
    assert "no such file" in failure(tar, classnames=str(tmp_path / "none.txt"))


def test_paths(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "s", [1] * 12)
    write_tars(tmp_path / "t", [1])
    (folder / "notes.txt").touch()

    def keys(pattern: str) -> list[str]:
        return [one.key.partition("/")[0] for one in open_shards(pattern)]

    every = [f"{number:03d}" for number in range(12)]
    assert keys(str(folder)) == keys(f"{folder}/*.tar") == every
    assert keys(f"file://{folder}/{{000..011}}.tar") == every
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
    assert "is no range" in failure(f"{folder}/{{a..c}}.tar")
    assert "has no random access" in failure("pipe:cat x.tar")
    assert "cannot be read" in failure("nonsense://x/000.tar")
    (tmp_path / "empty").mkdir()
    assert "no folder of tars" in failure(tmp_path / "empty")


def test_tars_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    assert "the tar is empty" in failure(tmp_path / "empty.tar")
    with tarfile.open(tmp_path / "gz.tar", "w:gz"):
        pass
    assert "it is compressed" in failure(tmp_path / "gz.tar")
    (tmp_path / "rubbish.tar").write_bytes(b"rubbish" * 1000)
    assert "no sample of this tar can be used; bytes 0 to 7,000" in failure(
        tmp_path / "rubbish.tar"
    )
    write_tar(tmp_path / "notes.tar", [("README.md", "hello")])
    assert "no picture of this name" in failure(tmp_path / "notes.tar")


def test_a_truncated_tar_keeps_its_whole_samples(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "w/0.tar", samples(range(5)))
    content = whole.read_bytes()
    with tarfile.open(whole) as tar:
        members = tar.getmembers()
    ends = [member.offset_data + member.size for member in members]
    for cut in range(ends[0], ends[-1] + 1, 100):
        broken = tmp_path / f"{cut}/0.tar"
        broken.parent.mkdir()
        broken.write_bytes(content[:cut])
        expected = sum(end <= cut for end in ends[1::2])
        if expected == 0:
            assert "no sample of this tar" in failure(broken)
            continue
        source = open_shards(str(broken))
        assert len(source) == expected
        assert [one.captions for one in source] == [(f"colour {n}",) for n in range(expected)]
        assert source.skipped


def test_a_damaged_header_costs_its_own_sample_alone(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", samples(range(5)))
    with tarfile.open(path) as tar:
        lost = tar.getmembers()[4]
    content = bytearray(path.read_bytes())
    content[lost.offset + 3] ^= 1
    path.write_bytes(content)
    source = open_shards(str(path))
    assert [one.captions[0] for one in source] == [f"colour {n}" for n in (0, 1, 3, 4)]
    assert [colour(one)[0] for one in source] == [0, 1, 3, 4]
    assert source.skipped[0].reason == "no header, or a damaged one"
    assert "no picture of this name" in source.skipped[1].reason
    with pytest.raises(DataError, match="2 of 6 pictures had to be skipped"):
        check_source(source, max_skipped=0.01)


def test_appended_tars_are_read_to_their_end(tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / f"{n}.tar", samples([n])).read_bytes() for n in range(3)]
    (tmp_path / "all.tar").write_bytes(b"".join(parts))
    source = open_shards(str(tmp_path / "all.tar"))
    assert [colour(one)[0] for one in source] == [0, 1, 2]
    assert source.skipped == ()


def test_members_that_are_no_part_of_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes = b"", **values: object) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in values.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        for name, content in sample(0):
            add(name, content if isinstance(content, bytes) else content.encode())
        add("/etc/1.png", picture(1))
        add("../2.png", picture(2))
        add("a/../../3.txt", b"x")
        add("4.png", type=tarfile.SYMTYPE, linkname="0000.png")
        add("5.png", type=tarfile.LNKTYPE, linkname="0000.png")
        add("6.png", type=tarfile.FIFOTYPE)
        add("folder", type=tarfile.DIRTYPE)
        add("._0000.png", b"left by a file manager")
        add("README.md", b"hello")
        add("7.txt", b"no picture")
        add("8.png")
        add("0000.npy", b"a field of the sample")
    source = open_shards(str(path))
    assert [one.key for one in source] == ["0/0000"]
    assert [(skip.where.rpartition(": ")[2], skip.kind) for skip in source.skipped] == [
        ("/etc/1.png", "picture"),
        ("../2.png", "picture"),
        ("a/../../3.txt", "row"),
        ("4.png", "picture"),
        ("5.png", "picture"),
        ("6.png", "picture"),
        ("README", "row"),
        ("7", "picture"),
        ("8.png", "picture"),
    ]
    assert reasons(source)[0] == reasons(source)[2] == "its name leads out of the tar"
    assert "a link" in reasons(source)[3]


def test_doubled_members_never_change_a_pair(tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    tar = write_tar(
        tmp_path / "0.tar",
        [
            *[("a.png", first), ("a.txt", "first"), ("a.txt", "second")],
            *[("b.png", first), ("b.txt", "first"), ("b.png", second), ("b.txt", "second")],
            # The second of two has a caption, the first has none.
            *[("c.png", first), ("x.png", first), ("c.txt", "second"), ("c.png", second)],
            *[("d.webp", first), ("d.png", second), ("d.txt", "second")],
        ],
    )
    source = open_shards(str(tar))
    assert [one.key for one in source] == ["0/x"]
    assert [skip.where.rpartition(" ")[2] for skip in source.skipped] == ["a", "b", "c", "d"]
    assert reasons(source)[0] == "two txt of this name; which belong together is not known"
    assert {reason.split(" of ")[0] for reason in reasons(source)[1:]} <= {
        "two txt",
        "two pictures",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({"json": "{"}, "it is no JSON"),
        ({"json": "[" * 100_000}, "it is no JSON"),
        ({"json": "[1]"}, "its JSON is a list"),
        ({"json": '{"caption": 3}'}, "captions that are no text"),
        ({"json": '{"caption": "\\ud800"}'}, "captions that are no text"),
        ({"json": '{"label": 1.5}'}, "its class is '1.5'"),
        ({"cls": "-1"}, "its class is '-1'"),
        ({"txt": "x" * (2**20 + 1)}, "bytes of text"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path: Path, text: dict[str, str], reason: str) -> None:
    tar = write_tar(tmp_path / "0.tar", [*sample(0), *sample(1, **text)])
    source = open_shards(str(tar))
    assert [one.captions for one in source] == [("colour 0",), ()]
    (skip,) = source.skipped
    assert reason in skip.reason
    assert skip.kind == "row"


def test_texts_that_are_no_unicode(tmp_path: Path) -> None:
    members = [("ü\udcff.png", picture(0)), ("ü\udcff.txt", b"caf\xe9")]
    source = open_shards(str(write_tar(tmp_path / "0.tar", members, form=tarfile.GNU_FORMAT)))
    assert source[0].key == "0/ü\\udcff"
    assert "it is not UTF-8 (byte 4)" in reasons(source)[0]
    json.dumps([source[0].key, source.skipped[0].where], ensure_ascii=False).encode()


# --- the index


def test_an_index_is_built_once_and_stands_beside_its_tar(tmp_path: Path) -> None:
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
        "format": content.replace(b'"format": 1', b'"format": 2'),
        "empty": b"",
    }[damage]
    index.write_bytes(damaged)
    assert [one.captions for one in open_shards(str(tar))] == [("colour 1",), ("colour 2",)]
    assert index.read_bytes() == content


def test_an_index_goes_elsewhere_where_it_cannot_stand_beside_its_tar(
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


def test_an_index_that_can_be_written_nowhere_is_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tars(tmp_path / "s", [2])

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(TarIndex, "write", refuse)
    source = open_shards(str(folder))
    assert [colour(one)[0] for one in pickle.loads(pickle.dumps(source))] == [0, 1]
    assert [path.name for path in folder.iterdir()] == ["000.tar"]


# --- addresses


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


# --- processes


def test_workers_read_for_themselves(tmp_path: Path) -> None:
    source = open_shards(str(write_tars(tmp_path / "s", [20, 20, 20])))
    assert colour(source[0])[0] == 0
    loader = torch.utils.data.DataLoader(
        Colours(source), batch_size=None, sampler=list(range(60)) * 3, num_workers=2
    )
    assert list(loader) == list(range(60)) * 3


class Colours(torch.utils.data.Dataset[int]):
    def __init__(self, source: ShardsSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> int:
        return colour(self.source[number])[0]


def test_a_source_goes_to_another_process_whole(tmp_path: Path) -> None:
    source = open_shards(str(write_tars(tmp_path / "s", [2, 2])))
    assert colour(source[3])[0] == 3
    data = pickle.dumps(source)
    # Memory maps are not copied: the other process maps the indices itself.
    assert len(data) < 4000
    (tmp_path / "source.pickle").write_bytes(data)
    copy = pickle.loads(data)
    assert [(one.key, one.captions) for one in copy] == [(one.key, one.captions) for one in source]
    assert colour(copy[3])[0] == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_few_tars_are_open_at_once(tmp_path: Path) -> None:
    source = open_shards(str(write_tars(tmp_path / "s", [1] * (MOST_OPEN + 10))))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        for one in source:
            open_image(one)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + MOST_OPEN


def test_lengths_of_shards_and_of_subsets(tmp_path: Path) -> None:
    source = open_shards(str(write_tars(tmp_path / "s", [5, 40, 3])))
    kept, held_out = split_by_hash(source, share=0.2, at_most=100)
    of_kept, of_held_out = shard_lengths(kept), shard_lengths(held_out)
    assert of_kept is not None
    assert of_held_out is not None
    assert (of_kept + of_held_out).tolist() == [5, 40, 3]
    names = [kept[number].key.partition("/")[0] for number in range(len(kept))]
    assert [names.count(name) for name in ("000", "001", "002")] == of_kept.tolist()


def test_a_foreign_reader_finds_what_we_do(tmp_path: Path) -> None:
    """tar itself agrees on names and contents."""
    tar = write_tar(tmp_path / "0.tar", samples(range(4)))
    source = open_shards(str(tar))
    for number, one in enumerate(source):
        done = subprocess.run(
            ["tar", "-xOf", tar, f"{number:04d}.png"], capture_output=True, check=True
        )
        assert not isinstance(one.image, Path | bytes)
        assert done.stdout == one.image.read()
