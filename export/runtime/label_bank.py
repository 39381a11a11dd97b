"""The labels that a bundle carries, with embeddings computed when it was written."""

import difflib
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BundleError, RecipeError
from .manifest import LabelPart


class LabelBank:
    """The labels of a bundle and their embeddings, checked against the manifest.

    Args:
        path: The file with the embeddings.
        part: What the manifest says about this file.
        width: Width of the bundle's embeddings.

    Attributes:
        names: The labels.
        embeddings: One L2-normalised row per label, float32 ``[N, D]``.

    Raises:
        BundleError: The file is missing or damaged, or does not match the manifest.
    """

    def __init__(self, path: Path, part: LabelPart, *, width: int) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: the bundle's labels are missing; export the student again"
            ) from error
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise BundleError(
                f"{path}: the bundle's labels do not match its manifest (the sha256 differs); "
                "export the student again"
            )
        try:
            found = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise BundleError(
                f"{path}: the bundle's labels are not an array; export the student again"
            ) from error
        if found.dtype != np.float32 or found.shape != (len(part.names), width):
            raise BundleError(
                f"{path}: found {found.dtype} {list(found.shape)}, expected float32 "
                f"[{len(part.names)}, {width}]; export the student again"
            )
        self.names = part.names
        self.embeddings = found
        self._rows = {name: row for row, name in enumerate(part.names)}

    def rows(self, labels: Sequence[str]) -> np.ndarray | None:
        """Return the embeddings of these labels, or ``None`` if any of them is unknown."""
        if any(label not in self._rows for label in labels):
            return None
        return np.asarray(self.embeddings[[self._rows[label] for label in labels]])

    def explain(self, labels: Sequence[str]) -> str:
        """Say which of these labels are unknown, and suggest the nearest known label."""
        absent = [label for label in labels if label not in self._rows]
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        near = difflib.get_close_matches(absent[0], self.names, n=1)
        hint = f" (the nearest is {near[0]!r})" if near else ""
        return f"{absent[0]!r}{hint}{more}"


def checked_labels(labels: Sequence[Any]) -> tuple[str, ...]:
    """Check labels, and return them as a tuple.

    Raises:
        RecipeError: The list is empty, or a label is empty, not a text, or given twice.
    """
    if isinstance(labels, str):
        raise RecipeError(f"labels: found one text {labels!r}, expected a list of texts")
    found = tuple(labels)
    if not found:
        raise RecipeError("labels: found none, expected at least one")
    seen: set[str] = set()
    for label in found:
        if not isinstance(label, str) or not label.strip():
            raise RecipeError(f"labels: found {label!r}, expected a text that is not empty")
        if label in seen:
            raise RecipeError(f"labels: found {label!r} twice, expected each label once")
        seen.add(label)
    return found
