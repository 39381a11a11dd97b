"""Pictures and captions of an evaluation; pictures are decoded once, for every encoder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image

from distill.basis.draws import draw_permutation
from distill.basis.progress import Bar, progress_bar
from distill.data.sample import Sample, Skip, Source, check_skips, open_image
from distill.evaluate.encoder import Encoder, Vectors
from export.runtime.errors import DataError

# Decoded pictures held at a time, and captions between two steps of the bar.
BATCH_SIZE = 64
CAPTIONS = 512


@dataclass(frozen=True)
class Options:
    """What does not belong to a set.

    Beyond the share ``max_skipped`` of unreadable pictures, measuring stops with an error. With
    ``progress`` bars that begin with ``title`` are shown. ``lender`` is the teacher, whose texts or
    images a model of one tower is compared with, and with whom others agree or not.
    """

    max_skipped: float = 0.01
    progress: bool = False
    title: str = "measuring"
    lender: Encoder | None = None


@dataclass(frozen=True)
class Pictures:
    """Embeddings by encoder, ``[N, D]`` or None without an image tower, and whose they are.

    ``indices`` (``[N]``) are those samples of the source whose picture could be read; ``skipped``
    the others.
    """

    indices: list[int]
    embeddings: dict[str, Vectors | None]
    skipped: list[Skip]


def choose(source: Source, usable: Callable[[Sample], bool], samples: int | None) -> list[int]:
    """Return the indices of all usable samples, or of ``samples`` of them.

    Which those are follows from the source's length alone, so that every model and every run is
    measured on the same.
    """
    count = len(source)
    if samples is None:
        return [index for index in range(count) if usable(source[index])]
    chosen: list[int] = []
    for index in draw_permutation(count, "evaluate", count):
        if len(chosen) == samples:
            break
        if usable(source[int(index)]):
            chosen.append(int(index))
    return sorted(chosen)


def encode_pictures(
    encoders: Sequence[Encoder],
    source: Source,
    indices: Sequence[int],
    *,
    options: Options,
) -> Pictures:
    """Decode each picture once and embed it by every encoder.

    An unreadable picture is left out for all of them alike.

    Raises:
        DataError: too many pictures cannot be read, or all of them.
    """
    kept: list[int] = []
    skipped: list[Skip] = []
    parts: dict[str, list[Vectors]] = {encoder.name: [] for encoder in encoders}
    with _bar("pictures", len(indices), options) as bar:
        for start in range(0, len(indices), BATCH_SIZE):
            images = []
            for index, image in _decode(source, indices[start : start + BATCH_SIZE], skipped):
                kept.append(index)
                images.append(image)
            check_skips(source.name, skipped, len(indices), max_skipped=options.max_skipped)
            if not images:
                continue
            for encoder in encoders:
                vectors = encoder.encode_images(images)
                if vectors is not None:
                    parts[encoder.name].append(vectors)
            if bar is not None:
                bar.update(min(start + BATCH_SIZE, len(indices)))
    if not kept:
        raise DataError(f"{source.name}: none of its {len(indices)} pictures can be read")
    return Pictures(
        indices=kept,
        embeddings={name: np.concatenate(part) if part else None for name, part in parts.items()},
        skipped=skipped,
    )


def encode_captions(encoder: Encoder, texts: Sequence[str], *, options: Options) -> Vectors | None:
    """Embed captions ``[M, D]`` in their order, or None without a text tower.

    They are read by length, so that those of a batch need little padding.
    """
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    parts = []
    with _bar(f"captions, {encoder.name}", len(texts), options) as bar:
        for start in range(0, len(texts), CAPTIONS):
            chosen = order[start : start + CAPTIONS]
            vectors = encoder.encode_texts([texts[number] for number in chosen])
            if vectors is None:
                return None
            parts.append(vectors)
            if bar is not None:
                bar.update(start + len(chosen))
    sorted_vectors = np.concatenate(parts)
    result = np.empty_like(sorted_vectors)
    result[order] = sorted_vectors
    return result


def _bar(what: str, total: int, options: Options) -> AbstractContextManager[Bar | None]:
    if not options.progress:
        return nullcontext()
    return progress_bar(f"{options.title}: {what}", total)


def _decode(
    source: Source, indices: Sequence[int], skipped: list[Skip]
) -> Iterator[tuple[int, Image.Image]]:
    for index in indices:
        sample = source[index]
        try:
            yield index, open_image(sample)
        except DataError as error:
            skipped.append(Skip(where=f"{source.name}: {sample.key}", reason=str(error)))
