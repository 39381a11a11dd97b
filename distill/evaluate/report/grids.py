"""Pictures for the report: those that a model and the teacher label differently."""

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

# Pixels of a picture's longer side. The page is one file, so pictures have to be small.
SIDE = 192
_QUALITY = 80


@dataclass(frozen=True)
class _Tile:
    """A picture as a data URL, its key, and (model, label) for both models."""

    picture: str
    key: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """Pictures of one set under a title."""

    set_name: str
    title: str
    tiles: tuple[_Tile, ...]


def disagreement_grids(
    report: Mapping[str, Any], sets: Sequence["EvaluationSet"], *, reference: str = "teacher"
) -> list[Grid]:
    """Return a grid for each set and each model that sometimes disagrees with the reference.

    Args:
        report: What `distill.evaluate.compare.compare` returns.
        sets: The sets of that report.
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
) -> Iterator[_Tile]:
    for entry in apart:
        picture = _thumbnail(source[entry["index"]])
        if picture is not None:
            labels = tuple(zip(names, (entry["reference"], entry["found"]), strict=True))
            yield _Tile(picture, entry["key"], labels)


def _thumbnail(sample: Sample) -> str | None:
    """Return a small JPEG as a data URL, or None if the picture can no longer be read."""
    try:
        image = open_image(sample)
    except DataError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
