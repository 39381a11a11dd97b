"""The data sections of a recipe: sources of pictures, and the sets to measure on."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from distill.config_base import (
    Count,
    Natural,
    Positive,
    Section,
    Share,
    Text,
    as_tuple,
    by_kind,
    by_type,
    one_or_many,
    whole,
)
from distill.config_shards import ShardsSource
from export.runtime.errors import DataError

PixelSize = Annotated[int, Strict(), Field(ge=16, le=1024), BeforeValidator(whole)]
Template = Annotated[str, Strict(), Field(pattern=r"\{\}")]
Templates = Annotated[tuple[Template, ...], Field(min_length=1)]
Lines = Annotated[
    tuple[Text, ...] | Text | None,
    by_type(
        "a list, or the name of a text file with one entry a line",
        {list: tuple[Text, ...], tuple: tuple[Text, ...], str: Text},
    ),
]
TemplateLines = Annotated[
    tuple[Template, ...] | Text | None,
    by_type(
        "a list of templates, or the name of a text file with one template a line",
        {list: Templates, tuple: Templates, str: Text},
    ),
]


class TableSource(Section):
    """A CSV, TSV or Parquet file: one row a picture and caption, several rows make one sample."""

    kind: Literal["table"] = "table"
    """A CSV, TSV or Parquet file."""
    path: Text
    """The file; pictures are looked for beside it, then in images/ or Images/ beside it."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    image_column: Text = "image"
    """Column with the picture's file name."""
    caption_column: Text | None = "caption"
    """Column with the caption, empty for a picture without one; null: no picture has a caption."""
    label_column: Text | None = "label"
    """Column with the class, used where the table has it; null: pictures have no class."""
    image_root: Text | None = None
    """Folder that the file names start from; null: beside the table."""


class FolderSource(Section):
    """A folder with one folder of pictures for each class."""

    kind: Literal["folder"] = "folder"
    """A folder with one folder of pictures for each class."""
    path: Text
    """The folder; the names of the folders in it are the classes."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    templates: Templates = ("a photo of a {}.",)
    """Captions of a picture; {} stands for the name of its class."""


class ScenesSource(Section):
    """Procedural pictures of coloured shapes, rendered when they are first asked for."""

    kind: Literal["scenes"] = "scenes"
    """Procedural pictures of coloured shapes with captions."""
    path: Text | None = None
    """Folder to render into; null: inside the run folder."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    count: Count = 4000
    """Number of pictures."""
    seed: Natural = 0
    """What the pictures follow from."""
    image_size: PixelSize = 48
    """Height and width in pixels."""
    split: Literal["train", "held_out", "all"] = "train"
    """Which colour-shape pairs: those to train on, those that training never shows, or all."""
    captioned: Natural | None = None
    """How many of the pictures have a caption; null: all."""


SOURCES = (TableSource, FolderSource, ScenesSource, ShardsSource)
Source = Annotated[
    TableSource | FolderSource | ScenesSource | ShardsSource,
    Field(discriminator="kind"),
    by_kind(*SOURCES),
]
Sources = Annotated[Source | tuple[Source, ...], one_or_many(Source, "a source")]


class DataSection(Section):
    """What is trained on, and what is looked at in between."""

    train: Sources = ScenesSource()
    """The pictures to learn from: one source, or a list of them."""
    validation: Source | None = None
    """Where the loss terms are computed during training; null: see `evaluate`."""
    max_skipped: Share = 0.01
    """Largest share of unreadable pictures and broken rows that is skipped without an error."""
    workers: Natural = 2
    """Processes that read pictures; 0: none beside the main process."""
    lanes: Count | None = None
    """How many shards are read side by side; null: 64, or fewer where they do not fit."""


class EvaluationEntry(Section):
    """A set that teacher and student are both measured on."""

    name: Text
    """What the report calls the set; no two alike."""
    task: Literal["zero_shot", "retrieval"]
    """Classification by prompts, or finding the picture of a caption and the reverse."""
    data: Source
    """The pictures, with classes for zero_shot and captions for retrieval."""
    templates: TemplateLines = None
    """Prompts with {} for the class, or a text file with one a line; null: a photo of a {}."""
    classes: Lines = None
    """The candidates, or a text file with one a line; null: the labels of the data."""
    samples: Count | None = None
    """How many pictures are measured; null: all."""

    @property
    def template_list(self) -> tuple[str, ...] | None:
        """The templates, read from their file where one is named."""
        templates = _entries(self.templates, field=f"evaluate {self.name}: templates")
        for template in templates or ():
            if "{}" not in template:
                raise DataError(
                    f"{self.templates}: {template!r} is no template; each line needs a {{}} where "
                    "the name of the class goes"
                )
        return templates

    @property
    def class_list(self) -> tuple[str, ...] | None:
        """The names of the classes, read from their file where one is named."""
        return _entries(self.classes, field=f"evaluate {self.name}: classes")


Evaluations = Annotated[
    EvaluationEntry | tuple[EvaluationEntry, ...], one_or_many(EvaluationEntry, "a set")
]


def _entries(given: tuple[str, ...] | str | None, *, field: str) -> tuple[str, ...] | None:
    return read_lines(Path(given), field=field) if isinstance(given, str) else given


def read_lines(path: Path, *, field: str) -> tuple[str, ...]:
    """Return the lines of a text file that are not empty.

    Raises:
        DataError: the file cannot be read, or has none; the message names ``field``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{field}: {path} cannot be read as a text file; give a file with one entry a line"
        ) from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise DataError(f"{field}: {path} is empty; give a file with one entry a line")
    return lines


__all__ = [
    "DataSection",
    "EvaluationEntry",
    "Evaluations",
    "FolderSource",
    "ScenesSource",
    "ShardsSource",
    "Source",
    "Sources",
    "TableSource",
    "Templates",
    "as_tuple",
]
