"""Zero-shot classification: the class whose prompts are nearest to the picture."""

import difflib
from collections.abc import Sequence
from functools import partial

import numpy as np

from distill.data.folder import DEFAULT_TEMPLATES, fill
from distill.data.sample import Source
from distill.evaluate.encoder import Encoder, encode_many
from distill.evaluate.lend import borrowed, both_sides
from distill.evaluate.metrics import Ids, mean_per_class_recall, rank, share_in_top
from distill.evaluate.pictures import Options, choose, encode_pictures
from distill.evaluate.result import Metrics, SetResult
from distill.labels.label_set import LabelSet
from export.runtime.errors import DataError

METRICS = ("top1", "top5", "mean_per_class_recall")


def zero_shot(
    encoders: Sequence[Encoder],
    source: Source,
    *,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    samples: int | None = None,
    options: Options | None = None,
) -> SetResult:
    """Measure how often the picture's own class comes first.

    Metrics are ``top1``, ``top5`` (1 where there are five classes or fewer) and
    ``mean_per_class_recall``, the mean of top-1 over the classes that occur.

    Args:
        encoders: What to measure; one of a single tower gets None where nobody lends the other.
        source: Pictures with labels; samples without one are left out.
        classes: All candidates; unless given, the labels of the whole source.
        templates: Prompts with ``{}`` for the class's name.
        samples: How many samples at most; all unless given.
        options: Tolerance for unreadable pictures, the progress bar, and who lends a tower.

    Raises:
        DataError: there is no label, a label is no class, or pictures cannot be read.
    """
    names, labels = label_pictures(source, classes=classes, samples=samples)
    options = options or Options()
    pictures = encode_pictures(encoders, source, list(labels), options=options)
    truth = np.array([labels[index] for index in pictures.indices], dtype=np.int64)
    results: dict[str, Metrics] = {}
    first: dict[str, tuple[Ids, ...] | None] = {}
    prompts = LabelSet(tuple(names), tuple(templates))
    sides = both_sides(
        encoders,
        pictures,
        lambda encoder: prompts.embed(partial(encode_many, encoder, progress=options.progress)),
        source=source,
        options=options,
    )
    for encoder in encoders:
        side = sides[encoder.name]
        if side is None:
            results[encoder.name] = dict.fromkeys(METRICS)
            first[encoder.name] = None
            continue
        candidates = np.arange(len(names))
        ranking = rank(side.images, side.texts, query_ids=truth, candidate_ids=candidates)
        values = (
            share_in_top(ranking.ranks, 1),
            share_in_top(ranking.ranks, 5),
            mean_per_class_recall(ranking.ranks, truth),
        )
        results[encoder.name] = dict(zip(METRICS, values, strict=True))
        first[encoder.name] = (ranking.first,)
    lent = borrowed(sides)
    return SetResult("zero_shot", len(truth), results, first, pictures.skipped, borrowed=lent)


def label_pictures(
    source: Source, *, classes: Sequence[str] | None, samples: int | None
) -> tuple[list[str], dict[int, int]]:
    """Return the candidate classes, and the class number of each picture to measure by its index.

    Raises:
        DataError: there is no label, or a label is no class.
    """
    indices = choose(source, lambda sample: sample.label is not None, samples)
    if not indices:
        raise DataError(
            f"{source.name}: no picture of it has a label, which zero_shot asks for; "
            "give a table with a label column or a folder of classes, or use task: retrieval"
        )
    names = _candidates(source, classes)
    numbers = {_spoken(name): number for number, name in enumerate(names)}
    return names, {index: _class_of(source, index, numbers) for index in indices}


def _candidates(source: Source, classes: Sequence[str] | None) -> list[str]:
    """Return the names of the classes, each once, as prompts say them.

    Names of folders become words; a name that was given keeps its hyphens, as in "T-shirt".
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
            f"{source.name}: {sample.key} has the label {sample.label!r}, which is none of the "
            f"{len(numbers)} classes to choose from{hint}; add it to classes, or give no classes"
        )
    return numbers[name]


def _spoken(label: str) -> str:
    return fill("{}", label)
