"""Retrieval both ways: captions for a picture, pictures for a caption."""

from collections.abc import Sequence

import numpy as np

from distill.data.sample import Source
from distill.evaluate.encoder import Encoder
from distill.evaluate.lend import borrowed, both_sides
from distill.evaluate.metrics import Ids, rank_both_ways, share_in_top
from distill.evaluate.pictures import Options, choose, encode_captions, encode_pictures
from distill.evaluate.result import Metrics, SetResult
from export.runtime.errors import DataError

CUTS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
METRICS = (*(f"{way}_recall@{k}" for way in DIRECTIONS for k in CUTS), "mean_recall")


def retrieval(
    encoders: Sequence[Encoder],
    source: Source,
    *,
    samples: int | None = None,
    options: Options | None = None,
) -> SetResult:
    """Measure how often the true partner is among the first 1, 5 and 10 of all candidates.

    A picture finds its caption where any of its own is among the first k; a caption finds its
    picture likewise. ``mean_recall`` is the mean of the six. For agreement a caption counts as the
    picture that it belongs to.

    Args:
        encoders: What to measure; one of a single tower gets None where nobody lends the other.
        source: Pictures with captions, several or one; samples without any are left out.
        samples: How many pictures at most; all unless given.
        options: Tolerance for unreadable pictures, the progress bar, and who lends a tower.

    Raises:
        DataError: there is no caption, or pictures cannot be read.
    """
    options = options or Options()
    indices = captioned_pictures(source, samples=samples)
    pictures = encode_pictures(encoders, source, indices, options=options)
    captions = [source[index].captions for index in pictures.indices]
    texts = [text for group in captions for text in group]
    owners = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
    results: dict[str, Metrics] = {}
    first: dict[str, tuple[Ids, ...] | None] = {}
    sides = both_sides(
        encoders,
        pictures,
        lambda encoder: encode_captions(encoder, texts, options=options),
        source=source,
        options=options,
    )
    for encoder in encoders:
        side = sides[encoder.name]
        if side is None:
            results[encoder.name] = dict.fromkeys(METRICS)
            first[encoder.name] = None
            continue
        rankings = rank_both_ways(side.images, side.texts, owners)
        recalls = [share_in_top(way.ranks, k) for way in rankings for k in CUTS]
        values = [*recalls, sum(recalls) / len(recalls)]
        results[encoder.name] = dict(zip(METRICS, values, strict=True))
        first[encoder.name] = tuple(way.first for way in rankings)
    lent = borrowed(sides)
    return SetResult("retrieval", len(captions), results, first, pictures.skipped, borrowed=lent)


def captioned_pictures(source: Source, *, samples: int | None) -> list[int]:
    """Return the indices of the pictures to measure.

    Raises:
        DataError: there is no caption.
    """
    indices = choose(source, lambda sample: bool(sample.captions), samples)
    if not indices:
        raise DataError(
            f"{source.name}: no picture of it has a caption, which retrieval asks for; "
            "give a table with a caption column, or use task: zero_shot"
        )
    return indices
