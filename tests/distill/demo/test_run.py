"""Which folder the demo takes."""

from pathlib import Path

import pytest

from export.runtime.errors import RunError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.demo import run as demo


class BegunError(Exception):
    """Raised when the demo begins its work."""


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(folder: Path) -> None:
        raise BegunError

    monkeypatch.setattr(demo, "_render", begin)


@pytest.mark.parametrize("names", [[], [".demo.json.tmp"], ["demo.json", "scenes"]])
def test_a_new_folder_or_a_demo_is_taken(tmp_path: Path, names: list[str]) -> None:
    out = tmp_path / "parent" / "demo"
    for name in names:
        out.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    with pytest.raises(BegunError):
        demo.run_demo(out)
    assert (out / "demo.json").read_text() == '{"demo": 1}\n'


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(RunError, match=r"something other than a demo; choose another --out"):
        demo.run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    with pytest.raises(RunError, match=r"demo: it is not a folder; choose another --out"):
        demo.run_demo(tmp_path / "demo")
