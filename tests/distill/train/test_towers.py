"""The parts of the data that the teacher embeds for a student."""

import pytest

from distill.losses.catalogue import TERMS
from distill.train.towers import BOTH, Towers, corpus_parts, teacher_parts

IMAGE, TEXT = Towers(text=False), Towers(image=False)


@pytest.mark.parametrize(
    ("towers", "terms", "corpus", "teacher"),
    [
        (IMAGE, ["embedding_alignment", "relational", "prompt_kl"], "", "images"),
        (IMAGE, ["corpus_relational"], "images", "images"),
        (IMAGE, ["corpus_kl"], "captions", "images captions"),
        (IMAGE, ["corpus_contrastive", "corpus_relational"], "images captions", "images captions"),
        (TEXT, ["embedding_alignment"], "", "captions"),
        (TEXT, ["corpus_relational"], "captions", "captions"),
        (TEXT, ["corpus_kl"], "images", "images captions"),
        (BOTH, ["embedding_alignment"], "", "images captions"),
        (BOTH, ["corpus_relational"], "images captions", "images captions"),
    ],
)
def test_only_compared_parts_are_embedded(
    towers: Towers, terms: list[str], corpus: str, teacher: str
) -> None:
    assert corpus_parts(towers, terms) == set(corpus.split())
    assert teacher_parts(towers, terms) == set(teacher.split())


def test_terms_that_need_the_corpus_have_parts_of_it() -> None:
    for term in TERMS:
        assert bool(corpus_parts(BOTH, [term])) == TERMS[term].needs_corpus
