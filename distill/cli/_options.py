"""The arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from distill.run.names import Checkpoint

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file with the recipe.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]
RunFolderToWrite = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The run folder to write.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Override a value of the recipe, e.g. train.batch_size=64. Repeatable.",
    ),
]
WhichCheckpoint = Annotated[Checkpoint, typer.Option(help="Use the last student or the best one.")]
TeacherName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="KIND:NAME, such as openai:ViT-L/14; the kind of a bare name is recognised.",
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
        help="A table or its folder, a folder of classes or of pictures, or tars.",
    ),
]
LabelFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Labels to tell apart, one per line; the student gets only an image tower.",
    ),
]
