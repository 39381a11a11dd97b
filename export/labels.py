"""Labels that a bundle carries, embedded in advance for a device without a text tower."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.runtime.errors import ExportError, RecipeError
from export.runtime.label_bank import checked_labels
from export.runtime.manifest import ImagePart, LabelPart, TextPart

LABELS_FILE = "labels.npy"


@dataclass(frozen=True)
class Labels:
    """Labels and their embeddings.

    Attributes:
        names: The labels, each once.
        embeddings: One L2-normalised row per label, float32 ``[N, D]``.
    """

    names: Sequence[str]
    embeddings: NDArray[np.float32]


def write_labels(build: Path, labels: Labels, tower: ImagePart | TextPart | None) -> LabelPart:
    """Write the embeddings of labels into a bundle.

    Args:
        build: The folder of the bundle.
        labels: The labels.
        tower: A tower of the bundle, which has the same width.

    Returns:
        The labels' entry in the manifest.

    Raises:
        ExportError: The labels are invalid, or their embeddings have another width.
    """
    try:
        names = checked_labels(labels.names)
    except RecipeError as error:
        raise ExportError(f"export.{error}") from error
    found = np.ascontiguousarray(labels.embeddings, dtype="<f4")
    width = 0 if tower is None else tower.width
    if found.shape != (len(names), width):
        raise ExportError(
            f"export.labels: the embeddings of {len(names)} labels have shape "
            f"{list(found.shape)}, but the student's embeddings have width {width}; leave out "
            "student.width to get the teacher's width"
        )
    np.save(build / LABELS_FILE, found, allow_pickle=False)
    digest = hashlib.sha256((build / LABELS_FILE).read_bytes()).hexdigest()
    return LabelPart(file=LABELS_FILE, sha256=digest, names=names)
