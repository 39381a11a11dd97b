"""A few samples of each source, drawn by the seed, and their pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from distill.data.guess import scenes_name
from distill.data.sample import Sample, Skip, Source, open_image
from distill.data.scenes import TABLE_FILE, Scene, draw_scene
from distill.recipe.sources import ScenesSection, SourceSection
from distill.run.project import Project
from distill.teacher.cache.rows import draw_rows
from export.runtime.errors import DataError

# So many rows are looked at, and the pictures of so many of them.
ROWS, PICTURES = 512, 64
# Sides that pictures are kept at; none of what is asked of them needs more.
SHORTEST, LONGEST = 768, 1024
# So many different scenes stand for all that are not rendered yet.
SCENES = 64


@dataclass(frozen=True)
class Look:
    """What was drawn of a source.

    ``rows`` are numbers in the source and ``samples`` what stands there; ``pictures`` belong to
    ``shown``, those of the samples that were read, with a caption first. ``unreadable`` says why
    others could not be.
    """

    source: Source
    rows: tuple[int, ...]
    samples: tuple[Sample, ...]
    shown: tuple[Sample, ...]
    pictures: tuple[Image.Image, ...]
    unreadable: tuple[str, ...]

    @property
    def captions(self) -> list[str]:
        """The first caption of each sample that has one."""
        return [sample.captions[0] for sample in self.samples if sample.captions]

    @property
    def keys(self) -> list[str]:
        """The keys that belong to the captions."""
        return [sample.key for sample in self.samples if sample.captions]

    @property
    def every_caption(self) -> list[str]:
        """All captions of all samples, each once."""
        return list(dict.fromkeys(text for sample in self.samples for text in sample.captions))

    @property
    def pairs(self) -> list[tuple[Sample, Image.Image]]:
        """The pictures that were read and have a caption of their own."""
        both = zip(self.shown, self.pictures, strict=True)
        return [(sample, picture) for sample, picture in both if sample.captions]


def look_at(source: Source, *, seed: int, number: int, pictures: int = PICTURES) -> Look:
    """Draw samples of a source, the ``number``-th of a recipe, and read some of their pictures."""
    rows = draw_rows(len(source), ROWS, "doctor", seed, number).tolist()
    samples = [source[row] for row in rows]
    shown: list[Sample] = []
    read: list[Image.Image] = []
    unreadable: list[str] = []
    for sample in _spread(samples, pictures):
        try:
            image = open_image(sample, draft=SHORTEST)
        except DataError as error:
            unreadable.append(str(error))
            continue
        image.thumbnail((LONGEST, LONGEST))
        shown.append(sample)
        read.append(image)
    return Look(source, tuple(rows), tuple(samples), tuple(shown), tuple(read), tuple(unreadable))


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return ``count`` of the samples from the whole list, those with captions before others."""
    with_captions = [sample for sample in samples if sample.captions]
    without = [sample for sample in samples if not sample.captions]
    chosen = [with_captions[row] for row in draw_rows(len(with_captions), count, "pictures")]
    rest = draw_rows(len(without), max(count - len(chosen), 0), "pictures")
    return chosen + [without[row] for row in rest]


class Examined(Project):
    """The things of a recipe, of which none is written: scenes to be rendered are drawn here."""

    def _open(self, entry: SourceSection) -> Source:
        if entry.kind == "scenes":
            name = scenes_name(entry)
            folder = self.config.folder / name if entry.path is None else Path(entry.path)
            if not (folder / TABLE_FILE).exists():
                return UnrenderedScenes(entry, str(folder / TABLE_FILE))
        return super()._open(entry)


class UnrenderedScenes:
    """Scenes that are not on the disk yet; a few stand for all of them."""

    skipped: tuple[Skip, ...] = ()

    def __init__(self, config: ScenesSection, name: str) -> None:
        """Take the section of the recipe; ``name`` is the table that there will be."""
        self.name = name
        self.rows = config.count
        self._config = config

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Sample:
        number = range(self.rows)[index]
        scene, png = self._scenes[number % len(self._scenes)]
        limit = self._config.captioned
        captions = (scene.caption,) if limit is None or number < limit else ()
        return Sample(f"images/{number:06d}.png", png, captions, scene.label)

    @cached_property
    def _scenes(self) -> list[tuple[Scene, bytes]]:
        return [self._draw(number) for number in range(min(self.rows, SCENES))]

    def _draw(self, number: int) -> tuple[Scene, bytes]:
        config = self._config
        scene = draw_scene(
            number, seed=config.seed, image_size=config.image_size, split=config.split
        )
        buffer = io.BytesIO()
        scene.image.save(buffer, format="PNG", compress_level=1)
        return scene, buffer.getvalue()
