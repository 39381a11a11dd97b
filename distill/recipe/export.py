"""The section of a recipe on its bundle."""

from typing import Annotated

from pydantic import BeforeValidator, Field, Strict

from distill.recipe.base import Section, later, whole
from distill.recipe.labels import Lines, Templates

Opset = Annotated[int, Strict(), Field(ge=18, le=23), BeforeValidator(whole)]
Tolerance = Annotated[float, Strict(), Field(gt=0, le=0.1)]


class ExportSection(Section):
    """The bundle that leaves the house."""

    labels: Annotated[Lines, later(None)] = None
    """Labels that the bundle classifies with, given as data.labels is; null: data.labels."""
    templates: Templates | None = None
    """Prompts with {} for the label; null: data.templates, or the first evaluation set's."""
    opset: Opset = 18
    """ONNX operator set."""
    tolerance: Tolerance = 1e-4
    """Largest difference from torch in any number of an embedding."""
