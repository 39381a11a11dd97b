"""The section of a recipe on its bundle."""

from typing import Annotated

from pydantic import BeforeValidator, Field, Strict

from distill.recipe._labels import Lines, Templates
from distill.recipe.base import Section, later, whole
from distill.recipe.stages import IN_EXPORT, Changes

_Opset = Annotated[int, Strict(), Field(ge=18, le=23), BeforeValidator(whole)]
_Tolerance = Annotated[float, Strict(), Field(gt=0, le=0.1)]


class ExportSection(Section):
    """The bundle to export."""

    labels: Annotated[Lines, later(None), Changes("export", resolved=True)] = None
    """Labels that the bundle classifies with, given as data.labels is; null: data.labels."""
    templates: Annotated[Templates | None, IN_EXPORT] = None
    """Prompts with {} for the label; null: data.templates, or the first evaluation set's."""
    opset: Annotated[_Opset, IN_EXPORT] = 18
    """ONNX operator set."""
    tolerance: Annotated[_Tolerance, IN_EXPORT] = 1e-4
    """Largest difference from torch in any number of an embedding."""
