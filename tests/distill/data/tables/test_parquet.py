import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.data.sample import open_image
from distill.data.tables.table import open_table
from export.runtime.errors import DataError
from tests.lazy import lazy_imports

with lazy_imports():
    import datasets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep the datasets library's cache inside of the test, and its progress bars out of it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield tmp_path / "cache"
    datasets.enable_progress_bars()


def write(folder: Path, columns: dict[str, list[Any]], *, name: str = "t.parquet", **features):
    table = datasets.Dataset.from_dict(columns)
    for column, feature in features.items():
        table = table.cast_column(column, feature)
    table.to_parquet(str(folder / name))
    return folder / name


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(file, "PNG")
    return file.getvalue()


def failure(path: Path, **arguments) -> str:
    with pytest.raises(DataError) as caught:
        open_table(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_rows_become_the_same_samples_as_those_of_a_csv(write_pictures, tmp_path, cache):
    write_pictures(["a.jpg", "b.jpg"], folder="images")
    table = write(
        tmp_path,
        {
            "caption": ['he said "hi", twice', "None", None, "NA", "x", "y", "犬"],
            "image": ["a.jpg", "a.jpg", "b.jpg", "./b.jpg", "gone.jpg", None, "b.jpg"],
            "label": ["dog", None, "cat", "cat", "cat", "cat", "cat"],
        },
    )
    source = open_table(table)
    assert [sample.key for sample in source] == ["a.jpg", "b.jpg"]
    assert source[0].captions == ('he said "hi", twice', "None")
    assert source[1].captions == ("NA", "犬")
    assert [sample.label for sample in source] == ["dog", "cat"]
    assert source[0].image == tmp_path / "images/a.jpg"
    assert source.rows == 7
    assert [(skip.where, skip.kind) for skip in source.skipped] == [
        (f"{table}: row 5", "picture"),
        (f"{table}: row 6", "row"),
    ]
    # Names and captions are read where they are; only embedded pictures are copied to the cache.
    assert not list(cache.rglob("*.arrow"))


def test_a_list_of_captions_and_numbers_for_labels(write_pictures, tmp_path):
    write_pictures(["a.jpg", "b.jpg"])
    columns = {"image": ["a.jpg", "b.jpg"], "caption": [["x", "", "y"], None], "label": [1, 0]}
    source = open_table(write(tmp_path, columns))
    assert [sample.captions for sample in source] == [("x", "y"), ()]
    assert [sample.label for sample in source] == ["1", "0"]
    names = datasets.ClassLabel(names=["cat", "red dog"])
    source = open_table(write(tmp_path, columns, name="named.parquet", label=names))
    assert [sample.label for sample in source] == ["red dog", "cat"]


def test_a_path_with_characters_of_glob_patterns(write_pictures, tmp_path):
    write_pictures(["a.jpg"])
    table = write(tmp_path, {"image": ["a.jpg"]}, name="part [1]*?.parquet")
    assert len(open_table(table, caption_column=None)) == 1


@pytest.mark.parametrize("form", ["datasets", "plain", "binary"])
def test_embedded_pictures(tmp_path, form):
    red, blue = png((200, 0, 0)), png((0, 0, 200))
    pictures: list[Any] = [
        {"bytes": red, "path": "r.png"},
        {"bytes": blue, "path": None},
        {"bytes": blue, "path": "r.png"},
    ]
    columns = {"image": pictures, "caption": ["red", "blue", ""], "label": ["r", "b", "b"]}
    if form == "binary":
        columns["image"] = [picture["bytes"] for picture in pictures]
    features = {"image": datasets.Image()} if form == "datasets" else {}
    table = write(tmp_path, columns, **features)
    source = open_table(table)
    keys = ["row-1", "row-2", "row-3"] if form == "binary" else ["r.png", "row-2", "r.png#row-3"]
    assert [sample.key for sample in source] == keys
    assert [sample.captions for sample in source] == [("red",), ("blue",), ()]
    assert [sample.label for sample in source] == ["r", "b", "b"]
    assert source[0].image == red
    assert np.asarray(open_image(source[2]))[0, 0].tolist() == [0, 0, 200]
    assert len(open_table(table, caption_column=None, label_column=None)) == 3


def test_a_missing_embedded_picture_is_named_when_it_is_opened(tmp_path):
    columns = {"image": [{"bytes": png((1, 2, 3)), "path": "a.png"}, None], "caption": ["x", "y"]}
    source = open_table(write(tmp_path, columns, image=datasets.Image()))
    assert len(source) == 2
    with pytest.raises(DataError, match=r"^row-2: "):
        open_image(source[1])


def test_what_cannot_be_read_gives_one_line(write_pictures, tmp_path):
    write_pictures(["a.jpg"])
    good = write(tmp_path, {"image": ["a.jpg"], "text": ["x"], "caption": [0.5]})
    assert "no column 'captoin'; it has 'image', 'text'" in failure(good, caption_column="captoin")
    assert "has the type float64" in failure(good)
    assert "(image_column)" in failure(good, image_column="caption", caption_column=None)
    assert "no rows" in failure(
        write(
            tmp_path,
            {"image": [], "caption": []},
            name="empty.parquet",
            image=datasets.Value("string"),
            caption=datasets.Value("string"),
        )
    )
    assert "1 of its 1 pictures are missing" in failure(
        write(tmp_path, {"image": ["g"], "caption": ["x"]})
    )


def test_damaged_files(write_pictures, tmp_path):
    write_pictures([f"{number}.jpg" for number in range(50)])
    rows = {"image": [f"{number}.jpg" for number in range(50)], "caption": ["x" * 99] * 50}
    content = write(tmp_path, rows).read_bytes()
    broken = tmp_path / "broken.parquet"
    for damaged in (b"", b"PAR1", b"image,caption\n", content[:-20]):
        broken.write_bytes(damaged)
        assert "not a Parquet file" in failure(broken)
    broken.write_bytes(content[: len(content) // 2] + content[-8:])
    assert "cannot be read" in failure(broken)
    broken.write_bytes(content[:4] + bytes(len(content) // 3) + content[4 + len(content) // 3 :])
    failure(broken)


def test_a_file_of_another_content_gives_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + b"x" * 50 + b"PAR1")
    assert "the Parquet file cannot be read" in failure(path)
    # The library would also log a line.
    assert capfd.readouterr().err == ""
