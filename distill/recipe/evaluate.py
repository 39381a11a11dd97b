"""The section of a recipe on the sets that it measures on."""

from typing import Annotated, Literal

from distill.labels.names import read_labels
from distill.labels.templates import read_templates
from distill.recipe._labels import Lines, TemplateLines
from distill.recipe.base import Count, Section, Text, one_or_many
from distill.recipe.sources import SourceField


class EvaluationEntry(Section):
    """A set that teacher and student are both measured on."""

    name: Text
    """Name of the set in the report; each is unique."""
    task: Literal["zero_shot", "retrieval", "agreement"]
    """Classes by prompts, captions and pictures, or how often student and teacher agree."""
    data: SourceField
    """The pictures, with classes for zero_shot, with captions for retrieval, any for agreement."""
    templates: TemplateLines = None
    """Prompts with {} for the class, a text file of them, or openai; null: data.templates."""
    classes: Lines = None
    """The candidates, a file or folder of them, or imagenet; null: those of data or data.labels."""
    samples: Count | None = None
    """How many pictures are measured; null: all."""

    @property
    def template_list(self) -> tuple[str, ...] | None:
        """The templates, read from their file if a name is given."""
        if isinstance(self.templates, str):
            return read_templates(self.templates, field=f"evaluate {self.name}: templates")
        return self.templates

    @property
    def class_list(self) -> tuple[str, ...] | None:
        """The names of the classes, read from their file if a name is given."""
        if isinstance(self.classes, str):
            return read_labels(self.classes, field=f"evaluate {self.name}: classes")
        return self.classes


EvaluationsField = Annotated[
    EvaluationEntry | tuple[EvaluationEntry, ...], one_or_many(EvaluationEntry, "a set")
]
