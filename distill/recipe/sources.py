"""The sections of a recipe on sources: one for each kind, and the list of them all."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from distill.data.tables.schema import parse_schema
from distill.recipe._labels import Templates
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

_PixelSize = Annotated[int, Strict(), Field(ge=16, le=1024), BeforeValidator(whole)]


def _schema(value: str) -> str:
    parse_schema(value)
    return value


class SourceRow(Section):
    """A kind of source: its fields, and the function that opens it."""

    opener: ClassVar[str]
    """The function that opens it, as ``module:function``; see `arguments`."""
    preview: ClassVar[str | None] = None
    """The function that draws unrendered pictures in memory; None for pictures that exist."""
    has_captions: ClassVar[bool] = True
    """Whether its pictures may have captions."""
    captions_name_classes: ClassVar[bool] = False
    """Whether its captions are made from the names of its classes, and say nothing else."""

    def arguments(self, *, output: Path, index_folder: Path | None) -> dict[str, Any]:
        """Return the opener's arguments by name: all fields but ``kind`` and ``weight``.

        Args:
            output: The run folder, for pictures that are rendered.
            index_folder: A folder for indices that cannot be written next to the data.
        """
        del output, index_folder
        return {name: getattr(self, name) for name in self.opened_fields()}

    @classmethod
    def opened_fields(cls) -> tuple[str, ...]:
        """Return the names of the fields that the opener takes."""
        return tuple(name for name in cls.model_fields if name not in {"kind", "weight"})

    def rendered(self, _output: Path, /) -> Path | None:
        """Return the folder that its pictures are rendered into; None for pictures that exist."""
        return None

    @property
    def renders_inside(self) -> bool:
        """Whether its pictures are rendered into the run folder."""
        return False


class TableSection(SourceRow):
    """A file of rows with a picture and a caption each; rows of one picture make one sample."""

    opener = "distill.data.tables.table:open_table"

    kind: Literal["table"] = "table"
    """CSV, TSV, Parquet, JSON lines, or the JSON of Karpathy's splits or of COCO's captions."""
    path: Text
    """The file; pictures are looked for next to it, then in images/ or Images/ next to it."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    columns: Annotated[tuple[Text, ...] | None, Field(min_length=1), later(None)] = None
    """Names of the columns of a CSV or TSV without a header; null: its first line names them."""
    image_column: Text = "image"
    """Column with the picture's file name; filepath if this column is missing."""
    caption_column: Text | None = "caption"
    """Column with the caption; title if this column is missing; null: no picture has a caption."""
    label_column: Text | None = "label"
    """Column with the class, if the table has it; null: pictures have no class."""
    id_column: Annotated[Text | None, later(None)] = None
    """Column with an id; pictures of one id are held out together. null: the file name."""
    split: Annotated[Text | None, later(None)] = None
    """Karpathy's splits to read, such as train or train+restval; null: all."""
    image_root: Text | None = None
    """Folder that the file names start from; null: that of the table."""


class FolderSection(SourceRow):
    """A folder with one folder of pictures for each class."""

    opener = "distill.data.folder:open_folder"
    captions_name_classes = True

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


class ImagesSection(SourceRow):
    """A folder of pictures without captions and labels."""

    opener = "distill.data.images:open_images"
    has_captions = False

    kind: Literal["images"] = "images"
    """A folder of pictures without captions, with or without subfolders."""
    path: Text
    """The folder."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""


class Base64Section(SourceRow):
    """A text file with tab-separated fields, one of them a picture in base64, as in EasyNLP."""

    opener = "distill.data.tables.base64_lines:open_base64"

    kind: Literal["base64"] = "base64"
    """A TSV without a header that holds its pictures in base64."""
    path: Text
    """The file."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    input_schema: Annotated[str, Strict(), AfterValidator(_schema)] = "text:str:1,image:str:1"
    """The columns in their order, as name:type:length; image:str:1 alone for pictures only."""
    image_column: Text = "image"
    """Column with the picture."""
    caption_column: Text | None = "text"
    """Column with the caption, if the schema has it; null: no picture has a caption."""
    label_column: Text | None = "label"
    """Column with the class, if the schema has it; null: pictures have no class."""


class HubSection(SourceRow):
    """A data set of the Hugging Face hub, or a local copy of one."""

    opener = "distill.data.hub:open_hub"

    kind: Literal["hub"] = "hub"
    """A data set of the Hugging Face hub, or a local copy of one."""
    path: Text
    """Name on the hub, a folder written by save_to_disk, or one of Parquet or Arrow files."""
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
    """Column with the class, if there is one; null: pictures have no class."""


class ScenesSection(SourceRow):
    """Procedural pictures of coloured shapes, rendered on first use."""

    opener = "distill.data.scene_source:open_scenes"
    preview: ClassVar[str | None] = "distill.data.scene_source:preview_scenes"

    kind: Literal["scenes"] = "scenes"
    """Procedural pictures of coloured shapes with captions."""
    path: Text | None = None
    """Folder to render into; null: inside the run folder."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    count: Count = 4000
    """Number of pictures."""
    seed: Natural = 0
    """Seed of the pictures."""
    image_size: _PixelSize = 48
    """Height and width in pixels."""
    split: Literal["train", "held_out", "all"] = "train"
    """Pairs of colour and shape: those to train on, those that training never shows, or all."""
    captioned: Natural | None = None
    """How many of the pictures have a caption; null: all."""

    def arguments(self, *, output: Path, index_folder: Path | None) -> dict[str, Any]:
        """Return the opener's arguments, with the folder to render into as the path."""
        arguments = super().arguments(output=output, index_folder=index_folder)
        return {**arguments, "path": self.rendered(output)}

    def rendered(self, output: Path, /) -> Path:
        """Return the folder that the scenes are rendered into."""
        if self.path is not None:
            return Path(self.path)
        parts = [self.split, self.count, f"{self.image_size}px", f"seed{self.seed}"]
        if self.captioned is not None:
            parts.append(f"captioned{self.captioned}")
        return output / "-".join(["scenes", *map(str, parts)])

    @property
    def renders_inside(self) -> bool:
        """Whether the scenes are rendered into the run folder."""
        return self.path is None


class ShardsSection(SourceRow):
    """WebDataset tars: pictures with txt, json or cls members of the same name."""

    opener = "distill.data.shards.source:open_shards"

    kind: Literal["shards"] = "shards"
    """WebDataset tars."""
    path: Text
    """A tar, a folder of tars, or a pattern ({000..099}, *); local, or an fsspec address."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    caption_key: Text | None = None
    """Key of a json member with a caption or a list; null: captions, else txt, else caption."""
    classnames: Text | None = None
    """File with one class per line, to name the numbers of cls members; null: classnames.txt."""

    def arguments(self, *, output: Path, index_folder: Path | None) -> dict[str, Any]:
        """Return the opener's arguments, with the folder for indices."""
        arguments = super().arguments(output=output, index_folder=index_folder)
        return {**arguments, "index_folder": index_folder}


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
