"""Every term as a function of student and teacher alone, beside its reference."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from distill.losses import terms as losses
from tests.distill.losses import references
from tests.distill.losses.references import GROUPS, make


def banks(*, dtype=torch.float64, grad=False):
    """Return the teacher's pictures and texts of a small corpus; it is no batch's size."""
    corpus = make(7, rows=11, dtype=dtype)
    return corpus.image.requires_grad_(grad), corpus.text[:10].requires_grad_(grad)


@dataclass(frozen=True)
class Case:
    """A term with some arguments. ``groups`` are cut to the batch."""

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
        return self.term not in ("contrastive", "soft_target", "sigmoid_contrastive")

    def __call__(self, student, teacher, *, module=losses):
        function = getattr(module, self.term)
        arguments = dict(self.arguments)
        if self.groups is not None:
            ids = self.groups[: len(student.image)]
            arguments["groups"] = ids if module is references else torch.tensor(ids)
        corpus_image, corpus_text = banks(dtype=self.bank_dtype or teacher.image.dtype)
        if self.term == "prompt_kl":
            inputs = [student.image, teacher.image, corpus_text, student.scale, teacher.scale]
        elif self.term.startswith("corpus_"):
            inputs = [student, teacher, corpus_image, corpus_text]
        else:
            inputs = [student, teacher] if self.needs_teacher else [student]
        return function(*inputs, **arguments)

    def reference(self, student, teacher):
        return self(student, teacher, module=references)


CASES = [
    Case("kl_divergence", {}),
    Case("kl_divergence", {"temperature": 3.0}),
    Case("embedding_alignment", {}),
    Case("embedding_alignment", {"kind": "mse"}),
    Case("embedding_alignment", {"kind": "smooth_l1"}),
    Case("contrastive", {}),
    Case("contrastive", {}, tuple(GROUPS)),
    Case("interactive_contrastive", {}),
    Case("interactive_contrastive", {}, tuple(GROUPS)),
    Case("relational", {}),
    Case("relational", {"temperature": 0.5}),
    Case("soft_target", {}),
    Case("soft_target", {"temperature": 2.0}),
    Case("sigmoid_contrastive", {}),
    Case("sigmoid_contrastive", {}, tuple(GROUPS)),
    Case("prompt_kl", {}),
    Case("prompt_kl", {"temperature": 2.0}),
    Case("corpus_kl", {}),
    Case("corpus_kl", {"temperature": 2.0}),
    Case("corpus_relational", {}),
    Case("corpus_relational", {"temperature": 2.0}),
]
NAMES = [str(case) for case in CASES]
