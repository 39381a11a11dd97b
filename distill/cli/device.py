"""The commands that use a bundle, as a device does: without torch."""

from pathlib import Path
from typing import Annotated

import typer

from distill.cli._errors import say
from distill.cli._options import BundlePath
from export.runtime.errors import DataError


def classify(
    bundle: BundlePath,
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture.")],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B|FILE",
            help="Labels, or a file with one per line; the bundle's own by default.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels to show, best first.")] = 5,
) -> None:
    """Show which labels fit a picture, using a bundle; needs no torch."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distill.labels.names import listed_labels

    names = None if labels is None else listed_labels(labels, field="--labels")
    from export.runtime import EdgeModel

    ranking = EdgeModel.load(bundle).classify(picture, names)
    table = Table(box=None, pad_edge=False)
    table.add_column("label", overflow="fold")
    table.add_column("probability", justify="right")
    for label, probability in ranking[:top]:
        table.add_row(Text(label), f"{probability:.1%}")
    Console().print(table)


def embed(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(metavar="FILE.npy", help="Where to write the embeddings.")],
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PICTURES", help="Pictures, folders of pictures, or a TSV with base64."
        ),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="NAME:TYPE:N,…", help="Columns of the TSV, e.g. image:str:1."),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Embed this file's lines as texts instead.")
    ] = None,
) -> None:
    """Embed pictures or texts with a bundle, and list what each row is; needs no torch."""
    if (texts is None) == (not pictures):
        raise DataError("embed: give pictures, or --texts with a file of texts, and not both")
    from distill.cli._embed import embed_places
    from distill.cli._embed_lines import embed_texts
    from distill.cli._embedded import check_place, write_embedded
    from export.runtime import EdgeModel

    check_place(out)
    try:
        if texts is None:
            embedded = embed_places(bundle, pictures or (), schema=schema)
        else:
            embedded = embed_texts(EdgeModel.load(bundle), texts)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; nothing was written to {out}") from error
    names = write_embedded(embedded, out)
    for reason in embedded.unreadable:
        say(f"skipped {reason}")
    (rows, width), what = embedded.features.shape, embedded.kind
    skipped = f"; {len(embedded.unreadable)} skipped" if embedded.unreadable else ""
    typer.echo(f"{out}: {rows} embeddings of width {width}, their {what} in {names}{skipped}")
