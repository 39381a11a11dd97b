"""The train stage: what the loop receives, and what happens to the teacher."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.config import RunConfig
from distill.run.settings import fill_settings
from export.runtime.errors import RecipeError
from tests.lazy import lazy_imports

with lazy_imports():
    from accelerate import Accelerator

    from distill.run import train_stage as train_module
    from distill.run.opening import open_run
    from distill.run.project import Project
    from distill.run.train_stage import train_stage
    from distill.train.loop import LoopSettings, Trainer
    from distill.train.optimizer import OptimizerSettings

Configure = Callable[..., RunConfig]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """Return the list of trainers that are made; they do not train."""
    made: list[Trainer] = []

    def run(trainer: Trainer) -> None:
        made.append(trainer)

    monkeypatch.setattr(Trainer, "run", run)
    return made


def stage(project: Project, **options: Any) -> None:
    folder = open_run(project)
    # A stage that does not train leaves no student.
    train_stage(project, folder, Accelerator(cpu=True), **options)


def test_settings_are_the_fields_of_the_recipe(configure: Configure, given: list[Trainer]) -> None:
    config = configure(
        seed=5,
        train={
            "gradient_clip": 0.5,
            "save_every": 3,
            "freeze_text_steps": 1,
            "layer_decay": 0.7,
            "betas": [0.8, 0.9],
        },
    )
    project = Project(config)
    stage(project)
    (trainer,) = given
    for settings in (trainer.settings, trainer.work.optimizer):
        for field in fields(settings):
            expected = {
                "seed": 5,
                "steps": project.steps,
                "workers": config.data.workers,
                "max_skipped": config.data.max_skipped,
            }.get(field.name, getattr(config.train, field.name, None))
            assert getattr(settings, field.name) == expected, field.name


def test_every_setting_has_a_field_or_is_given(configure: Configure) -> None:
    train = configure().train
    filled = fill_settings(LoopSettings, train, seed=1, steps=2, workers=3, max_skipped=0.5)
    assert (filled.seed, filled.batch_size) == (1, train.batch_size)
    assert fill_settings(OptimizerSettings, train).warmup_steps == train.warmup_steps
    with pytest.raises(TypeError, match="seed"):
        fill_settings(LoopSettings, train, steps=2, workers=3, max_skipped=0.5)


@pytest.mark.parametrize("mode", ["cached", "live", "absent"])
def test_batches_carry_what_the_teacher_needs(
    configure: Configure, given: list[Trainer], mode: str
) -> None:
    losses = {"contrastive": 1} if mode == "absent" else {"kl_divergence": 1}
    project = Project(configure(losses=losses, train={"teacher": mode}))
    stage(project)
    (trainer,) = given
    batch = trainer.work.dataset[0]
    assert (batch.teacher_image is not None) == (mode == "cached")
    assert len(batch.teacher_pixels) == (mode == "live")
    assert (trainer.work.teacher is None) == (mode == "absent")
    assert [len(piece.pixels) for piece in batch.pieces if piece.pixels is not None] == [8]


@pytest.mark.parametrize("keep", [True, False])
def test_the_teacher_is_kept_or_freed(
    configure: Configure, given: list[Trainer], monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    done: list[str] = []
    for name in ("rest_teacher", "release_teacher"):
        monkeypatch.setattr(Project, name, lambda _, name=name: done.append(name))
    stage(Project(configure()), keep_teacher=keep)
    assert done == ["rest_teacher" if keep else "release_teacher"]


def test_a_live_teacher_is_not_sent_to_rest(
    configure: Configure, given: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rest(_: Project) -> None:
        raise AssertionError("the teacher rests while it teaches")

    monkeypatch.setattr(Project, "rest_teacher", rest)
    project = Project(configure(train={"teacher": "live"}))
    stage(project, keep_teacher=True)
    (trainer,) = given
    assert trainer.work.teacher is project.teacher


def test_banks_hold_what_the_terms_compare_with(
    configure: Configure, given: list[Trainer], tmp_path: Path
) -> None:
    bank = tmp_path / "bank.txt"
    bank.write_text("one\ntwo\nthree\n")
    losses = {
        "prompt_kl": {"weight": 1, "bank": str(bank)},
        "corpus_kl": {"weight": 1, "samples": 5},
        "corpus_relational": {"weight": 1, "samples": 9},
    }
    stage(Project(configure(losses=losses)))
    banks = given[0].work.banks
    assert banks is not None
    held = banks.at(0)
    assert held.prompts is not None
    assert held.prompts.shape == (3, 128)
    assert held.corpus_image is not None
    assert held.corpus_image.shape == (9, 128)
    assert held.corpus_text is not None
    assert held.corpus_text.shape == (9, 128)


def test_no_bank_is_made_for_terms_of_the_batch_alone(
    configure: Configure, given: list[Trainer]
) -> None:
    stage(Project(configure()))
    assert given[0].work.banks is None


def test_batch_norm_refuses_a_micro_batch_of_one_picture(
    configure: Configure, given: list[Trainer]
) -> None:
    image = {"backbone": "test_byobnet", "pretrained": False, "image_size": 32}
    config = configure(student={"image": image}, train={"micro_batch_size": 1})
    with pytest.raises(RecipeError, match=r"^train\.micro_batch_size: batch norm .* single"):
        stage(Project(config))
    assert given == []


def test_skips_and_the_finished_stage_are_recorded(configure: Configure) -> None:
    config = configure()
    project = Project(config)
    folder = open_run(project)
    train_module.train_stage(project, folder, Accelerator(cpu=True))
    assert folder.finished("train")
    assert folder.finished("cache")
    lines = (config.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 2]
