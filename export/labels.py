"""Labels that a bundle carries: embedded where a teacher is at hand, for a device without one."""

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
    """Labels by name, and an L2-normalised vector for each, float32 ``[N, D]``."""

    names: Sequence[str]
    embeddings: NDArray[np.float32]


def write_labels(build: Path, labels: Labels, tower: ImagePart | TextPart | None) -> LabelPart:
    """Write the embeddings of labels into a bundle with a tower; return their part of the manifest.

    Raises:
        ExportError: The labels cannot be used, or their embeddings are of another width.
    """
    try:
        names = checked_labels(labels.names)
    except RecipeError as error:
        raise ExportError(f"export.{error}") from error
    found = np.ascontiguousarray(labels.embeddings, dtype="<f4")
    width = 0 if tower is None else tower.width
    if found.shape != (len(names), width):
        raise ExportError(
            f"export.labels: {len(names)} labels are embedded as {list(found.shape)}, and the "
            f"student embeds in {width} numbers; leave student.width out, so that it is the "
            "teacher's"
        )
    np.save(build / LABELS_FILE, found, allow_pickle=False)
    digest = hashlib.sha256((build / LABELS_FILE).read_bytes()).hexdigest()
    return LabelPart(file=LABELS_FILE, sha256=digest, names=names)
