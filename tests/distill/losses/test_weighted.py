"""The weighted sum of a recipe's terms."""

import math
from dataclasses import replace

import pytest

from tests.distill.losses.cases import banks
from tests.distill.losses.references import GROUPS, make
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.losses.alignment import embedding_alignment
    from distill.losses.contrastive import contrastive, interactive_contrastive
    from distill.losses.corpus import corpus_kl, corpus_relational
    from distill.losses.distributions import kl_divergence
    from distill.losses.embeddings import Embeddings
    from distill.losses.prompts import prompt_kl
    from distill.losses.weighted import Banks, Mask, Term, WeightedLoss


def only_value(term, student, teacher, **arguments):
    """Return the value of a loss of one term."""
    loss = WeightedLoss({term: arguments.pop("entry", Term(1.0))})
    return loss(student, teacher, groups=None, progress=0.0, **arguments)[0].item()


def test_the_weighted_sum_is_the_sum_of_its_terms():
    student, teacher = make(0, grad=True), make(1)
    ids = torch.tensor(GROUPS)
    corpus_image, corpus_text = banks()
    entries = {
        "kl_divergence": (Term(2.0, {"temperature": 3.0}), kl_divergence(student, teacher, 3.0)),
        "embedding_alignment": (
            Term(5.0, {"kind": "mse"}),
            embedding_alignment(student, teacher, "mse"),
        ),
        "contrastive": (Term(0.25), contrastive(student, ids)),
        "corpus_kl": (Term(0.5), corpus_kl(student, teacher, corpus_image, corpus_text)),
        "corpus_relational": (
            Term(0.5),
            corpus_relational(student, teacher, corpus_image, corpus_text),
        ),
        "prompt_kl": (
            Term(0.75),
            prompt_kl(student.image, teacher.image, corpus_text, student.scale, teacher.scale),
        ),
    }
    loss = WeightedLoss({name: term for name, (term, _) in entries.items()})
    total, terms = loss(
        student,
        teacher,
        groups=ids,
        progress=0.3,
        banks=Banks(corpus_text, corpus_image, corpus_text),
    )
    assert terms.keys() == entries.keys()
    for name, (_, value) in entries.items():
        assert torch.equal(terms[name], value.detach())
        assert not terms[name].requires_grad
    wanted = sum(term.weight * value.item() for term, value in entries.values())
    assert total.item() == pytest.approx(wanted, abs=1e-9)
    assert total.requires_grad


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        ("none", [2.0, 2.0, 2.0, 2.0]),
        ("linear", [2.0, 1.5, 1.0, 0.0]),
        ("cosine", [2.0, 2.0 - (1 - math.sqrt(0.5)), 1.0, 0.0]),
    ],
)
def test_weights_follow_their_schedule(schedule, weights):
    term = Term(2.0, schedule=schedule, end=0.0)
    assert [term.weight_at(share) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(weights)
    student = make(0)
    total, terms = WeightedLoss({"contrastive": term})(student, None, groups=None, progress=0.25)
    assert total.item() == pytest.approx(weights[1] * float(terms["contrastive"]))


def test_a_term_with_weight_zero_is_not_computed():
    term = Term(0.0, schedule="linear", end=1.0)
    loss = WeightedLoss({"contrastive": Term(1.0), "kl_divergence": term})
    student = make(0, grad=True)
    _, terms = loss(student, None, groups=None, progress=0.0)
    assert terms.keys() == {"contrastive"}
    assert loss(student, make(1), groups=None, progress=0.5)[1].keys() == loss.terms.keys()
    nothing, terms = loss.only("kl_divergence")(student, None, groups=None, progress=0.0)
    nothing.backward()
    assert nothing.item() == 0.0
    assert not terms
    assert student.scale.grad == 0


def test_scale_teacher_uses_the_teachers_scale_for_both():
    student, teacher = make(0, bias=5.0, grad=True), make(1, scale=20.0, bias=-3.0)
    value = only_value(
        "kl_divergence", student, teacher, entry=Term(1.0, options={"scale": "teacher"})
    )
    same = Embeddings(student.image, student.text, teacher.scale, teacher.bias)
    assert value == pytest.approx(kl_divergence(same, teacher).item(), abs=1e-12)
    own = only_value("kl_divergence", student, teacher, entry=Term(1.0, options={"scale": "own"}))
    assert own == pytest.approx(kl_divergence(student, teacher).item(), abs=1e-12)


@pytest.mark.parametrize("term", ["kl_divergence", "interactive_contrastive"])
def test_scale_may_be_a_factor_of_the_teachers(term):
    student, teacher = make(0, grad=True), make(1, scale=20.0)
    value = only_value(term, student, teacher, entry=Term(1.0, options={"scale": 0.45}))
    same = replace(student, scale=torch.tensor(9.0, dtype=torch.float64))
    expected = {"kl_divergence": kl_divergence, "interactive_contrastive": interactive_contrastive}
    assert value == pytest.approx(expected[term](same, teacher).item(), abs=1e-12)


def test_alignment_is_the_part_that_may_train_alone():
    loss = WeightedLoss({"contrastive": Term(1.0), "embedding_alignment": Term(5.0)})
    assert loss.alignment.terms == {"embedding_alignment": Term(5.0)}
    with pytest.raises(ValueError, match="none of embedding_alignment"):
        _ = WeightedLoss({"contrastive": Term(1.0)}).alignment


def test_terms_with_partners_are_not_measured_on_held_out_data():
    both = {"corpus_contrastive": Term(0.5), "kl_divergence": Term(1.0)}
    held_out = WeightedLoss(both).held_out
    assert held_out is not None
    assert held_out.terms == {"kl_divergence": Term(1.0)}
    assert WeightedLoss({"corpus_contrastive": Term(0.5)}).held_out is None


def test_only_alignment_takes_masked_pictures():
    student, teacher, masked = make(0), make(1), make(2).image
    expected = embedding_alignment(replace(student, image=masked), teacher).item()
    assert only_value("embedding_alignment", student, teacher, masked=masked) == expected
    whole = kl_divergence(student, teacher).item()
    assert only_value("kl_divergence", student, teacher, masked=masked) == whole


def test_the_mask_comes_from_the_options_of_alignment():
    options = {"mask_ratio": 0.75, "mask_patch": 8}
    assert WeightedLoss({"embedding_alignment": Term(1.0, options=options)}).mask == Mask(0.75, 8)
    assert WeightedLoss({"embedding_alignment": Term(1.0)}).mask is None
    assert WeightedLoss({"contrastive": Term(1.0)}).mask is None


def test_only_keeps_the_named_terms():
    loss = WeightedLoss({"contrastive": Term(1.0), "embedding_alignment": Term(5.0)})
    assert loss.only("embedding_alignment", "kl_divergence").terms == {
        "embedding_alignment": Term(5.0)
    }
    with pytest.raises(ValueError, match="none of kl_divergence"):
        loss.only("kl_divergence")


def test_a_student_without_text_tower():
    student, teacher = replace(make(0), text=None), make(1)
    _, corpus_text = banks()
    terms = {"embedding_alignment": Term(1.0), "prompt_kl": Term(1.0), "corpus_kl": Term(1.0)}
    _, values = WeightedLoss(terms)(
        student,
        teacher,
        groups=None,
        progress=0.0,
        banks=Banks(prompts=corpus_text, corpus_text=corpus_text),
    )
    assert values["prompt_kl"] == values["corpus_kl"]


def test_errors_name_what_a_term_lacks():
    with pytest.raises(ValueError, match=r"'contrastve' is unknown.*contrastive"):
        WeightedLoss({"contrastve": Term(1.0)})
    with pytest.raises(ValueError, match="no term"):
        WeightedLoss({})
    loss = WeightedLoss({"kl_divergence": Term(1.0)})
    assert loss.needs_teacher
    with pytest.raises(ValueError, match="needs a teacher, but none is given"):
        loss(make(0), None, groups=None, progress=0.0)
    assert not WeightedLoss({"contrastive": Term(1.0)}).needs_teacher
    with pytest.raises(ValueError, match="prompt_kl: needs a bank of prompts, but none is given"):
        only_value("prompt_kl", make(0), make(1))
    with pytest.raises(ValueError, match="corpus_kl: needs the corpus's texts, but none are given"):
        only_value("corpus_kl", make(0), make(1))
    with pytest.raises(
        ValueError, match="prompt_kl: needs images, but the student has no image tower"
    ):
        only_value("prompt_kl", replace(make(0), image=None), make(1))
