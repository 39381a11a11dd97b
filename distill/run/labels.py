"""The labels and templates that a recipe names."""

from distill.labels.label_set import LabelSet
from distill.labels.names import name_labels
from distill.labels.templates import DEFAULT_TEMPLATES, label_templates
from distill.recipe.data import DataSection


def recipe_labels(data: DataSection) -> LabelSet | None:
    """Return the labels that loss, evaluation and bundle share, None if the recipe has none.

    Raises:
        DataError: Labels or templates cannot be read or used.
    """
    if data.labels is None:
        return None
    templates = recipe_templates(data) or DEFAULT_TEMPLATES
    return LabelSet(name_labels(data.labels, field="data.labels"), templates)


def recipe_templates(data: DataSection) -> tuple[str, ...] | None:
    """Return the templates of ``data.templates``, None if the recipe has none.

    Raises:
        DataError: They cannot be read, or one does not have exactly one place for the label.
    """
    if data.templates is None:
        return None
    return label_templates(data.templates, field="data.templates")
