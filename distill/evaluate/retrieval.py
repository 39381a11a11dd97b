"""Retrieval in both directions: captions for a picture, pictures for a caption."""

from collections.abc import Sequence

import numpy as np

from distill.evaluate.encoder import Encoder
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.lend import borrowed_sides, both_sides
from distill.evaluate.metrics import rank_both_ways
from distill.evaluate.pictures import Options, choose, encode_captions, encode_pictures
from distill.evaluate.result import SetResult
from export.runtime.errors import DataError


def retrieval(encoders: Sequence[Encoder], entry: EvaluationSet, options: Options) -> SetResult:
    """Rank all captions for each picture, and all pictures for each caption.

    A picture may have several captions: it finds its caption if any of them is found. Agreement
    treats a caption as the picture that it belongs to. Samples without a caption are left out.

    Raises:
        DataError: No sample has a caption, or pictures cannot be read.
    """
    source = entry.source
    indices = captioned_pictures(entry)
    pictures = encode_pictures(encoders, source, indices, options=options)
    captions = [source[index].captions for index in pictures.indices]
    texts = [text for group in captions for text in group]
    owners = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
    sides = both_sides(
        encoders,
        pictures,
        lambda encoder: encode_captions(encoder, texts, options=options),
        source=source,
        options=options,
    )
    return SetResult(
        "retrieval",
        samples=len(captions),
        rankings={
            name: None if side is None else rank_both_ways(side.images, side.texts, owners)
            for name, side in sides.items()
        },
        skipped=pictures.skipped,
        borrowed=borrowed_sides(sides),
    )


def captioned_pictures(entry: EvaluationSet) -> list[int]:
    """Return the indices of the pictures to measure.

    Raises:
        DataError: No sample has a caption.
    """
    indices = choose(entry.source, lambda sample: bool(sample.captions), entry.samples)
    if not indices:
        raise DataError(
            f"{entry.source.name}: no picture has a caption, but retrieval needs captions; "
            "use a table with a caption column, or task: zero_shot"
        )
    return indices
