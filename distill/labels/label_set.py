"""Label sets: labels and templates for their prompts, for the loss, evaluation and the bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.labels.names import label_in_words
from distill.labels.templates import DEFAULT_TEMPLATES, insert

_Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LabelSet:
    """Labels, and the templates of their prompts with ``{}`` once each."""

    names: tuple[str, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, label by label, with spaces for "_" in a label.

        Raises:
            DataError: A template has no place for the label.
        """
        spoken = map(label_in_words, self.names)
        return tuple(insert(text, name) for name in spoken for text in self.templates)

    def embed(self, encode: Callable[[Sequence[str]], _Vectors | None]) -> _Vectors | None:
        """Return one vector per label ``[N, D]``, or None if ``encode`` returns None.

        See `average_prompts`.
        """
        vectors = encode(self.prompts)
        return None if vectors is None else average_prompts(vectors, len(self.templates))


def average_prompts(vectors: _Vectors, templates: int) -> _Vectors:
    """Return one vector per label ``[N, D]`` from the unit vectors of prompts ``[N · T, D]``.

    It is the mean of the label's ``templates`` (T) prompts, normalised again, as in CLIP
    (https://arxiv.org/abs/2103.00020).
    """
    if templates == 1:
        return vectors
    means = vectors.reshape(-1, templates, vectors.shape[-1]).mean(axis=1)
    norms = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.asarray(means / norms, np.float32)
