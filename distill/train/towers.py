"""Which of the teacher's embeddings a student learns from: of pictures, of captions, or both."""

from collections.abc import Collection
from dataclasses import dataclass

from distill.teacher.cache.manifest import Part


@dataclass(frozen=True)
class Towers:
    """Which towers a student has."""

    image: bool = True
    text: bool = True


BOTH = Towers()
_OWN: dict[Part, Part] = {"images": "images", "captions": "captions"}
_OTHER: dict[Part, Part] = {"images": "captions", "captions": "images"}
# The part of the corpus that each term compares a tower's rows with.
_COMPARED: dict[str, dict[Part, Part]] = {
    "corpus_kl": _OTHER,
    "corpus_contrastive": _OTHER,
    "corpus_relational": _OWN,
}


def corpus_parts(towers: Towers, terms: Collection[str]) -> frozenset[Part]:
    """Return the parts of the corpus that the named terms compare a student's rows with."""
    compared = (_COMPARED[term] for term in terms if term in _COMPARED)
    return frozenset(other[part] for other in compared for part in own_parts(towers))


def teacher_parts(towers: Towers, terms: Collection[str]) -> frozenset[Part]:
    """Return what the teacher has to embed of the training data; a bank of prompts is apart."""
    return own_parts(towers) | corpus_parts(towers, terms)


def own_parts(towers: Towers) -> frozenset[Part]:
    """Return what the student itself embeds."""
    parts: set[Part] = set()
    if towers.image:
        parts.add("images")
    if towers.text:
        parts.add("captions")
    return frozenset(parts)
