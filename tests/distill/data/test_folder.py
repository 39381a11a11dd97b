from pathlib import Path

import pytest

from distill.data.folder import open_folder
from distill.data.sample import open_image
from export.runtime.errors import DataError


def failure(path: Path, **arguments) -> str:
    with pytest.raises(DataError) as caught:
        open_folder(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_class_folders(write_pictures, tmp_path):
    write_pictures(["red_dog/b.jpg", "red_dog/A.JPEG", "red_dog/deep/er/c.png", "cat/犬 1.webp"])
    (tmp_path / "red_dog/notes.txt").write_text("no picture")
    source = open_folder(tmp_path, templates=["a photo of a {}.", "{c}, the {c}"])
    assert [sample.key for sample in source] == [
        "cat/犬 1.webp",
        "red_dog/A.JPEG",
        "red_dog/b.jpg",
        "red_dog/deep/er/c.png",
    ]
    assert [sample.label for sample in source] == ["cat", "red_dog", "red_dog", "red_dog"]
    assert source[1].captions == ("a photo of a red dog.", "red dog, the red dog")
    assert source[3].image == tmp_path / "red_dog/deep/er/c.png"
    assert open_image(source[0]).size == (4, 3)
    assert source.skipped == ()
    assert source.rows == 4
    assert source.class_names == ("cat", "red_dog")


def test_hidden_files_and_folders_are_ignored(write_pictures, tmp_path):
    write_pictures(["cat/a.jpg", "cat/._a.jpg", "cat/.cache/b.jpg", ".cache/c.jpg"])
    assert [sample.key for sample in open_folder(tmp_path)] == ["cat/a.jpg"]


def test_pictures_outside_the_class_folders_are_counted(write_pictures, tmp_path):
    write_pictures(["cat/a.jpg", "loose.jpg"])
    (tmp_path / "readme.md").touch()
    source = open_folder(tmp_path)
    assert [skip.where for skip in source.skipped] == [str(tmp_path / "loose.jpg")]


def test_links_are_followed_but_not_in_loops(write_pictures, tmp_path):
    write_pictures(["cat/a.jpg", "cat/in/b.jpg"], folder="real")
    data = tmp_path / "data"
    data.mkdir()
    (data / "cat").symlink_to(tmp_path / "real/cat")
    (tmp_path / "real/cat/in/up").symlink_to(tmp_path / "real/cat")
    (tmp_path / "real/cat/self").symlink_to(tmp_path / "real/cat/self")
    assert [sample.key for sample in open_folder(data)] == ["cat/a.jpg", "cat/in/b.jpg"]


def test_a_class_without_pictures_is_named(write_pictures, tmp_path):
    write_pictures(["cat/a.jpg"])
    (tmp_path / "dog").mkdir()
    assert f"{tmp_path / 'dog'}: " in failure(tmp_path)
    assert "found there: nothing" in failure(tmp_path)
    (tmp_path / "dog/list.txt").touch()
    (tmp_path / "dog/LICENSE").touch()
    assert "1 no suffix, 1 .txt" in failure(tmp_path)


def test_folders_without_classes_are_refused(write_pictures, tmp_path):
    assert "found nothing" in failure(tmp_path)
    write_pictures([f"{number}.jpg" for number in range(10)])
    assert "'0.jpg'" in failure(tmp_path)
    assert "and 2 more files" in failure(tmp_path)
    assert "expected a folder of class folders, found nothing" in failure(tmp_path / "none")
    assert "class folders, found a file" in failure(tmp_path / "0.jpg")


def test_splits_are_not_taken_for_classes(write_pictures, tmp_path):
    write_pictures(["train/cat/a.jpg", "val/cat/b.jpg"])
    assert f"such as {tmp_path / 'train'}" in failure(tmp_path)
    assert len(open_folder(tmp_path / "train")) == 1


def test_a_template_without_a_place_for_the_class(write_pictures, tmp_path):
    write_pictures(["cat/a.jpg"])
    assert "'a photo.'" in failure(tmp_path, templates=["a photo."])
    assert open_folder(tmp_path, templates=[])[0].captions == ()
