import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.scenes import (
    CAPTIONS,
    COLOURS,
    HELD_OUT,
    PROMPTS,
    SHAPES,
    class_names,
    draw_scene,
    render_scenes,
)
from export.runtime.errors import DataError


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_pictures_and_their_table_are_rendered(tmp_path):
    table = render_scenes(tmp_path / "scenes", count=20, seed=0)

    rows = read_rows(table)
    assert table == tmp_path / "scenes" / "captions.csv"
    assert [list(row) for row in rows] == [["image", "caption", "label"]] * 20
    for row in rows:
        with Image.open(table.parent / row["image"]) as image:
            assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "PNG")
        colour, shape = row["label"].split()
        assert colour in row["caption"].split()
        assert shape in row["caption"].split()


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    first = render_scenes(tmp_path / "first", count=12, seed=5, image_size=32).parent
    second = render_scenes(tmp_path / "second", count=12, seed=5, image_size=32).parent
    other = render_scenes(tmp_path / "other", count=12, seed=6, image_size=32).parent

    assert contents(first) == contents(second)
    assert contents(first)["images/000000.png"] != contents(other)["images/000000.png"]


def test_a_smaller_count_gives_the_first_pictures(tmp_path):
    few = read_rows(render_scenes(tmp_path / "few", count=6, seed=1))
    many = read_rows(render_scenes(tmp_path / "many", count=9, seed=1, captioned=6))

    assert many[:6] == few
    assert [row["caption"] for row in many[6:]] == ["", "", ""]
    assert all(row["label"] for row in many)
    for row in few:
        image = row["image"]
        assert (tmp_path / "few" / image).read_bytes() == (tmp_path / "many" / image).read_bytes()


def test_held_out_pairs_are_in_no_training_picture():
    assert len(class_names()) == len(COLOURS) * len(SHAPES) == 80
    assert set(class_names("held_out")) == set(HELD_OUT)
    assert set(class_names("train")) == set(class_names()) - set(HELD_OUT)
    # Every word of a held-out pair is learned from other pairs.
    seen = {word for name in class_names("train") for word in name.split()}
    assert seen == set(COLOURS) | set(SHAPES)
    for split in ("train", "held_out", "all"):
        names = class_names(split)
        labels = Counter(
            draw_scene(number, seed=3, image_size=16, split=split).label
            for number in range(2 * len(names))
        )
        assert labels == dict.fromkeys(names, 2)


def test_the_named_colour_is_in_the_middle_of_the_picture():
    for number in range(80):
        scene = draw_scene(number, seed=7, split="all")
        colour, shape = scene.label.split()
        if shape in {"ring", "crescent"}:
            continue
        # A patch around the middle of a shape that covers it, whatever the shift.
        middle = np.asarray(scene.image, dtype=float)[22:26, 22:26].mean(axis=(0, 1))
        distance = {name: np.abs(middle - value).sum() for name, value in COLOURS.items()}
        assert min(distance, key=distance.__getitem__) == colour


def test_captions_and_prompts_are_lower_case_and_name_the_class():
    assert len(CAPTIONS) == 10
    for template in CAPTIONS:
        assert "{colour}" in template
        assert "{shape}" in template
        assert template == template.lower()
    assert all("{}" in prompt for prompt in PROMPTS)


def test_a_finished_folder_is_not_rendered_again(tmp_path):
    table = render_scenes(tmp_path, count=5, seed=0)
    picture = tmp_path / "images" / "000002.png"
    picture.write_bytes(b"changed")
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in contents(tmp_path)}

    assert render_scenes(tmp_path, count=5, seed=0) == table
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in contents(tmp_path)} == before


def test_an_interrupted_rendering_goes_on(tmp_path):
    whole = contents(render_scenes(tmp_path / "whole", count=8, seed=0).parent)
    folder = render_scenes(tmp_path / "partial", count=8, seed=0).parent
    kept = folder / "images" / "000001.png"
    time = kept.stat().st_mtime_ns
    for gone in ("captions.csv", "images/000005.png", "images/000007.png"):
        (folder / gone).unlink()

    render_scenes(folder, count=8, seed=0)

    assert contents(folder) == whole
    assert kept.stat().st_mtime_ns == time


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"count": 6}, "count 5 instead of 6"),
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"image_size": 32}, "image_size 48 instead of 32"),
        ({"split": "held_out"}, "split train instead of held_out"),
        ({"captioned": 2}, "captioned 5 instead of 2"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(tmp_path, change, field):
    arguments = {"count": 5, "seed": 0}
    render_scenes(tmp_path, **arguments)
    before = contents(tmp_path)

    with pytest.raises(DataError, match=field) as raised:
        render_scenes(tmp_path, **(arguments | change))

    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert contents(tmp_path) == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear")

    with pytest.raises(
        DataError, match="it holds files that are not scenes; choose a new or empty folder"
    ):
        render_scenes(tmp_path, count=2, seed=0)

    assert contents(tmp_path) == {"letter.txt": b"Dear"}


def test_a_damaged_settings_file_is_named(tmp_path):
    render_scenes(tmp_path, count=2, seed=0)
    (tmp_path / "scenes.json").write_text("{")

    with pytest.raises(DataError, match=r"scenes\.json: it is damaged"):
        render_scenes(tmp_path, count=2, seed=0)


def test_no_temporary_file_is_left_by_a_failed_write(tmp_path, monkeypatch):
    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        render_scenes(tmp_path / "scenes", count=2, seed=0)

    assert contents(tmp_path) == {}


def test_settings_are_readable(tmp_path):
    render_scenes(tmp_path, count=3, seed=9, captioned=1)

    settings = json.loads((tmp_path / "scenes.json").read_text())
    expected = {"count": 3, "seed": 9, "image_size": 48, "split": "train", "captioned": 1}
    assert settings == expected | {"design": 1}
