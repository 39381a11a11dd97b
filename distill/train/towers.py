"""The towers of a student, and which of the teacher's embeddings it learns from."""

from collections.abc import Collection
from dataclasses import dataclass

from distill.losses.catalogue import TERMS
from distill.teacher.cache.manifest import Part


@dataclass(frozen=True)
class Towers:
    """Which towers a student has."""

    image: bool = True
    text: bool = True


BOTH = Towers()
# The part of the corpus that a tower's rows are compared with, as the catalogue of losses says.
_COMPARED: dict[str, dict[Part, Part]] = {
    "own": {"images": "images", "captions": "captions"},
    "other": {"images": "captions", "captions": "images"},
}


def corpus_parts(towers: Towers, terms: Collection[str]) -> frozenset[Part]:
    """Return the parts of the corpus that the named terms compare the student with."""
    compared = [which for term in terms if (which := TERMS[term].compared) is not None]
    return frozenset(_COMPARED[which][part] for which in compared for part in _own_parts(towers))


def teacher_parts(towers: Towers, terms: Collection[str]) -> frozenset[Part]:
    """Return the parts of the training data that the teacher must embed, besides prompts."""
    return _own_parts(towers) | corpus_parts(towers, terms)


def _own_parts(towers: Towers) -> frozenset[Part]:
    """Return the parts of the training data that the student embeds."""
    parts: set[Part] = set()
    if towers.image:
        parts.add("images")
    if towers.text:
        parts.add("captions")
    return frozenset(parts)
