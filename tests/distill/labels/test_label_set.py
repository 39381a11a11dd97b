"""Label sets: read from what people have, and embedded as the mean of their prompts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.labels.label_set import LabelSet, average_prompts, knows, label_set, name_labels
from distill.labels.names import listed_labels, name_folders, read_labels
from distill.recipe.data import DataSection
from export.runtime.errors import DataError


def section(**values: Any) -> DataSection:
    return DataSection.model_validate(values)


def test_prompts_go_label_by_label_and_underscores_are_spaces() -> None:
    labels = LabelSet(("red_cat", "T-shirt"), ("a {}.", "many {}s"))
    assert labels.prompts == ("a red cat.", "many red cats", "a T-shirt.", "many T-shirts")


def test_prompts_take_either_kind_of_place_and_need_one() -> None:
    assert LabelSet(("red_cat",), ("a {c}.", "a {}.")).prompts == ("a red cat.", "a red cat.")
    with pytest.raises(DataError, match=r"templates: 'a cat\.' has no \{\}"):
        _ = LabelSet(("cat",), ("a cat.",)).prompts


def test_a_label_is_the_normalised_mean_of_its_prompts() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(6, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = LabelSet(("a", "b"), ("{} 1", "{} 2", "{} 3"))
    found = labels.embed(lambda texts: rows[: len(texts)].astype(np.float32))
    expected = np.stack([rows[:3].mean(axis=0), rows[3:].mean(axis=0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found is not None
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_one_prompt_a_label_is_left_as_it_is() -> None:
    rows = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    assert np.array_equal(average_prompts(rows, 1), rows)


def test_without_a_text_tower_there_are_no_vectors() -> None:
    assert LabelSet(("a", "b")).embed(lambda _: None) is None


def test_a_list_a_text_file_json_and_a_folder_say_the_same(tmp_path: Path) -> None:
    text, listed, folder = (tmp_path / name for name in ("l.txt", "l.json", "folder"))
    text.write_text("\ufeffcat\n\n  dog \n", encoding="utf-8")
    listed.write_text(json.dumps(["cat", "dog"]))
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    for given in (("cat", "dog"), str(text), str(listed), str(folder)):
        found = label_set(section(labels=given))
        assert found == LabelSet(("cat", "dog"), ("a photo of a {}.",))


def test_templates_come_from_a_file_with_either_kind_of_place(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a {}\nthe {c}\n")
    found = label_set(section(labels=["a", "b"], templates=str(path)))
    assert found is not None
    assert found.templates == ("a {}", "the {}")


def test_no_labels_no_set() -> None:
    assert label_set(section(templates=["a {}"])) is None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("cat\ndog\ncat\n", "--labels: FILE: the label 'cat' stands there twice; give it once"),
        ("cat\n", "--labels: FILE: one label, 'cat', has nothing to be told apart from; give two"),
        ("\n\n", "--labels: FILE is empty; give a file with one entry a line"),
        ("a_b\na  b\n", "--labels: FILE: the label 'a  b' stands there twice, once as 'a_b'; give"),
        ("\x00\udcff", "--labels: FILE cannot be read as a text file"),
        (None, "--labels: there is no file FILE; give a file with one entry a line"),
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
    with pytest.raises(DataError, match=r"^--labels: .*there are no class folders in it"):
        name_labels(str(tmp_path), field="--labels")


def test_labels_of_a_command_line_are_names_or_a_place(tmp_path: Path) -> None:
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


def test_a_template_with_two_places() -> None:
    with pytest.raises(DataError, match=r"^data\.templates: 'a {} of {}' is no template"):
        label_set(section(labels=["a", "b"], templates=["a {} of {}"]))


def test_names_of_folders_are_known_in_words() -> None:
    labels = LabelSet(("grand piano", "cat", "dog"))
    assert knows(labels, ["grand_piano", "cat"])
    assert not knows(labels, ["2020-01", "cat"])


def test_numbers_of_wordnet_are_no_part_of_a_label(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("n01440764 tench, Tinca tinca\nn01558993\trobin\n")
    assert read_labels(str(tmp_path / "l.txt"), field="labels") == ("tench, Tinca tinca", "robin")


def test_a_label_may_begin_with_what_looks_like_a_number_of_wordnet(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("n01440764 tench\nrobin\n")
    assert read_labels(str(tmp_path / "l.txt"), field="labels") == ("n01440764 tench", "robin")


def test_folders_called_by_wordnet_are_named_by_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("n01558993 robin\nn02 x\nn01440764 tench, Tinca tinca\n")
    folders = ["n01440764", "n01558993"]
    assert name_folders(folders, str(tmp_path / "l.txt")) == ("tench, Tinca tinca", "robin")
