"""Guessing what a path on the command line contains."""

from pathlib import Path

import pytest

from distill.data.guess import guess_source
from export.runtime.errors import DataError


def failure(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        guess_source(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.parquet", "T.CSV"])
def test_a_file_that_is_a_table(tmp_path, name):
    (tmp_path / name).touch()
    table = {"kind": "table", "path": str(tmp_path / name)}
    assert guess_source(str(tmp_path / name)) == table
    # So is a folder with exactly one of them, whatever else it holds.
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden.csv").touch()
    assert guess_source(str(tmp_path)) == table


def test_a_folder_of_folders_of_pictures(tmp_path):
    (tmp_path / "cat/deep").mkdir(parents=True)
    (tmp_path / "dog").mkdir()
    (tmp_path / "cat/deep/a.PNG").touch()
    assert guess_source(str(tmp_path)) == {"kind": "folder", "path": str(tmp_path)}


def test_a_folder_of_pictures(tmp_path):
    (tmp_path / "a.JPG").touch()
    (tmp_path / "empty").mkdir()
    # JSON may be anything, and does not make a table of a folder.
    (tmp_path / "notes.json").touch()
    assert guess_source(str(tmp_path)) == {"kind": "images", "path": str(tmp_path)}


def test_a_folder_that_the_datasets_library_saved(tmp_path):
    (tmp_path / "state.json").touch()
    (tmp_path / "data-00000-of-00001.arrow").touch()
    assert guess_source(str(tmp_path)) == {"kind": "hub", "path": str(tmp_path)}


@pytest.mark.parametrize("folder", [".", "data"])
def test_parquet_files_in_a_folder_are_a_copy_of_a_hub_set(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    for number in range(2):
        (tmp_path / folder / f"train-0000{number}-of-00002.parquet").touch()
    assert guess_source(str(tmp_path)) == {"kind": "hub", "path": str(tmp_path)}


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_a_file_of_json_is_a_table(tmp_path, name):
    (tmp_path / name).touch()
    assert guess_source(str(tmp_path / name)) == {"kind": "table", "path": str(tmp_path / name)}


def test_anything_else_is_an_error_that_says_what_was_found(tmp_path):
    assert "found nothing" in failure(tmp_path / "none")
    (tmp_path / "archive.zip").touch()
    assert "found another kind of file" in failure(tmp_path / "archive.zip")
    (tmp_path / "empty").mkdir()
    message = failure(tmp_path)
    for fragment in (".parquet", "1 folders without pictures", "no pictures", "1 other"):
        assert fragment in message
    (tmp_path / "a.jpg").touch()
    (tmp_path / "empty/b.jpg").touch()
    message = failure(tmp_path)
    for fragment in ("1 pictures in it", "kind: images", "kind: folder", "data.train={kind"):
        assert fragment in message
    (tmp_path / "train.csv").touch()
    (tmp_path / "val.csv").touch()
    assert "2 tables in it (train.csv, val.csv)" in failure(tmp_path)


@pytest.mark.parametrize("inside", [".", "folder"])
def test_label_files_next_to_pictures_are_not_tables(tmp_path, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / "a.jpg").write_bytes(b"")
    for name in ("labels.txt", "notes.csv"):
        (tmp_path / name).write_text("cat\ndog\n")
    found = guess_source(str(tmp_path), unlabelled=True)
    assert found == {"kind": "images" if inside == "." else "folder", "path": str(tmp_path)}
