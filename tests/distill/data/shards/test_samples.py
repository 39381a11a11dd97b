"""Tars that are damaged or have other members: every loss is reported, and no pair changes."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from distill.data.sample import check_source
from distill.data.shards.source import open_shards
from export.runtime.errors import DataError
from tests.distill.data.shards.tars import (
    colour,
    failure,
    picture,
    reasons,
    sample,
    samples,
    write_tar,
)

pytestmark = pytest.mark.usefixtures("cache_folder")


def test_tars_without_a_usable_sample(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    assert "the tar is empty" in failure(tmp_path / "empty.tar")
    with tarfile.open(tmp_path / "gz.tar", "w:gz"):
        pass
    assert "it is compressed" in failure(tmp_path / "gz.tar")
    (tmp_path / "rubbish.tar").write_bytes(b"rubbish" * 1000)
    assert "none of its samples can be used; bytes 0 to 7,000" in failure(tmp_path / "rubbish.tar")
    write_tar(tmp_path / "notes.tar", [("README.md", "hello")])
    assert "it has no picture" in failure(tmp_path / "notes.tar")


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
            assert "none of its samples can be used" in failure(broken)
            continue
        source = open_shards(str(broken))
        assert len(source) == expected
        assert [one.captions for one in source] == [(f"colour {n}",) for n in range(expected)]
        assert source.skipped


def test_a_damaged_header_loses_only_its_own_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", samples(range(5)))
    with tarfile.open(path) as tar:
        lost = tar.getmembers()[4]
    content = bytearray(path.read_bytes())
    content[lost.offset + 3] ^= 1
    path.write_bytes(content)
    source = open_shards(str(path))
    assert [one.captions[0] for one in source] == [f"colour {n}" for n in (0, 1, 3, 4)]
    assert [colour(one)[0] for one in source] == [0, 1, 3, 4]
    assert source.skipped[0].reason == "a header is missing or damaged"
    assert "it has no picture" in source.skipped[1].reason
    with pytest.raises(DataError, match="2 of 6 pictures had to be skipped"):
        check_source(source, max_skipped=0.01)


def test_appended_tars_are_read_to_their_end(tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / f"{n}.tar", samples([n])).read_bytes() for n in range(3)]
    (tmp_path / "all.tar").write_bytes(b"".join(parts))
    source = open_shards(str(tmp_path / "all.tar"))
    assert [colour(one)[0] for one in source] == [0, 1, 2]
    assert source.skipped == ()


def test_members_that_are_not_part_of_a_sample(tmp_path: Path) -> None:
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


def test_a_picture_that_lacks_the_text_that_others_have(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "0.tar", [*sample(0), ("0001.png", picture(1)), *sample(2, json="{}")]
    )
    source = open_shards(str(tar))
    assert [one.key for one in source] == ["0/0000", "0/0002"]
    assert [skip.where.rpartition(" ")[2] for skip in source.skipped] == ["0001"]
    assert reasons(source) == ["it has no text, but other pictures of the tar have one"]
    # Where no picture has one, none is missing.
    alone = write_tar(tmp_path / "1.tar", [("0.png", picture(0)), ("1.png", picture(1))])
    assert [one.captions for one in open_shards(str(alone))] == [(), ()]


def test_texts_that_were_cut_off(tmp_path: Path) -> None:
    members = [(f"{number:04d}.png", picture(number)) for number in range(40)]
    members += [(f"{number:04d}.txt", b"colour %d" % number) for number in range(40)]
    tar = write_tar(tmp_path / "0.tar", members)
    # A member takes a block for its header, and one or more for its content.
    whole = tar.read_bytes()
    tar.write_bytes(whole[: whole.index(b"0010.txt") + 700])
    source = open_shards(str(tar))
    assert [one.captions for one in source] == [(f"colour {number}",) for number in range(11)]
    assert len(source.skipped) == source.rows - 11 == 30
    assert reasons(source)[-1] == "its caption may be lost in the damaged part of the tar"


def test_a_missing_caption_key_is_reported(tmp_path: Path) -> None:
    texts = ('{"title": "one"}', '{"caption": "two"}')
    tar = write_tar(
        tmp_path / "0.tar", [part for n, text in enumerate(texts) for part in sample(n, json=text)]
    )
    source = open_shards(str(tar), caption_key="title")
    assert [one.captions for one in source] == [("one",), ()]
    assert reasons(source) == ["it has no 'title', the caption_key"]


def test_doubled_members_never_change_a_pair(tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    tar = write_tar(
        tmp_path / "0.tar",
        [
            *[("a.png", first), ("a.txt", "first"), ("a.txt", "second")],
            *[("b.png", first), ("b.txt", "first"), ("b.png", second), ("b.txt", "second")],
            # The second of two has a caption, the first has none.
            *[
                ("c.png", first),
                ("x.png", first),
                ("x.txt", "x"),
                ("c.txt", "second"),
                ("c.png", second),
            ],
            *[("d.webp", first), ("d.png", second), ("d.txt", "second")],
        ],
    )
    source = open_shards(str(tar))
    assert [one.key for one in source] == ["0/x"]
    assert [skip.where.rpartition(" ")[2] for skip in source.skipped] == ["a", "b", "c", "d"]
    assert reasons(source)[0] == "it has two .txt members; it is unclear which belong together"
    assert {reason.split("; ")[0] for reason in reasons(source)[1:]} <= {
        "it has two .txt members",
        "it has two pictures",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({"json": "{"}, "it is not JSON"),
        ({"json": "[" * 100_000}, "it is not JSON"),
        ({"json": "[1]"}, "its JSON is a list"),
        ({"json": '{"caption": 3}'}, "captions that are not text"),
        ({"json": '{"caption": "\\ud800"}'}, "captions that are not text"),
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


def test_texts_that_are_not_unicode(tmp_path: Path) -> None:
    members = [("ü\udcff.png", picture(0)), ("ü\udcff.txt", b"caf\xe9")]
    source = open_shards(str(write_tar(tmp_path / "0.tar", members, form=tarfile.GNU_FORMAT)))
    assert source[0].key == "0/ü\\udcff"
    assert "it is not UTF-8 (byte 4)" in reasons(source)[0]
    json.dumps([source[0].key, source.skipped[0].where], ensure_ascii=False).encode()
