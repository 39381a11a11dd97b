"""Inputs that do not fit raise a ValueError that says why."""

import math
from dataclasses import replace
from functools import cache

import pytest

from tests.distill.losses.cases import banks
from tests.distill.losses.references import make
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.losses.alignment import embedding_alignment
    from distill.losses.contrastive import (
        contrastive,
        interactive_contrastive,
        sigmoid_contrastive,
        soft_target,
    )
    from distill.losses.corpus import corpus_kl
    from distill.losses.distributions import kl_divergence, relational
    from distill.losses.prompts import prompt_kl
    from distill.losses.weighted import term_function


@cache
def whole():
    return make(0)


def without(tower):
    return replace(whole(), **{tower: None})


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize(
    ("call", "model"),
    [
        (lambda model: kl_divergence(model, whole()), "kl_divergence.*student"),
        (lambda model: kl_divergence(whole(), model), "kl_divergence.*teacher"),
        (lambda model: contrastive(model), "^contrastive.*student"),
        (lambda model: interactive_contrastive(model, whole()), "interactive_contrastive.*student"),
        (lambda model: interactive_contrastive(whole(), model), "interactive_contrastive.*teacher"),
        (lambda model: soft_target(model), "soft_target.*student"),
        (lambda model: sigmoid_contrastive(model), "sigmoid_contrastive.*student"),
    ],
)
def test_terms_that_need_both_towers_name_the_missing_one(call, model, tower):
    with pytest.raises(ValueError, match=f"{model}") as caught:
        call(without(tower))
    assert f"needs both towers, but the {model.split('.*')[1]} has no {tower} tower" in str(
        caught.value
    )


@pytest.mark.parametrize("term", ["embedding_alignment", "relational"])
def test_models_without_a_common_tower_are_refused(term):
    with pytest.raises(ValueError, match=f"{term}.*no tower in common"):
        term_function(term)(without("image"), without("text"))


@pytest.mark.parametrize("tower", ["image", "text"])
def test_corpus_terms_need_a_teacher_and_a_bank_for_each_tower(tower):
    with pytest.raises(
        ValueError, match=f"the student has an? {tower} tower, but the teacher has none"
    ):
        corpus_kl(whole(), without(tower), *banks())
    with pytest.raises(ValueError, match=r"needs the corpus's .*, but none are given"):
        corpus_kl(
            whole(),
            whole(),
            *(
                None if name == tower else bank
                for name, bank in zip(("text", "image"), reversed(banks()), strict=True)
            ),
        )
    with pytest.raises(ValueError, match="the student has no tower"):
        corpus_kl(replace(whole(), image=None, text=None), whole(), *banks())


def test_errors_name_sizes_that_do_not_fit():
    for call, message in [
        (lambda: embedding_alignment(whole(), make(1, width=9)), r"image width is 6, but .* 9"),
        (lambda: interactive_contrastive(whole(), make(1, width=9)), r"width is 6, but .* 9"),
        (lambda: kl_divergence(whole(), make(1, rows=1)), r"7 rows, but .* 1"),
        (lambda: interactive_contrastive(whole(), make(1, rows=1)), r"7 rows, but .* 1"),
        (lambda: embedding_alignment(whole(), make(1, rows=1)), r"7 image rows, but .* 1"),
        (lambda: relational(whole(), make(1, rows=1)), r"7 image rows, but .* 1"),
        (lambda: contrastive(replace(whole(), text=make(1, rows=3).text)), r"\[7, 6\].*\[3, 6\]"),
        (lambda: corpus_kl(whole(), make(1, rows=1), *banks()), r"7 rows, but .* 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_bank_must_have_rows_of_the_same_width():
    image, scale = whole().image, whole().scale
    with pytest.raises(ValueError, match=r"student's width is 6, but the bank's is 9"):
        prompt_kl(image, image, make(1, width=9).text, scale, scale)
    with pytest.raises(ValueError, match=r"teacher's width is 9, but the bank's is 6"):
        prompt_kl(image, make(1, width=9).image, image, scale, scale)
    with pytest.raises(ValueError, match=r"bank is \[0, 6\]"):
        prompt_kl(image, image, image[:0], scale, scale)
    with pytest.raises(ValueError, match=r"7 rows, but .* 1"):
        prompt_kl(image, image[:1], image, scale, scale)


@pytest.mark.parametrize(
    "term",
    [
        lambda model, groups: contrastive(model, groups),
        lambda model, groups: sigmoid_contrastive(model, groups),
        lambda model, groups: interactive_contrastive(model, model, groups),
    ],
)
def test_groups_must_have_one_id_for_each_row(term):
    with pytest.raises(ValueError, match=r"groups is \[2\].*\[7\]"):
        term(whole(), groups=torch.tensor([1, 2]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_must_be_finite_and_above_zero(temperature):
    image, scale = whole().image, whole().scale
    for call in (
        lambda: kl_divergence(whole(), whole(), temperature),
        lambda: relational(whole(), whole(), temperature),
        lambda: soft_target(whole(), temperature),
        lambda: prompt_kl(image, image, image, scale, scale, temperature),
        lambda: corpus_kl(whole(), whole(), *banks(), temperature),
    ):
        with pytest.raises(ValueError, match="must be above 0"):
            call()


def test_an_unknown_kind_lists_the_valid_ones():
    with pytest.raises(ValueError, match="cosine, mse, smooth_l1"):
        embedding_alignment(whole(), whole(), kind="l1")
