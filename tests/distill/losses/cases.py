"""Test cases: every term as a function of student and teacher alone, with its references."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from distill.losses.catalogue import TERMS
from tests.distill.losses import references
from tests.distill.losses.references import ARGUMENTS, GROUPS, make
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.losses.weighted import term_function

# Rows of the batch and of the corpus that belong together; rows 1 and 5 have no partner.
IMAGE_PARTNERS = ((0, 1), (0, 6), (2, 3), (3, 9), (4, 0), (4, 5), (6, 6))
TEXT_PARTNERS = ((0, 2), (2, 10), (3, 0), (4, 7), (6, 7))


def banks(*, dtype=None, grad=False):
    """Return the teacher's images and texts of a corpus that differs in size from the batch."""
    corpus = make(7, rows=11, dtype=dtype)
    return corpus.image.requires_grad_(grad), corpus.text[:10].requires_grad_(grad)


def partners(pairs, *, rows):
    """Return the partners of the first rows as a tensor ``[P, 2]``."""
    kept = [pair for pair in pairs if pair[0] < rows]
    return torch.tensor(kept, dtype=torch.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Case:
    """A term with arguments; ``groups`` are cut to the size of the batch."""

    term: str
    arguments: dict[str, Any]
    groups: tuple[int, ...] | None = None
    bank_dtype: torch.dtype | None = None

    def __str__(self):
        words = [self.term, *(str(value) for value in self.arguments.values())]
        return "-".join([*words, *(["groups"] if self.groups else [])])

    def with_banks_of(self, dtype):
        return replace(self, bank_dtype=dtype)

    @property
    def needs_teacher(self):
        return TERMS[self.term].needs_teacher

    def inputs(self, student, teacher, *, corpus=None):
        """Return what the term takes before its own arguments, as its row says."""
        corpus_image, corpus_text = corpus or banks(dtype=self.bank_dtype or teacher.image.dtype)
        rows = len(student.image)
        groups = None if self.groups is None else torch.tensor(self.groups[:rows])
        given = {
            "student": student,
            "teacher": teacher,
            "student_image": student.image,
            "teacher_image": teacher.image,
            "student_scale": student.scale,
            "teacher_scale": teacher.scale,
            "groups": groups,
            "bank": corpus_text,
            "corpus_image": corpus_image,
            "corpus_text": corpus_text,
            "image_partners": partners(IMAGE_PARTNERS, rows=rows),
            "text_partners": partners(TEXT_PARTNERS, rows=rows),
        }
        return [given[name] for name in TERMS[self.term].inputs]

    def call(self, function: Callable[..., Any], student, teacher, *, corpus=None):
        return function(*self.inputs(student, teacher, corpus=corpus), **self.arguments)

    def __call__(self, student, teacher, *, corpus=None):
        return self.call(term_function(self.term), student, teacher, corpus=corpus)

    def reference(self, student, teacher):
        return self.call(getattr(references, self.term), student, teacher)

    def in_plain_torch(self, student, teacher):
        return self.call(getattr(references, f"torch_{self.term}"), student, teacher)


CASES = [
    Case(term, arguments, groups)
    for term, tested in ARGUMENTS.items()
    for arguments in tested
    for groups in ((None, tuple(GROUPS)) if "groups" in TERMS[term].inputs else (None,))
]
NAMES = [str(case) for case in CASES]
