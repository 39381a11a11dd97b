"""Settings of training, filled from the recipe's fields of the same names."""

from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar

from distill.recipe.base import Section

_Settings = TypeVar("_Settings")


def fill_settings(kind: Callable[..., _Settings], section: Section, **others: Any) -> _Settings:
    """Return settings, filled from the fields of a section with the same names.

    Args:
        kind: The class of the settings, a dataclass.
        section: The section of the recipe.
        others: Fields that the section lacks, or whose value in the section is not used.
    """
    shared = signature(kind).parameters.keys() & type(section).model_fields.keys()
    taken = {name: getattr(section, name) for name in shared if name not in others}
    return kind(**taken, **others)
