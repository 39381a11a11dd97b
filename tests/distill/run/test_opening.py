"""Opening runs: checks before anything is created, and finding what a run has left."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.recipe.config import RunConfig
from distill.run.folder import RunFolder
from export.runtime.errors import ClipDistillError, DataError, RunError, StudentError, TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.run.opening import open_existing, open_run, results_folder, student_folder
    from distill.run.project import Project

Configure = Callable[..., RunConfig]


def test_an_opened_run_has_a_recipe_and_a_state(configure: Configure) -> None:
    config = configure()
    folder = open_run(Project(config))
    assert folder.path == config.folder
    assert {path.name for path in folder.path.iterdir()} == {"recipe.yaml", "state.json"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": {"train": {"kind": "table", "path": "nowhere.csv"}}}, DataError),
        ({"train": {"batch_size": 1000}}, DataError),
        ({"teacher": {"model": "nowhere/at-all"}}, TeacherError),
        ({"student": {"image": {"backbone": "no_such_backbone"}}}, StudentError),
        ({"student": {"width": 7}}, StudentError),
        ({"train": {"device": "cuda"}}, RunError),
        ({"train": {"trackers": ["mlflow"]}}, RunError),
    ],
)
def test_what_is_wrong_creates_nothing(
    configure: Configure, changes: dict[str, object], error: type[ClipDistillError]
) -> None:
    config = configure(**changes)
    with pytest.raises(error):
        open_run(Project(config))
    assert not config.folder.exists()


def test_an_existing_run_is_opened_wherever_it_was_moved(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure()
    RunFolder(config).open()
    moved = config.folder.rename(tmp_path / "moved")
    folder, project = open_existing(moved)
    assert folder.path == moved
    assert project.config.folder == moved
    assert project.config.terms.keys() == config.terms.keys()


def test_overrides_become_part_of_the_recipe(configure: Configure) -> None:
    config = configure()
    RunFolder(config).open()
    open_existing(config.folder, overrides=["export.opset=20"])
    _, project = open_existing(config.folder)
    assert project.config.export.opset == 20


def test_a_folder_without_a_recipe_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder.*recipe\.yaml"):
        open_existing(tmp_path)


def test_the_last_student_is_that_of_the_newest_checkpoint_until_training_ends(
    tmp_path: Path,
) -> None:
    with pytest.raises(RunError, match=r"no student yet.*clip-distill train"):
        student_folder(tmp_path, "last")
    for step in (2, 4):
        place = tmp_path / "checkpoints" / f"{step:08d}"
        place.mkdir(parents=True)
        (place / "state.json").write_text("{}")
    assert student_folder(tmp_path, "last") == tmp_path / "checkpoints" / "00000004" / "student"
    (tmp_path / "student").mkdir()
    assert student_folder(tmp_path, "last") == tmp_path / "student"


def test_the_best_student_is_there_or_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no best student.*--checkpoint last"):
        student_folder(tmp_path, "best")
    (tmp_path / "student_best").mkdir()
    assert student_folder(tmp_path, "best") == tmp_path / "student_best"


def test_results_of_the_best_student_have_a_folder_of_their_own(configure: Configure) -> None:
    folder = RunFolder(configure())
    folder.open()
    assert results_folder(folder, "last") == folder.path
    assert results_folder(folder, "best") == folder.path / "best"
    assert (folder.path / "best").is_dir()
