"""Settings are filled from the fields of a section by name."""

from dataclasses import dataclass

import pytest

from distill.recipe.base import Section
from distill.run.settings import fill_settings


class Fields(Section):
    steps: int | None = None
    decay: float = 0.5
    unused: str = "left out"


@dataclass(frozen=True)
class Settings:
    steps: int
    decay: float
    seed: int = 0


def test_fields_of_the_same_name_are_taken() -> None:
    assert fill_settings(Settings, Fields(steps=3)) == Settings(steps=3, decay=0.5)


def test_given_values_come_first() -> None:
    assert fill_settings(Settings, Fields(), steps=7, seed=1) == Settings(
        steps=7, decay=0.5, seed=1
    )


def test_a_field_without_a_value_is_an_error() -> None:
    class NoSteps(Section):
        decay: float = 0.5

    with pytest.raises(TypeError, match="steps"):
        fill_settings(Settings, NoSteps())
