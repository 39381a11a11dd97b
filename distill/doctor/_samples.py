"""A few samples of each source, drawn by the recipe's seed, and their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from distill.data.open import preview_source
from distill.data.sample import Sample, Source, open_image
from distill.recipe.sources import SourceSection
from distill.run.project import Project
from distill.teacher.cache.rows import draw_rows
from export.runtime.errors import DataError

# The number of rows that are drawn of a source, and how many of their pictures are read.
_ROWS, PICTURES = 512, 64
# A smaller sample says nothing about all of the data.
FEWEST = 8
# The sides that pictures are kept at. No check needs more.
_SHORTEST, _LONGEST = 768, 1024


@dataclass(frozen=True)
class Drawn:
    """A sample of a source.

    ``rows`` are numbers in the source and ``samples`` what is there. ``pictures`` are those that
    could be read, of the samples ``shown``; those with a caption come first. ``unreadable`` holds
    the reason for each of the others.
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
        """The key of each sample that has a caption, in the order of `captions`."""
        return [sample.key for sample in self.samples if sample.captions]

    @property
    def every_caption(self) -> list[str]:
        """All captions of all samples, each once."""
        return list(dict.fromkeys(text for sample in self.samples for text in sample.captions))

    @property
    def pairs(self) -> list[tuple[Sample, Image.Image]]:
        """The pictures that were read and have a caption, with their samples."""
        both = zip(self.shown, self.pictures, strict=True)
        return [(sample, picture) for sample, picture in both if sample.captions]


def draw_samples(source: Source, *, seed: int, number: int) -> Drawn:
    """Draw samples of source ``number`` of a recipe, and read some of their pictures."""
    rows = draw_rows(len(source), _ROWS, "doctor", seed, number).tolist()
    samples = [source[row] for row in rows]
    shown: list[Sample] = []
    read: list[Image.Image] = []
    unreadable: list[str] = []
    for sample in _spread(samples, PICTURES):
        try:
            image = open_image(sample, draft=_SHORTEST)
        except DataError as error:
            unreadable.append(str(error))
            continue
        image.thumbnail((_LONGEST, _LONGEST))
        shown.append(sample)
        read.append(image)
    return Drawn(source, tuple(rows), tuple(samples), tuple(shown), tuple(read), tuple(unreadable))


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return ``count`` samples from the whole list, those with captions first."""
    with_captions = [sample for sample in samples if sample.captions]
    without = [sample for sample in samples if not sample.captions]
    chosen = [with_captions[row] for row in draw_rows(len(with_captions), count, "pictures")]
    rest = draw_rows(len(without), max(count - len(chosen), 0), "pictures")
    return chosen + [without[row] for row in rest]


class ReadOnlyProject(Project):
    """A project that writes nothing: scenes that are not on the disk are drawn in memory."""

    def _opened(self, entry: SourceSection) -> Source:
        config = self.config
        return preview_source(entry, output=config.folder, index_folder=config.index_folder)
