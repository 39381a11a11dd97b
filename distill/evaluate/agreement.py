"""Agreement: how often a model gives a picture the label that the teacher gives it."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from distill.data.sample import Source
from distill.evaluate.encoder import Encoder, encode_many
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.lend import Sides, borrowed_sides, both_sides
from distill.evaluate.metrics import Ids, Ranking, Rankings, rank
from distill.evaluate.pictures import Options, choose, encode_pictures
from distill.evaluate.result import Disagreement, SetResult
from distill.labels.label_set import LabelSet
from export.runtime.errors import DataError, RecipeError

# As many pictures as a reader will look at.
SHOWN = 24


def agreement(encoders: Sequence[Encoder], entry: EvaluationSet, options: Options) -> SetResult:
    """Rank the labels for each picture; the teacher's first label counts as the right one.

    The pictures need no labels of their own. ``disagreements`` start with the pictures for which
    the teacher most clearly prefers its own label to the encoder's. ``options.lender`` is the
    teacher.

    Raises:
        RecipeError: There is no teacher, or it lacks a tower.
        DataError: There are no pictures, or they cannot be read.
    """
    source, teacher = entry.source, options.lender
    if teacher is None:
        raise RecipeError(f"{source.name}: agreement needs a teacher to compare with")
    labels = LabelSet(tuple(entry.classes or ()), tuple(entry.templates))
    everyone = {encoder.name: encoder for encoder in (teacher, *encoders)}
    models = list(everyone.values())
    pictures = encode_pictures(models, source, any_pictures(entry), options=options)
    sides = both_sides(
        models,
        pictures,
        lambda encoder: labels.embed(partial(encode_many, encoder, progress=options.progress)),
        source=source,
        options=options,
    )
    reference = sides[teacher.name]
    if reference is None:
        raise RecipeError(
            f"{source.name}: {teacher.name} lacks a tower, but agreement needs both of them"
        )
    # There is no right label here, so -1 stands for it.
    chosen = _rank_labels(reference, np.full(len(pictures.indices), -1, np.int64)).first
    measured = {encoder.name: sides[encoder.name] for encoder in encoders}
    rankings: dict[str, Rankings | None] = {
        name: None if side is None else {"image_to_text": _rank_labels(side, chosen)}
        for name, side in measured.items()
    }
    return SetResult(
        "agreement",
        samples=len(pictures.indices),
        rankings=rankings,
        skipped=pictures.skipped,
        borrowed=borrowed_sides(measured),
        disagreements={
            name: _disagreements(
                source,
                labels.names,
                pictures.indices,
                reference=reference,
                chosen=chosen,
                found=found["image_to_text"].first,
            )
            for name, found in rankings.items()
            if found is not None and name != teacher.name
        },
    )


def any_pictures(entry: EvaluationSet) -> list[int]:
    """Return the indices of the pictures to measure.

    Raises:
        DataError: There are none.
    """
    indices = choose(entry.source, lambda _: True, entry.samples)
    if not indices:
        raise DataError(f"{entry.source.name}: there are no pictures to compare models on")
    return indices


def _rank_labels(sides: Sides, right: Ids) -> Ranking:
    """Rank all labels for each picture; ``right`` ``[N]`` is the number of the right one."""
    candidates = np.arange(len(sides.texts))
    return rank(sides.images, sides.texts, query_ids=right, candidate_ids=candidates)


def _disagreements(
    source: Source,
    labels: Sequence[str],
    indices: Sequence[int],
    *,
    reference: Sides,
    chosen: Ids,
    found: Ids,
) -> list[Disagreement]:
    """Return the pictures to show, first those for which the reference is surest."""
    rows = np.flatnonzero(chosen != found)
    lead = (reference.texts[chosen[rows]] - reference.texts[found[rows]]) * reference.images[rows]
    order = np.argsort(-lead.sum(axis=1), kind="stable")
    return [
        Disagreement(
            index=indices[row],
            key=source[indices[row]].key,
            reference=labels[chosen[row]],
            found=labels[found[row]],
        )
        for row in rows[order[:SHOWN]]
    ]
