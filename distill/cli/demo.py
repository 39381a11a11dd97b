"""The command that shows everything on a small example."""

from pathlib import Path
from typing import Annotated

import typer

from distill.cli._errors import needs_train_extra
from distill.cli._options import Overrides


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run folder to write.")] = Path(
        "runs/demo"
    ),
    overrides: Overrides = None,
) -> None:
    """Distil, evaluate and export offline on generated pictures, in a few minutes."""
    with needs_train_extra("demo"):
        from distill.demo.run import run_demo
    run_demo(out, overrides=overrides or ())
