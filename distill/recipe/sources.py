"""The data sections of a recipe: sources of pictures, and the sets to measure on."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from distill.data.tables.schema import parse_schema
from distill.labels.names import plain_template, read_labels, read_lines, read_templates
from distill.recipe.base import (
    Count,
    Natural,
    Positive,
    Section,
    Share,
    Text,
    as_tuple,
    by_kind,
    by_type,
    later,
    one_or_many,
    whole,
)
from distill.recipe.shards import ShardsSource
from export.runtime.decode import MAX_PIXELS

PixelSize = Annotated[int, Strict(), Field(ge=16, le=1024), BeforeValidator(whole)]
PixelLimit = Annotated[int, Strict(), Field(ge=1, le=MAX_PIXELS), BeforeValidator(whole)]
Template = Annotated[str, Strict(), Field(pattern=r"\{c?\}"), AfterValidator(plain_template)]
Templates = Annotated[tuple[Template, ...], Field(min_length=1)]
Lines = Annotated[
    tuple[Text, ...] | Text | None,
    by_type(
        "a list, imagenet, or the name of a text file, a JSON list or a folder of classes",
        {list: tuple[Text, ...], tuple: tuple[Text, ...], str: Text},
    ),
]
TemplateLines = Annotated[
    tuple[Template, ...] | Text | None,
    by_type(
        "a list of templates, openai, or the name of a text file with one template a line",
        {list: Templates, tuple: Templates, str: Text},
    ),
]


def _schema(value: str) -> str:
    parse_schema(value)
    return value


class TableSource(Section):
    """A file of rows: one row a picture and caption, several rows make one sample."""

    kind: Literal["table"] = "table"
    """CSV, TSV, Parquet, JSON lines, or the JSON of Karpathy's splits or of COCO's captions."""
    path: Text
    """The file; pictures are looked for beside it, then in images/ or Images/ beside it."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    columns: Annotated[tuple[Text, ...] | None, Field(min_length=1), later(None)] = None
    """Names of the columns of a CSV or TSV without a header; null: its first line names them."""
    image_column: Text = "image"
    """Column with the picture's file name; filepath where there is no image."""
    caption_column: Text | None = "caption"
    """Column with the caption, title where there is none; null: no picture has a caption."""
    label_column: Text | None = "label"
    """Column with the class, used where the table has it; null: pictures have no class."""
    id_column: Annotated[Text | None, later(None)] = None
    """Column by which pictures are held out, those of one id together; null: the file name."""
    split: Annotated[Text | None, later(None)] = None
    """Splits to read of a file with Karpathy's, such as train or train+restval; null: all."""
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
    classes: Annotated[Text | None, later(None)] = None
    """JSON map of folder to class, or a label set in the folders' order; null: their names."""
    templates: Templates = ("a photo of a {}.",)
    """Captions of a picture; {} stands for the name of its class."""


class ImagesSource(Section):
    """A folder of pictures that nobody captioned or labelled."""

    kind: Literal["images"] = "images"
    """A folder of pictures without captions, with folders inside or not."""
    path: Text
    """The folder."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""


class Base64Source(Section):
    """A text file of lines with tabs, one field of which is a picture in base64, as EasyNLP has."""

    kind: Literal["base64"] = "base64"
    """A TSV without a header, the pictures in it in base64."""
    path: Text
    """The file."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    input_schema: Annotated[str, Strict(), AfterValidator(_schema)] = "text:str:1,image:str:1"
    """The columns in their order, each name:type:length; image:str:1 alone for pictures only."""
    image_column: Text = "image"
    """Column with the picture."""
    caption_column: Text | None = "text"
    """Column with the caption, used where there is a text; null: no picture has a caption."""
    label_column: Text | None = "label"
    """Column with the class, used where there is a label; null: pictures have no class."""


class HubSource(Section):
    """A data set of the Hugging Face hub, or a local copy of one."""

    kind: Literal["hub"] = "hub"
    """A data set of the Hugging Face hub, or a local copy of one."""
    path: Text
    """Name on the hub, a folder by save_to_disk, or a folder of Parquet or Arrow files."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    config_name: Text | None = None
    """Which of the data set's configurations; null: the only one, or the default."""
    split: Text | None = None
    """Which of its splits, such as train+validation; null: train, or a local copy's only one."""
    image_column: Text = "image"
    """Column with the picture."""
    caption_column: Text | None = "caption"
    """Column with the caption or a list of them; null: no picture has a caption."""
    label_column: Text | None = "label"
    """Column with the class, used where there is one; null: pictures have no class."""


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


SOURCES = (
    TableSource,
    FolderSource,
    ImagesSource,
    Base64Source,
    HubSource,
    ScenesSource,
    ShardsSource,
)
Source = Annotated[
    TableSource
    | FolderSource
    | ImagesSource
    | Base64Source
    | HubSource
    | ScenesSource
    | ShardsSource,
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
    labels: Lines = None
    """What to tell apart: a list, a text file, JSON list or folder of them; null: nothing."""
    templates: TemplateLines = None
    """Prompts with {} for a label, a text file of them, or openai; null: a photo of a {}."""
    max_skipped: Share = 0.01
    """Largest share of unreadable pictures and broken rows that is skipped without an error."""
    max_pixels: PixelLimit = MAX_PIXELS
    """A picture that says it has more is skipped before its pixels take memory."""
    workers: Natural = 2
    """Processes that read pictures; 0: none beside the main process."""
    lanes: Count | None = None
    """How many shards are read side by side; null: 64, or fewer where they do not fit."""


class EvaluationEntry(Section):
    """A set that teacher and student are both measured on."""

    name: Text
    """What the report calls the set; no two alike."""
    task: Literal["zero_shot", "retrieval", "agreement"]
    """Classes by prompts, captions and pictures, or how often student and teacher agree."""
    data: Source
    """The pictures, with classes for zero_shot, with captions for retrieval, any for agreement."""
    templates: TemplateLines = None
    """Prompts with {} for the class, a text file of them, or openai; null: data.templates."""
    classes: Lines = None
    """The candidates, a file or folder of them, or imagenet; null: those of data or data.labels."""
    samples: Count | None = None
    """How many pictures are measured; null: all."""

    @property
    def template_list(self) -> tuple[str, ...] | None:
        """The templates, read where they are named."""
        if isinstance(self.templates, str):
            return read_templates(self.templates, field=f"evaluate {self.name}: templates")
        return self.templates

    @property
    def class_list(self) -> tuple[str, ...] | None:
        """The names of the classes, read where they are named."""
        if isinstance(self.classes, str):
            return read_labels(self.classes, field=f"evaluate {self.name}: classes")
        return self.classes


Evaluations = Annotated[
    EvaluationEntry | tuple[EvaluationEntry, ...], one_or_many(EvaluationEntry, "a set")
]


__all__ = [
    "Base64Source",
    "DataSection",
    "EvaluationEntry",
    "Evaluations",
    "FolderSource",
    "HubSource",
    "ImagesSource",
    "ScenesSource",
    "ShardsSource",
    "Source",
    "Sources",
    "TableSource",
    "Templates",
    "as_tuple",
    "read_lines",
]
