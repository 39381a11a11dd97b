"""Templates: read by name and from files, and filled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.labels.names import read_labels
from distill.labels.templates import fill, insert, label_templates, read_templates
from export.runtime.errors import DataError

ROOT = Path(__file__).parents[3]


def test_a_class_is_filled_in_as_words_and_a_name_as_it_is() -> None:
    assert fill("a {} and a {c}", "great_grey-owl") == "a great grey owl and a great grey owl"
    assert insert("a {}", "T-shirt") == "a T-shirt"
    with pytest.raises(DataError, match=r"^templates: 'a photo' has no {} where the class goes"):
        insert("a photo", "cat")


def test_a_line_without_a_place_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a {}\na photo\n")
    with pytest.raises(DataError, match=r"^templates: .*t\.txt: 'a photo' is not a template; each"):
        read_templates(str(path), field="templates")


def test_names_of_templates_are_read_and_lists_are_taken() -> None:
    assert label_templates(("a {}",), field="t") == ("a {}",)
    found = label_templates("openai", field="t")
    assert len(found) == 80
    assert found[0] == "a bad photo of a {}."


def test_what_open_clip_ships_is_what_it_says() -> None:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    assert read_labels("imagenet", field="labels") == tuple(IMAGENET_CLASSNAMES)
    expected = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    assert read_templates("openai", field="templates") == expected


READ = """
import sys
from distill.labels.names import read_labels
from distill.labels.templates import read_templates
assert len(read_labels("imagenet", field="labels")) == 1000
assert len(read_templates("openai", field="templates")) == 80
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_reading_them_imports_neither_torch_nor_open_clip() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "torchvision", "transformers", "timm", "open_clip", "numpy", "PIL"}
    assert not heavy & set(done.stdout.split())
