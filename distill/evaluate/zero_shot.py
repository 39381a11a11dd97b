"""Zero-shot classification: the class whose prompts are nearest to the picture."""

import difflib
from collections.abc import Sequence
from functools import partial

import numpy as np

from distill.data.sample import Source
from distill.evaluate.encoder import Encoder, encode_many
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.lend import borrowed_sides, both_sides
from distill.evaluate.metrics import rank
from distill.evaluate.pictures import Options, choose, encode_pictures
from distill.evaluate.result import SetResult
from distill.labels.label_set import LabelSet
from distill.labels.names import class_in_words
from export.runtime.errors import DataError


def zero_shot(encoders: Sequence[Encoder], entry: EvaluationSet, options: Options) -> SetResult:
    """Rank all classes for each labelled picture. Samples without a label are left out.

    Raises:
        DataError: No sample has a label, a label is not among the classes, or pictures cannot be
            read.
    """
    names, labels = label_pictures(entry)
    pictures = encode_pictures(encoders, entry.source, list(labels), options=options)
    truth = np.array([labels[index] for index in pictures.indices], dtype=np.int64)
    candidates = np.arange(len(names))
    prompts = LabelSet(tuple(names), tuple(entry.templates))
    sides = both_sides(
        encoders,
        pictures,
        lambda encoder: prompts.embed(partial(encode_many, encoder, progress=options.progress)),
        source=entry.source,
        options=options,
    )
    return SetResult(
        "zero_shot",
        samples=len(truth),
        rankings={
            name: None
            if side is None
            else {
                "image_to_text": rank(
                    side.images, side.texts, query_ids=truth, candidate_ids=candidates
                )
            }
            for name, side in sides.items()
        },
        skipped=pictures.skipped,
        borrowed=borrowed_sides(sides),
    )


def label_pictures(entry: EvaluationSet) -> tuple[list[str], dict[int, int]]:
    """Return the candidate classes, and the class number of each picture to measure by its index.

    Raises:
        DataError: No sample has a label, or a label is not among the classes.
    """
    source = entry.source
    indices = choose(source, lambda sample: sample.label is not None, entry.samples)
    if not indices:
        raise DataError(
            f"{source.name}: no picture has a label, but zero_shot needs labels; "
            "use a table with a label column or a folder of classes, or task: retrieval"
        )
    names = _candidates(source, entry.classes)
    numbers = {_spoken(name): number for number, name in enumerate(names)}
    return names, {index: _class_of(source, index, numbers) for index in indices}


def _candidates(source: Source, classes: Sequence[str] | None) -> list[str]:
    """Return the names of the classes, each once, as they appear in prompts.

    Folder names become words. A name given in ``classes`` keeps its hyphens, as in "T-shirt".
    """
    if classes is not None:
        given: dict[str, str] = {}
        for name in classes:
            given.setdefault(_spoken(name), " ".join(name.replace("_", " ").split()))
        return list(given.values())
    labels = {source[index].label for index in range(len(source))}
    return sorted({_spoken(label) for label in labels if label is not None})


def _class_of(source: Source, index: int, numbers: dict[str, int]) -> int:
    sample = source[index]
    name = _spoken(sample.label or "")
    if name not in numbers:
        near = difflib.get_close_matches(name, numbers, n=1)
        hint = f" (the nearest is {near[0]!r})" if near else ""
        raise DataError(
            f"{source.name}: {sample.key} has the label {sample.label!r}, which is not one of the "
            f"{len(numbers)} classes{hint}; add it to classes, or leave classes out"
        )
    return numbers[name]


def _spoken(label: str) -> str:
    return class_in_words(label)
