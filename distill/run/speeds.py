"""How fast data and teacher are here: a few batches, timed part by part."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from distill.data.sample import Sample, Source, open_image
from distill.data.views import draw_view, render_view
from distill.teacher.cache.build import BuildSettings
from distill.teacher.cache.rows import draw_rows, row_digests
from distill.teacher.protocol import Teacher
from export.runtime.errors import DataError

_SECONDS_TO_MEASURE = 20.0
_BATCHES_TO_MEASURE = 4
# On a CPU a teacher is as fast with small batches, and the measurement ends sooner.
_BATCH_ON_CPU = 8


@dataclass(frozen=True)
class Speeds:
    """Seconds that one thread takes for one thing, measured on a few pictures.

    Attributes:
        decode: Decoding a picture.
        view: Drawing and resizing a view.
        image: Embedding a view.
        caption: Embedding a caption.
        lookup: Finding and reading a picture and a caption in a cache.
        pictures: How many pictures were measured.
    """

    decode: float
    view: float
    image: float
    caption: float
    lookup: float
    pictures: int


def overlapped(reading: float, embedding: float, *, workers: int, device: str) -> float:
    """Return the seconds of both together, if workers read while the teacher embeds.

    On a CPU the workers take cores from the teacher, so reading is not free.
    """
    if workers == 0:
        return reading + embedding
    cores = os.cpu_count() or 1
    share = reading / cores if device == "cpu" else 0.0
    return max(reading / workers, embedding + share)


def measure_speeds(
    sources: Sequence[Source], teacher: Teacher, settings: BuildSettings, *, device: str
) -> Speeds:
    """Embed a few batches spread over the data, and time each part.

    Raises:
        DataError: None of the pictures can be read.
    """
    size = _BATCH_ON_CPU if device == "cpu" else settings.batch_size
    clock = _Clock()
    started = time.perf_counter()
    for number, samples in enumerate(_spread(sources, size, _BATCHES_TO_MEASURE + 1)):
        if number > 1 and time.perf_counter() - started > _SECONDS_TO_MEASURE:
            break
        # The first batch warms up.
        timing = clock if number else _Clock()
        _time_batch(samples, teacher, settings, timing)
    if not clock.count["decode"]:
        raise DataError(f"{sources[0].name}: too few pictures can be read to time the teacher")
    return Speeds(
        decode=clock.mean("decode"),
        view=clock.mean("view"),
        image=clock.mean("image"),
        caption=clock.mean("caption"),
        lookup=clock.mean("lookup"),
        pictures=clock.count["decode"],
    )


class _Clock:
    """Seconds and counts by name."""

    def __init__(self) -> None:
        names = ("decode", "view", "image", "caption", "lookup")
        self.seconds = dict.fromkeys(names, 0.0)
        self.count = dict.fromkeys(names, 0)

    def add(self, name: str, started: float, count: int) -> None:
        self.seconds[name] += time.perf_counter() - started
        self.count[name] += count

    def mean(self, name: str) -> float:
        return self.seconds[name] / max(self.count[name], 1)


def _time_batch(
    samples: Sequence[Sample], teacher: Teacher, settings: BuildSettings, clock: _Clock
) -> None:
    pixels = []
    for sample in samples:
        started = time.perf_counter()
        try:
            image = open_image(sample, draft=settings.views.draft)
        except DataError:
            continue
        clock.add("decode", started, 1)
        for number in range(settings.view_count):
            started = time.perf_counter()
            view = draw_view(settings.views, sample.key, number, size=image.size)
            pixels.append(render_view(image, view, teacher.preprocessing))
            clock.add("view", started, 1)
    if not pixels:
        return
    started = time.perf_counter()
    parts = torch.split(torch.from_numpy(np.stack(pixels)), settings.batch_size)
    embeddings = torch.cat([teacher.encode_images(part).cpu() for part in parts])
    clock.add("image", started, len(pixels))
    texts = [text for sample in samples for text in sample.captions]
    if texts:
        started = time.perf_counter()
        teacher.encode_texts(texts).cpu()
        clock.add("caption", started, len(texts))
    _time_lookup([sample.key for sample in samples], embeddings, settings, clock)


def _time_lookup(
    keys: Sequence[str], embeddings: torch.Tensor, settings: BuildSettings, clock: _Clock
) -> None:
    """Time a look-up of a picture and of a caption, on rows in memory."""
    held = embeddings.half() if settings.dtype == "float16" else embeddings
    started = time.perf_counter()
    for _ in range(2):
        digests = row_digests(keys)
        rows = np.searchsorted(np.sort(digests[:, 0]), digests[:, 0])
        torch.nn.functional.normalize(held[torch.from_numpy(rows % len(held))].float(), dim=-1)
    clock.add("lookup", started, len(keys))


def _spread(sources: Sequence[Source], size: int, batches: int) -> Iterator[list[Sample]]:
    """Yield batches of samples drawn from all sources, each sample once."""
    ends = np.cumsum([len(source) for source in sources])
    numbers = draw_rows(int(ends[-1]), size * batches, "estimate")
    # Whole batches that are each spread over everything.
    for batch in range(batches):
        of_batch = numbers[batch::batches]
        which = np.searchsorted(ends, of_batch, side="right")
        places = of_batch - np.concatenate([[0], ends])[which]
        yield [sources[s][p] for s, p in zip(which.tolist(), places.tolist(), strict=True)]
