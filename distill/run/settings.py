"""Settings of training, filled from the recipe's fields of the same names."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from distill.recipe.base import Section

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def fill(kind: type[Settings], section: Section, **others: Any) -> Settings:
    """Return a dataclass whose fields are those of a section by the same names.

    Args:
        kind: The dataclass.
        section: The section of the recipe.
        others: Fields that the section lacks, or whose value there is not the one to use.
    """
    known = type(section).model_fields
    taken = {
        field.name: getattr(section, field.name)
        for field in fields(kind)
        if field.name in known and field.name not in others
    }
    return kind(**taken, **others)
