"""The sections of a recipe on sources: one for each kind, and the list of them all."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from distill.data.tables.schema import parse_schema
from distill.recipe.base import (
    Count,
    Natural,
    Positive,
    Section,
    Text,
    by_kind,
    later,
    one_or_many,
    whole,
)
from distill.recipe.labels import Templates

PixelSize = Annotated[int, Strict(), Field(ge=16, le=1024), BeforeValidator(whole)]


def _schema(value: str) -> str:
    parse_schema(value)
    return value


class TableSection(Section):
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


class FolderSection(Section):
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


class ImagesSection(Section):
    """A folder of pictures that nobody captioned or labelled."""

    kind: Literal["images"] = "images"
    """A folder of pictures without captions, with folders inside or not."""
    path: Text
    """The folder."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""


class Base64Section(Section):
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


class HubSection(Section):
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


class ScenesSection(Section):
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


class ShardsSection(Section):
    """WebDataset tars: pictures with txt, json or cls members of the same name."""

    kind: Literal["shards"] = "shards"
    """WebDataset tars."""
    path: Text
    """A tar, a folder of tars, or a pattern ({000..099}, *); local, or an address of fsspec."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    caption_key: Text | None = None
    """Key of a json member with a caption or a list; null: captions, else txt, else caption."""
    classnames: Text | None = None
    """File with a class a line, for the numbers of cls members; null: classnames.txt near them."""


# Every kind of source, in the order in which messages list them.
SourceSection = (
    TableSection
    | FolderSection
    | ImagesSection
    | Base64Section
    | HubSection
    | ScenesSection
    | ShardsSection
)
SOURCES = get_args(SourceSection)
SourceField = Annotated[SourceSection, Field(discriminator="kind"), by_kind(*SOURCES)]
SourcesField = Annotated[
    SourceField | tuple[SourceField, ...], one_or_many(SourceField, "a source")
]
