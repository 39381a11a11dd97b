"""Labels and the prompts that stand for them: one set for the loss, the evaluation, the bundle."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill.data.folder import DEFAULT_TEMPLATES, fill, insert
from distill.labels.names import read_labels, read_templates
from export.runtime.errors import DataError

if TYPE_CHECKING:
    from distill.recipe.data import DataSection

__all__ = [
    "DEFAULT_TEMPLATES",
    "LabelSet",
    "average_prompts",
    "knows",
    "label_set",
    "label_templates",
    "name_labels",
]

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LabelSet:
    """Labels, "_" read as a space, and the templates of their prompts, each with ``{}`` once."""

    names: tuple[str, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts: those of the first label, then those of the next.

        Raises:
            DataError: a template has no place for the label.
        """
        spoken = map(_in_words, self.names)
        return tuple(insert(text, name) for name in spoken for text in self.templates)

    def embed(self, encode: Callable[[Sequence[str]], Vectors | None]) -> Vectors | None:
        """Return one vector per label ``[N, D]``, or None if ``encode`` returns None.

        See `average_prompts`.
        """
        vectors = encode(self.prompts)
        return None if vectors is None else average_prompts(vectors, len(self.templates))


def average_prompts(vectors: Vectors, templates: int) -> Vectors:
    """Return one vector per label ``[N, D]`` from the unit vectors of prompts ``[N · T, D]``.

    It is the mean of the label's ``templates`` (T) prompts, normalised again, as in CLIP
    (https://arxiv.org/abs/2103.00020).
    """
    if templates == 1:
        return vectors
    means = vectors.reshape(-1, templates, vectors.shape[-1]).mean(axis=1)
    norms = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.asarray(means / norms, np.float32)


def label_set(data: "DataSection") -> LabelSet | None:
    """Return the labels of a recipe, read from their file where one is named; None without any.

    Raises:
        DataError: labels or templates are none that can be used.
    """
    if data.labels is None:
        return None
    templates = label_templates(data) or DEFAULT_TEMPLATES
    return LabelSet(name_labels(data.labels, field="data.labels"), templates)


def label_templates(data: "DataSection") -> tuple[str, ...] | None:
    """Return the templates of a recipe, read where they are named.

    Raises:
        DataError: they cannot be read, or one has no single place for the label.
    """
    given, field = data.templates, "data.templates"
    found = read_templates(given, field=field) if isinstance(given, str) else given
    for template in found or ():
        if template.count("{}") != 1:
            raise DataError(
                f"{field}: {template!r} is no template; it needs {{}} once, where the label goes"
            )
    return found


def name_labels(given: tuple[str, ...] | str, *, field: str) -> tuple[str, ...]:
    """Return the labels of a list, or those that a name stands for.

    Raises:
        DataError: they cannot be read, are fewer than two, or one stands there twice.
    """
    names = read_labels(given, field=field) if isinstance(given, str) else given
    where = f"{field}: {given}" if isinstance(given, str) else field
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise DataError(f"{where}: a label is empty; write what people call it")
        spoken = _in_words(name)
        if spoken in seen:
            as_well = "" if seen[spoken] == name else f", once as {seen[spoken]!r}"
            raise DataError(
                f"{where}: the label {name!r} stands there twice{as_well}; give it once"
            )
        seen[spoken] = name
    if len(names) < 2:
        raise DataError(
            f"{where}: one label, {names[0]!r}, has nothing to be told apart from; give two or more"
        )
    return tuple(names)


def _in_words(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def knows(labels: LabelSet, classes: Collection[str]) -> bool:
    """Tell whether all names of classes are among the labels, in words."""
    spoken = {fill("{}", name) for name in labels.names}
    return all(fill("{}", name) in spoken for name in classes)
