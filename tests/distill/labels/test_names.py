"""Names of labels: read from lists, files and folders, and checked."""

from pathlib import Path

import pytest

from distill.labels.names import (
    are_labels,
    listed_labels,
    name_folders,
    name_labels,
    read_labels,
)
from export.runtime.errors import DataError


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("cat\ndog\ncat\n", "--labels: FILE: the label 'cat' is given twice; give it once"),
        (
            "cat\n",
            "--labels: FILE: there is only one label, 'cat', and nothing to tell it apart from; ",
        ),
        ("\n\n", "--labels: FILE is empty; give a file with one entry per line"),
        ("a_b\na  b\n", "--labels: FILE: the label 'a  b' is given twice, once as 'a_b'; give"),
        ("\x00\udcff", "--labels: FILE cannot be read as a text file"),
        (None, "--labels: there is no file FILE; give a file with one entry per line"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, content: str | None, line: str) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        name_labels(str(path), field="--labels")
    assert str(caught.value).replace(str(path), "FILE").startswith(line)
    assert "\n" not in str(caught.value)


def test_a_folder_without_classes_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^--labels: .*it has no class folders"):
        name_labels(str(tmp_path), field="--labels")


def test_labels_on_the_command_line_are_names_or_a_file(tmp_path: Path) -> None:
    text, listed = tmp_path / "l.txt", tmp_path / "l.json"
    text.write_text("cat, big\ndog\n")
    listed.write_text('["cat", "dog"]')
    assert listed_labels(" cat ,dog,", field="--labels") == ("cat", "dog")
    many = [f"label {number}" for number in range(100)]
    assert listed_labels(",".join(many), field="--labels") == tuple(many)
    assert listed_labels(str(text), field="--labels") == ("cat, big", "dog")
    assert listed_labels(str(listed), field="--labels") == ("cat", "dog")
    with pytest.raises(DataError, match=r"^--labels: there is no file .*other\.txt"):
        listed_labels(str(tmp_path / "other.txt"), field="--labels")


def test_a_list_with_an_empty_label() -> None:
    with pytest.raises(DataError, match=r"^data\.labels: a label is empty"):
        name_labels(("cat", " "), field="data.labels")


def test_names_of_folders_are_known_in_words() -> None:
    labels = ("grand piano", "cat", "dog")
    assert are_labels(["grand_piano", "cat"], labels)
    assert not are_labels(["2020-01", "cat"], labels)


def test_wordnet_numbers_are_not_part_of_a_label(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("n01440764 tench, Tinca tinca\nn01558993\trobin\n")
    assert read_labels(str(tmp_path / "l.txt"), field="labels") == ("tench, Tinca tinca", "robin")


def test_a_label_may_begin_like_a_wordnet_number(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("n01440764 tench\nrobin\n")
    assert read_labels(str(tmp_path / "l.txt"), field="labels") == ("n01440764 tench", "robin")


def test_folders_with_wordnet_numbers_get_their_names(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("n01558993 robin\nn02 x\nn01440764 tench, Tinca tinca\n")
    folders = ["n01440764", "n01558993"]
    assert name_folders(folders, str(tmp_path / "l.txt")) == ("tench, Tinca tinca", "robin")
