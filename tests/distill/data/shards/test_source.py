"""WebDataset tars as a source: samples, captions, labels, and processes that read them."""

import pickle
import subprocess
import tarfile
from pathlib import Path

import pytest

from distill.data.sample import extras_of, open_image, split_by_hash
from distill.data.shards._pictures import MOST_OPEN
from distill.data.shards.source import ShardsSource, open_shards
from tests.distill.data.shards.tars import (
    colour,
    failure,
    picture,
    reasons,
    sample,
    samples,
    write_files,
    write_tar,
    write_tars,
)
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

pytestmark = pytest.mark.usefixtures("cache_folder")


def test_samples_are_in_the_order_of_the_tars(tmp_path: Path) -> None:
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
            *sample(7, json="{}"),
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
    # Each way of reading has its own index.
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
    # The layout of CLIP-benchmark: the files are one folder above a split's tars.
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
    assert reasons(source) == ["its class is 2, but classnames.txt has 2 names"]
    write_files(tmp_path, {"mine.txt": "a\nb\nc\n"})
    mine = open_shards(str(tar), classnames=tmp_path / "mine.txt")
    assert [one.label for one in mine] == ["b", "cat", "a", "7", "c"]
    # The number of a line is the number of a class, so an empty line cannot be ignored.
    write_files(tmp_path, {"mine.txt": "a\n\nc\n"})
    assert "line 2 is empty" in failure(tar, classnames=str(tmp_path / "mine.txt"))
    assert "no such file" in failure(tar, classnames=str(tmp_path / "none.txt"))


# --- processes


def test_workers_read_for_themselves(tmp_path: Path) -> None:
    source = open_shards(str(write_tars(tmp_path / "s", [20, 20, 20])))
    assert colour(source[0])[0] == 0
    loader = torch.utils.data.DataLoader(
        Colours(source), batch_size=None, sampler=list(range(60)) * 3, num_workers=2
    )
    assert list(loader) == list(range(60)) * 3


class Colours:
    def __init__(self, source: ShardsSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> int:
        return colour(self.source[number])[0]


def test_a_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
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
    of_kept, of_held_out = (extras_of(part).shard_lengths for part in (kept, held_out))
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
