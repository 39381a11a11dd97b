"""Embeddings of pictures and captions; each picture is decoded once for all encoders."""

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

# Decoded pictures held at a time, and captions between two updates of the progress bar.
_BATCH_SIZE = 64
_CAPTIONS = 512


@dataclass(frozen=True)
class Options:
    """Settings of a measurement that do not belong to a set.

    Attributes:
        max_skipped: Measuring fails if a larger share of the pictures cannot be read.
        progress: Whether to show progress bars.
        title: The start of each bar's text.
        lender: The teacher. It lends its texts or images to models of one tower, and agreement is
            measured against it.
    """

    max_skipped: float = 0.01
    progress: bool = False
    title: str = "measuring"
    lender: Encoder | None = None


@dataclass(frozen=True)
class Pictures:
    """The embeddings of pictures by several encoders.

    Attributes:
        indices: Indices in the source of the N pictures that could be read.
        embeddings: ``[N, D]`` by encoder, None without an image tower.
        skipped: Pictures that could not be read.
    """

    indices: list[int]
    embeddings: dict[str, Vectors | None]
    skipped: list[Skip]


def choose(source: Source, usable: Callable[[Sample], bool], samples: int | None) -> list[int]:
    """Return the indices of all usable samples, or of ``samples`` of them.

    The choice depends on the length of the source alone, so every model and every run is measured
    on the same samples.
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
    """Decode each picture once and embed it with every encoder.

    A picture that cannot be read is left out for all of them.

    Raises:
        DataError: Too many pictures cannot be read, or none can.
    """
    kept: list[int] = []
    skipped: list[Skip] = []
    parts: dict[str, list[Vectors]] = {encoder.name: [] for encoder in encoders}
    with _bar("pictures", len(indices), options) as bar:
        for start in range(0, len(indices), _BATCH_SIZE):
            images = []
            for index, image in _decode(source, indices[start : start + _BATCH_SIZE], skipped):
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
                bar.update(min(start + _BATCH_SIZE, len(indices)))
    if not kept:
        raise DataError(f"{source.name}: none of its {len(indices)} pictures can be read")
    return Pictures(
        indices=kept,
        embeddings={name: np.concatenate(part) if part else None for name, part in parts.items()},
        skipped=skipped,
    )


def encode_captions(encoder: Encoder, texts: Sequence[str], *, options: Options) -> Vectors | None:
    """Embed captions ``[M, D]`` in their order; None without a text tower.

    They are encoded in the order of their lengths, so a batch needs little padding.
    """
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    parts = []
    with _bar(f"captions, {encoder.name}", len(texts), options) as bar:
        for start in range(0, len(texts), _CAPTIONS):
            chosen = order[start : start + _CAPTIONS]
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
