"""The labels and templates that a recipe names, in each of the ways to name them."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill.labels.label_set import LabelSet
from distill.recipe.data import DataSection
from distill.run.labels import recipe_labels
from export.runtime.errors import DataError


def section(**values: Any) -> DataSection:
    return DataSection.model_validate(values)


def test_a_list_a_text_file_json_and_a_folder_say_the_same(tmp_path: Path) -> None:
    text, listed, folder = (tmp_path / name for name in ("l.txt", "l.json", "folder"))
    text.write_text("\ufeffcat\n\n  dog \n", encoding="utf-8")
    listed.write_text(json.dumps(["cat", "dog"]))
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    for given in (("cat", "dog"), str(text), str(listed), str(folder)):
        found = recipe_labels(section(labels=given))
        assert found == LabelSet(("cat", "dog"), ("a photo of a {}.",))


def test_templates_come_from_a_file_with_either_kind_of_place(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a {}\nthe {c}\n")
    found = recipe_labels(section(labels=["a", "b"], templates=str(path)))
    assert found is not None
    assert found.templates == ("a {}", "the {}")


def test_no_labels_no_set() -> None:
    assert recipe_labels(section(templates=["a {}"])) is None


def test_a_template_with_two_places() -> None:
    with pytest.raises(DataError, match=r"^data\.templates: 'a {} of {}' is not a template"):
        recipe_labels(section(labels=["a", "b"], templates=["a {} of {}"]))
