"""Agreement: how often a model gives a picture the label that the teacher gives it."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from distill.data.sample import Source
from distill.evaluate.encoder import Encoder, encode_many
from distill.evaluate.lend import Sides, borrowed, both_sides
from distill.evaluate.metrics import Ids, rank, share_in_top
from distill.evaluate.pictures import Options, choose, encode_pictures
from distill.evaluate.result import Disagreement, Metrics, SetResult
from distill.labels.label_set import LabelSet
from export.runtime.errors import DataError, RecipeError

METRICS = ("agreement@1", "agreement@5")
# As many pictures as a reader looks at.
SHOWN = 24


def agreement_on(
    encoders: Sequence[Encoder],
    source: Source,
    *,
    labels: LabelSet,
    samples: int | None = None,
    options: Options,
) -> SetResult:
    """Measure how often an encoder's first label of a picture is the teacher's.

    ``agreement@1`` is that share, ``agreement@5`` how often the teacher's first label is among the
    encoder's first five. Pictures need no labels of their own. The ``disagreements`` begin with
    the pictures where the teacher's label is furthest above the encoder's, in the teacher's view.

    Args:
        encoders: What to measure.
        source: Any pictures.
        labels: The candidates and their templates.
        samples: How many pictures at most; all unless given.
        options: Who the teacher is (``lender``), tolerance for unreadable pictures, progress.

    Raises:
        RecipeError: there is no teacher.
        DataError: there are no pictures, or they cannot be read.
    """
    teacher = options.lender
    if teacher is None:
        raise RecipeError(f"{source.name}: agreement is with a teacher, and none is there")
    indices = any_pictures(source, samples=samples)
    everyone = {encoder.name: encoder for encoder in (teacher, *encoders)}
    models = list(everyone.values())
    pictures = encode_pictures(models, source, indices, options=options)
    sides = both_sides(
        models,
        pictures,
        lambda encoder: labels.embed(partial(encode_many, encoder, progress=options.progress)),
        source=source,
        options=options,
    )
    reference = sides[teacher.name]
    if reference is None:
        raise RecipeError(f"{source.name}: {teacher.name} lacks a tower, so there is no agreement")
    chosen = _first(reference)
    results: dict[str, Metrics] = {}
    first: dict[str, tuple[Ids, ...] | None] = {}
    disagreements = {}
    for encoder in encoders:
        found = sides[encoder.name]
        if found is None:
            results[encoder.name], first[encoder.name] = dict.fromkeys(METRICS), None
            continue
        ranking = rank(
            found.images, found.texts, query_ids=chosen, candidate_ids=np.arange(len(labels.names))
        )
        shares = (share_in_top(ranking.ranks, 1), share_in_top(ranking.ranks, 5))
        results[encoder.name] = dict(zip(METRICS, shares, strict=True))
        first[encoder.name] = (ranking.first,)
        if encoder.name != teacher.name:
            disagreements[encoder.name] = [
                Disagreement(
                    index=pictures.indices[number],
                    key=source[pictures.indices[number]].key,
                    reference=labels.names[chosen[number]],
                    found=labels.names[ranking.first[number]],
                )
                for number in _apart(reference, chosen, ranking.first)
            ]
    return SetResult(
        "agreement",
        len(pictures.indices),
        results,
        first,
        pictures.skipped,
        borrowed={name: side for name, side in borrowed(sides).items() if name in results},
        disagreements=disagreements,
    )


def any_pictures(source: Source, *, samples: int | None) -> list[int]:
    """Return the indices of the pictures to measure.

    Raises:
        DataError: there is none.
    """
    indices = choose(source, lambda _: True, samples)
    if not indices:
        raise DataError(f"{source.name}: there is no picture in it to compare anything on")
    return indices


def _first(sides: Sides) -> Ids:
    """Return the label of each picture, ``[N]``."""
    none = np.full(len(sides.images), -1, np.int64)
    numbers = np.arange(len(sides.texts))
    return rank(sides.images, sides.texts, query_ids=none, candidate_ids=numbers).first


def _apart(reference: Sides, chosen: Ids, found: Ids) -> list[int]:
    """Return the pictures to show, those first where the reference is surest."""
    rows = np.flatnonzero(chosen != found)
    lead = (reference.texts[chosen[rows]] - reference.texts[found[rows]]) * reference.images[rows]
    order = np.argsort(-lead.sum(axis=1), kind="stable")
    return [int(row) for row in rows[order[:SHOWN]]]
