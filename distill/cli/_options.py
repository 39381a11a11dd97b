"""The options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Checkpoint(StrEnum):
    """Which student of a run."""

    LAST = "last"
    BEST = "best"


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file with the recipe.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Override a value of the recipe, e.g. train.batch_size=64. Repeatable.",
    ),
]
Which = Annotated[Checkpoint, typer.Option(help="The last student, or the best one.")]
TeacherName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="hf:NAME_OR_FOLDER, as a bare name is; openai:, open_clip:, student:.",
    ),
]
StudentName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A timm backbone, or the folder of a dual encoder."),
]
DataPath = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="A table, a folder with one, a folder of classes or of pictures, or tars.",
    ),
]
LabelFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="What to tell apart, one label a line; makes a student of images alone.",
    ),
]
