"""Labels and the prompts that stand for them: one set for the loss, the evaluation, the bundle."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill.config_data import read_lines
from distill.data.folder import DEFAULT_TEMPLATES, class_folders, fill
from export.runtime.errors import DataError

if TYPE_CHECKING:
    from distill.config_data import DataSection

__all__ = [
    "DEFAULT_TEMPLATES",
    "LabelSet",
    "ensemble",
    "knows",
    "label_set",
    "label_templates",
    "read_labels",
    "read_templates",
]

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LabelSet:
    """Labels as they are written, and the templates of their prompts, each with ``{}`` once."""

    names: tuple[str, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts: those of the first label, then those of the next."""
        return tuple(text.replace("{}", name) for name in self.names for text in self.templates)

    def embed(self, encode: Callable[[Sequence[str]], Vectors | None]) -> Vectors | None:
        """Return a vector for each label ``[N, D]``, None where ``encode`` has none for texts.

        It is the mean of the normalised embeddings of its prompts, normalised again, as in CLIP
        (https://arxiv.org/abs/2103.00020).
        """
        vectors = encode(self.prompts)
        return None if vectors is None else ensemble(vectors, len(self.templates))


def ensemble(vectors: Vectors, templates: int) -> Vectors:
    """Return ``[N, D]`` of unit vectors ``[N · templates, D]``: each label's mean, normalised."""
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
    return LabelSet(read_labels(data.labels, field="data.labels"), templates)


def label_templates(data: "DataSection") -> tuple[str, ...] | None:
    """Return the templates of a recipe, read from their file where one is named.

    Raises:
        DataError: they cannot be read, or one has no single place for the label.
    """
    return None if data.templates is None else read_templates(data.templates, "data.templates")


def read_labels(given: tuple[str, ...] | str, *, field: str) -> tuple[str, ...]:
    """Return labels: a list, a text file with one a line, a JSON list, or the names of folders.

    Names of folders are read as people say them, with spaces; all others stay as they are.

    Raises:
        DataError: they cannot be read, are fewer than two, or one stands there twice.
    """
    names = _named(given, field=field) if isinstance(given, str) else given
    where = f"{field}: {given}" if isinstance(given, str) else field
    seen: set[str] = set()
    for name in names:
        if not name.strip():
            raise DataError(f"{where}: an empty label; write what people call it")
        if name in seen:
            raise DataError(f"{where}: the label {name!r} is given twice; give each of them once")
        seen.add(name)
    if len(names) < 2:
        raise DataError(
            f"{where}: one label, {names[0]!r}, has nothing to be told apart from; give two or more"
        )
    return names


def knows(labels: LabelSet, classes: Collection[str]) -> bool:
    """Tell whether all names of classes are among the labels, in words."""
    spoken = {fill("{}", name) for name in labels.names}
    return all(fill("{}", name) in spoken for name in classes)


def read_templates(given: tuple[str, ...] | str, field: str) -> tuple[str, ...]:
    """Return templates of a list, or of a text file with one a line; ``{c}`` becomes ``{}``.

    Raises:
        DataError: they cannot be read, or one has no single place for the label.
    """
    lines = read_lines(Path(given), field=field) if isinstance(given, str) else given
    found = tuple(line.replace("{c}", "{}") for line in lines)
    for line in found:
        if line.count("{}") != 1:
            raise DataError(
                f"{field}: {line!r} is no template; it needs {{}} once, where the label goes"
            )
    return found


def _named(given: str, *, field: str) -> tuple[str, ...]:
    path = Path(given)
    if path.is_dir():
        return tuple(fill("{}", name) for name in class_folders(path))
    if path.suffix.lower() != ".json":
        return read_lines(path, field=field)
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{field}: {path} cannot be read as JSON; give a list of texts") from error
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise DataError(f'{field}: {path} holds no list of texts; write ["cat", "dog"]')
    return tuple(values)
