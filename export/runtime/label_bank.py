"""The labels that a bundle carries with it, embedded once when it was written."""

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
    """Labels and their embeddings, read from a bundle and checked against its manifest.

    Args:
        path: The file with the embeddings.
        part: What the manifest says about it.
        width: Width of the bundle's embeddings.

    Attributes:
        names: The labels.
        embeddings: A row for each, float32 ``[N, D]``, L2-normalised.

    Raises:
        BundleError: The file is missing, damaged, or another than the manifest describes.
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
                f"{path}: the bundle's labels are not those of its manifest (another sha256); "
                "export the student again"
            )
        try:
            found = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise BundleError(
                f"{path}: the bundle's labels are no array; export the student again"
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
        """Give the embeddings of some labels, or ``None`` where one of them is not here."""
        if any(label not in self._rows for label in labels):
            return None
        return np.asarray(self.embeddings[[self._rows[label] for label in labels]])

    def explain(self, labels: Sequence[str]) -> str:
        """Say which of some labels are not here."""
        absent = [label for label in labels if label not in self._rows]
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        near = difflib.get_close_matches(absent[0], self.names, n=1)
        hint = f" (the nearest is {near[0]!r})" if near else ""
        return f"{absent[0]!r}{hint}{more}"


def checked_labels(labels: Sequence[Any]) -> tuple[str, ...]:
    """Give labels as a tuple.

    Raises:
        RecipeError: There is none, one is no text or empty, or one stands there twice.
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
