"""The examples in the docstrings of the students run as they are printed."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.examples import check_examples
from tests.lazy import lazy_imports

with lazy_imports():
    from students.build import build_towers

DOCUMENTED = {
    "students.build": ["build_towers"],
    "students.config": ["StudentConfig"],
    "students.encoder": ["Student"],
    "students.model": ["StudentModel", "load_student"],
}


@pytest.fixture
def workplace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: dict[str, Any],
    text: dict[str, Any],
) -> None:
    """Change to a folder with the student and the photo that the examples load."""
    student = build_towers(image=image, text=text, width=24, logit_scale=10.0)
    student.save(tmp_path / "runs" / "mine" / "student")
    Image.new("RGB", (60, 40), "orange").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_run(module: str) -> None:
    check_examples(module, documented=DOCUMENTED[module])
