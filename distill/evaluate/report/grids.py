"""Pictures for the report: those that student and teacher label differently."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from distill.data.sample import Sample, open_image
from export.runtime.errors import DataError

if TYPE_CHECKING:
    from distill.evaluate.evaluation_set import EvaluationSet

# Pixels of a picture's longer side; a page of one file has to stay small.
SIDE = 192
QUALITY = 80


@dataclass(frozen=True)
class Tile:
    """A picture as a data address, its key, and which label each model gives it."""

    picture: str
    key: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """Pictures of one set under a title."""

    set_name: str
    title: str
    tiles: tuple[Tile, ...]


def disagreement_grids(
    report: Mapping[str, Any], sets: Sequence["EvaluationSet"], *, reference: str = "teacher"
) -> list[Grid]:
    """Return a grid for each set and model whose labels are not always the reference's.

    Args:
        report: What ``compare`` returns.
        sets: The sets that it is about.
        reference: The model that the others are compared with.
    """
    sources = {entry.name: entry.source for entry in sets}
    grids = []
    for entry in report["sets"]:
        for name, apart in entry.get("disagreements", {}).items():
            tiles = tuple(_tiles(sources[entry["name"]], apart, names=(reference, name)))
            share = entry["agreement"][name]
            if not tiles or share is None:
                continue
            count = round((1 - share) * entry["samples"])
            shown = (
                f", the {len(tiles)} that the {reference} is surest of"
                if count > len(tiles)
                else ""
            )
            of = f"{count:,} of {entry['samples']:,} pictures"
            title = f"Where {name} and {reference} disagree: {of}{shown}"
            grids.append(Grid(entry["name"], title, tiles))
    return grids


def _tiles(
    source: Any, apart: Sequence[Mapping[str, Any]], *, names: tuple[str, str]
) -> Iterator[Tile]:
    for entry in apart:
        picture = _thumbnail(source[entry["index"]])
        if picture is not None:
            labels = tuple(zip(names, (entry["reference"], entry["found"]), strict=True))
            yield Tile(picture, entry["key"], labels)


def _thumbnail(sample: Sample) -> str | None:
    """Return a small JPEG as a data address; None where the picture has vanished meanwhile."""
    try:
        image = open_image(sample)
    except DataError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
