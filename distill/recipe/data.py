"""The section of a recipe on its data."""

from typing import Annotated

from pydantic import BeforeValidator, Field, Strict

from distill.recipe._labels import Lines, TemplateLines
from distill.recipe.base import Count, Fraction, Natural, Section, later, whole
from distill.recipe.sources import ScenesSection, SourceField, SourcesField
from distill.recipe.stages import IN_CACHE, IN_NO_DIGEST, IN_TRAIN, Changes
from export.runtime.limits import MAX_PIXELS

_PixelLimit = Annotated[int, Strict(), Field(ge=1, le=MAX_PIXELS), BeforeValidator(whole)]


class DataSection(Section):
    """The data to train on and to validate with."""

    train: Annotated[SourcesField, Changes("cache", resolved=True)] = ScenesSection()
    """The pictures to learn from: one source, or a list of them."""
    validation: Annotated[SourceField | None, Changes("evaluate", resolved=True)] = None
    """Where the loss terms are computed during training; null: see `evaluate`."""
    labels: Annotated[Lines, Changes("train", resolved=True)] = None
    """Labels to tell apart: a list, a text file, a JSON list or a folder of them; null: none."""
    templates: Annotated[TemplateLines, Changes("train", resolved=True)] = None
    """Prompts with {} for a label, a text file of them, or openai; null: a photo of a {}."""
    max_skipped: Annotated[Fraction, IN_NO_DIGEST] = 0.01
    """Largest share of unreadable pictures and broken rows that is skipped without an error."""
    max_pixels: Annotated[_PixelLimit, IN_CACHE, later(MAX_PIXELS)] = MAX_PIXELS
    """Pictures with more pixels are skipped by their header, before they take memory."""
    workers: Annotated[Natural, IN_NO_DIGEST] = 2
    """Processes that read pictures; 0: only the main process."""
    lanes: Annotated[Count | None, IN_TRAIN, later(None)] = None
    """How many shards are read side by side; null: 64, or fewer if they do not fit."""
