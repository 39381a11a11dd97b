"""How a recipe says that towers start and learn, and the contradictions that are refused."""

from typing import Any

import pytest

from distill.recipe.config import RunConfig
from distill.recipe.load import resolve
from export.runtime.errors import RecipeError


def config(**values: Any) -> RunConfig:
    return resolve({"teacher": {"model": "some/teacher"}, **values}, where="r.yaml")


def mistakes(**values: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        config(**values)
    return str(caught.value).splitlines()


def test_everything_is_off_by_default() -> None:
    train, student = config().train, config().student
    assert (train.image_learning_rate, train.text_learning_rate, train.layer_decay) == (None,) * 3
    assert (train.freeze_image_steps, train.freeze_text_steps, train.ema_decay) == (0, 0, None)
    assert (train.gradient_checkpointing, train.compile, train.channels_last) == (
        False,
        False,
        None,
    )
    assert (student.projection_start, student.text.keep_every) == ("random", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_decay", 0),
        ("layer_decay", 1.1),
        ("ema_decay", 1.0),
        ("ema_decay", 0),
        ("image_learning_rate", -1e-3),
        ("freeze_text_steps", -1),
        ("compile", 1),
        ("channels_last", "auto"),
    ],
)
def test_values_out_of_range_are_mistakes(field: str, value: Any) -> None:
    (line,) = mistakes(train={field: value})
    assert line.startswith(f"r.yaml: train.{field}: found ")


def test_layers_are_kept_from_a_model_but_not_from_a_config() -> None:
    assert config(student={"text": {"keep_every": 3}}).student.text.keep_every == 3
    assert mistakes(student={"text": {"keep_every": 0}})[0].startswith("r.yaml: student.text.keep_")
    own = {"config": {"num_hidden_layers": 4}, "pretrained": False, "keep_every": 2}
    (line,) = mistakes(student={"text": own})
    assert line == (
        "r.yaml: student.text.keep_every: found 2 together with a config; set its "
        "num_hidden_layers instead"
    )


def test_a_ridge_needs_a_cached_teacher_and_linear_projections() -> None:
    ridge = {"projection_start": "ridge"}
    assert config(student=ridge).student.projection_samples == 4096
    (line,) = mistakes(student=ridge, losses="clip_kd", train={"teacher": "live"})
    assert line.startswith("r.yaml: student.projection_start: ridge needs the teacher's cache")
    (line,) = mistakes(student={**ridge, "start": "earlier"})
    assert line.startswith("r.yaml: student.projection_start: ridge would undo")
    (line,) = mistakes(student={**ridge, "image": {"projection": "mlp"}})
    assert line == (
        "r.yaml: student.image.projection: found 'mlp', but projection_start: ridge needs linear"
    )
