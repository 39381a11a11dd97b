"""What a recipe can ask of training, from the recipe to the run folder."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.runtime.errors import RecipeError, RunError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from distill.run.opening import student_folder
    from distill.run.pipeline import run
    from students.model import load_student

Recipe = Callable[..., Path]
Weights = dict[str, torch.Tensor]
STAGES = ("cache", "train")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


# AdamW turns a gradient that is rounding alone into a whole step of this size.
LEARNING_RATE = 1e-3


def assert_close(ours: Weights, theirs: Weights) -> None:
    """Compare weights as a whole, and all single ones but those that rounding has moved."""
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        if "key.bias" in name:
            # All of its gradient is rounding.
            continue
        gap = values - theirs[name]
        allowed = 1e-5 + 2e-4 * float(theirs[name].square().mean().sqrt())
        assert float(gap.square().mean().sqrt()) <= allowed, name
        off = ~torch.isclose(values, theirs[name], rtol=1e-3, atol=1e-4)
        assert float(off.float().mean()) <= 1e-3, name
        assert float(gap.abs().max()) <= LEARNING_RATE, name


def test_micro_batches_and_tiles_train_the_same_student(
    recipe: Recipe, weights: Callable[[Path], Weights]
) -> None:
    whole = run(recipe("whole"), stages=STAGES).path
    cut = {"micro_batch_size": 6, "tile_rows": 5}
    pieces = run(recipe("pieces", train=cut), stages=STAGES).path
    assert_close(weights(pieces), weights(whole))


def test_micro_batches_and_tiles_are_in_no_digest(recipe: Recipe) -> None:
    folder = run(recipe(train={"steps": 2}), stages=STAGES).path
    before = (folder / "student" / "model.safetensors").stat().st_mtime_ns
    run(recipe(train={"steps": 2, "micro_batch_size": 4, "tile_rows": 3}), stages=STAGES)
    assert (folder / "student" / "model.safetensors").stat().st_mtime_ns == before


def test_every_log_line_says_how_training_goes(recipe: Recipe) -> None:
    first, *_ = lines_of(run(recipe(train={"steps": 2}), stages=STAGES).path)
    assert set(first["terms"]) == {"kl_divergence", "embedding_alignment"}
    assert set(first["learning_rates"]) == {"image", "text", "rest"}
    assert set(first["teacher_student_cosine"]) == {"image", "text"}
    # One minus the mean of the cosines is what the alignment term is, by its definition.
    cosines = first["teacher_student_cosine"].values()
    assert 1 - sum(cosines) / 2 == pytest.approx(first["terms"]["embedding_alignment"], abs=1e-5)
    assert 0 <= first["data_wait_share"] <= 1
    assert first["peak_memory_bytes"] > 50e6
    for name in ("logit_scale", "gradient_norm", "samples_per_second", "seconds"):
        assert first[name] > 0, name


def test_trackers_get_what_the_log_file_gets(recipe: Recipe) -> None:
    path = recipe(train={"trackers": ["tensorboard"], "validate_every": 100})
    folder = run(path, stages=STAGES).path
    events = EventAccumulator(str(next(folder.rglob("events.out.tfevents*")).parent))
    events.Reload()
    logged = lines_of(folder)
    for tag, value in (
        ("loss", lambda line: line["loss"]),
        ("terms/kl_divergence", lambda line: line["terms"]["kl_divergence"]),
        ("learning_rates/image", lambda line: line["learning_rates"]["image"]),
    ):
        found = {event.step: event.value for event in events.Scalars(tag)}
        expected = {line["step"]: pytest.approx(value(line), rel=1e-6) for line in logged}
        assert found == expected, tag


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_created(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.train.processes.find_spec", lambda name: None)
    with pytest.raises(
        RunError, match=r"train\.trackers: mlflow is not installed; run `pip install"
    ):
        run(recipe(train={"trackers": ["mlflow"]}))
    assert not (tmp_path / "small").exists()


def test_alignment_comes_first_and_the_other_terms_join(recipe: Recipe) -> None:
    lines = lines_of(run(recipe(train={"alignment_first_steps": 3}), stages=STAGES).path)
    alone = [set(line["terms"]) == {"embedding_alignment"} for line in lines]
    assert alone == [True] * 3 + [False] * 5


def test_a_locked_tower_stays_as_it_was(recipe: Recipe, weights: Callable[[Path], Weights]) -> None:
    start = run(recipe("start", train={"steps": 1, "learning_rate": 1e-12}), stages=STAGES).path
    locked = run(recipe("locked", train={"freeze_image_steps": 8}), stages=STAGES).path
    before, after = weights(start), weights(locked)
    for name, values in before.items():
        if name.startswith("image_tower.backbone."):
            assert torch.allclose(values, after[name], atol=1e-9), name
    moved = ("image_tower.projection.layers.0.weight", "text_tower.projection.layers.0.weight")
    assert not any(torch.allclose(before[name], after[name], atol=1e-6) for name in moved)


def test_the_moving_average_is_what_a_run_gives_and_it_resumes_exactly(
    recipe: Recipe, weights: Callable[[Path], Weights], assert_equal_weights: Callable[..., None]
) -> None:
    plain = run(recipe("plain"), stages=STAGES).path
    whole = run(recipe("whole", train={"ema_decay": 0.9}), stages=STAGES).path
    name = "text_tower.projection.layers.0.weight"
    assert not torch.allclose(weights(plain)[name], weights(whole)[name])

    path = recipe("halves", train={"ema_decay": 0.9})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.train.processes.Interrupts.anywhere", lambda *_: True)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt, match="stopped at step"):
                run(path, stages=STAGES)
    halves = path.with_suffix("")
    assert load_student(student_folder(halves, "last")).width > 0
    run(path, stages=STAGES)
    assert_equal_weights(whole, halves)


@pytest.mark.parametrize(
    "losses",
    [
        {"kl_divergence": 0, "embedding_alignment": 1, "corpus_kl": {"weight": 1, "samples": 50}},
        {"kl_divergence": 0, "embedding_alignment": 0, "prompt_kl": {"weight": 1, "bank_size": 20}},
        {"kl_divergence": 1, "embedding_alignment": {"weight": 1, "mask_ratio": 0.5}},
        {"kl_divergence": 0, "embedding_alignment": 0, "relational": 1, "soft_target": 1},
        {"kl_divergence": 0, "embedding_alignment": 0, "sigmoid_contrastive": 1},
        "default",
        "clip_kd",
        "tinyclip",
        "mobileclip",
        "dime",
    ],
    ids=str,
)
def test_every_loss_trains(recipe: Recipe, losses: dict[str, Any] | str) -> None:
    path = recipe(losses=losses, train={"steps": 3})
    lines = lines_of(run(path, stages=STAGES).path)
    assert len(lines) == 3
    validated = json.loads((path.with_suffix("") / "metrics.jsonl").read_text().splitlines()[-1])
    # What is held out of training has no true partner in its corpus.
    expected = lines[-1]["terms"].keys() - {"corpus_contrastive"}
    assert validated["validation"]["terms"].keys() == expected


def test_a_bank_of_prompts_comes_from_a_file(recipe: Recipe, tmp_path: Path) -> None:
    bank = tmp_path / "prompts.txt"
    bank.write_text("a red circle\n\na blue square\na green star\n")
    losses = {
        "kl_divergence": 0,
        "embedding_alignment": 0,
        "prompt_kl": {"weight": 1, "bank": str(bank)},
    }
    cached = lines_of(run(recipe("cached", losses=losses), stages=STAGES).path)
    live = lines_of(
        run(recipe("live", losses=losses, train={"teacher": "live"}), stages=("train",)).path
    )
    for ours, theirs in zip(cached, live, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-2)


def test_switches_of_time_and_memory_train_the_same_student(
    recipe: Recipe, weights: Callable[[Path], Weights]
) -> None:
    plain = run(recipe("plain"), stages=STAGES).path
    switched = {"gradient_checkpointing": True, "channels_last": True}
    other = run(recipe("switched", train=switched), stages=STAGES).path
    assert_close(weights(other), weights(plain))


@pytest.mark.slow
def test_two_processes_with_all_options_train_the_same_student_as_one(
    recipe: Recipe,
    clip_distill: Callable[..., subprocess.CompletedProcess[str]],
    weights: Callable[[Path], Weights],
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {
        "losses": {
            "embedding_alignment": {"weight": 5, "mask_ratio": 0.5},
            "corpus_kl": {"weight": 1, "samples": 50},
            "prompt_kl": {"weight": 1, "bank_size": 20},
            "interactive_contrastive": 1,
            "corpus_contrastive": {"weight": 1, "samples": 50},
        },
        "train": {
            "micro_batch_size": 3,
            "tile_rows": 5,
            "alignment_first_steps": 1,
            "freeze_image_steps": 3,
            "ema_decay": 0.9,
            "validate_every": 100,
        },
    }
    one = run(recipe("one", **options), stages=STAGES).path
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    result = clip_distill("train", recipe("two", **options), launcher=launcher)
    assert result.returncode == 0, result.stderr
    assert "2 process(es)" in result.stderr
    assert_close(weights(tmp_path / "two"), weights(one))


def test_batch_norm_gets_more_than_one_picture_of_every_micro_batch(recipe: Recipe) -> None:
    # At this size the last norm sees a single place of each picture.
    image = {"backbone": "test_resnet", "pretrained": False, "image_size": 32}
    train = {"steps": 2, "micro_batch_size": 5, "validate_every": 100}
    run(recipe("cut", student={"image": image}, train=train), stages=STAGES)
    path = recipe("alone", student={"image": image}, train={**train, "micro_batch_size": 1})
    with pytest.raises(RecipeError, match=r"train\.micro_batch_size: .* one has a single"):
        run(path, stages=STAGES)


def test_projections_start_near_the_teacher(recipe: Recipe) -> None:
    """Before any training the student's embeddings are closer to the teacher's than at random."""
    short = {"steps": 1, "learning_rate": 1e-9}
    found = {}
    for start in ("random", "ridge"):
        path = recipe(start, student={"projection_start": start}, train=short)
        (line,) = lines_of(run(path, stages=STAGES).path)
        found[start] = line["teacher_student_cosine"]
    for tower in ("image", "text"):
        assert abs(found["random"][tower]) < 0.5
        assert found["ridge"][tower] > 0.6
