"""The values of terms, compared with formulas in NumPy and with known numbers."""

import math
from dataclasses import replace

import pytest

from tests.distill.losses import references
from tests.distill.losses.cases import CASES, NAMES, banks
from tests.distill.losses.references import GROUPS, ROWS, make
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    from distill.losses.alignment import embedding_alignment
    from distill.losses.contrastive import (
        contrastive,
        interactive_contrastive,
        sigmoid_contrastive,
        soft_target,
    )
    from distill.losses.corpus import corpus_kl, corpus_relational
    from distill.losses.distributions import kl_divergence, relational
    from distill.losses.embeddings import Embeddings
    from distill.losses.prompts import prompt_kl
    from distill.losses.weighted import term_function

GROUPED = {
    "contrastive": lambda student, groups: contrastive(student, groups),
    "interactive_contrastive": lambda student, groups: interactive_contrastive(
        student, make(1), groups
    ),
    "sigmoid_contrastive": lambda student, groups: sigmoid_contrastive(student, groups),
}


@pytest.mark.parametrize("rows", [1, 2, ROWS])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_term_equals_its_formula_in_numpy(case, rows):
    student, teacher = make(0, rows=rows, bias=-2.0), make(1, rows=rows, scale=20.0, bias=1.0)
    value = case(student, teacher)
    assert value.shape == ()
    assert value.item() == pytest.approx(case.reference(student, teacher), abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_float32_stays_within_1e_6_of_float64(case):
    student, teacher = make(0, dtype=torch.float32), make(1, dtype=torch.float32)
    value = case(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(case.reference(student, teacher), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("term", ["kl_divergence", "relational"])
def test_widths_may_differ(term):
    student, teacher = make(0), make(1, width=9, scale=20.0, bias=-3.0)
    expected = getattr(references, term)(student, teacher, 2.0)
    value = term_function(term)(student, teacher, temperature=2.0)
    assert value.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("groups", [[-1] * ROWS, [-1] * (ROWS - 1) + [4], [2] * ROWS])
@pytest.mark.parametrize("name", GROUPED)
def test_groups_with_no_one_and_all_rows(name, groups):
    student = make(0, bias=-2.0)
    value = GROUPED[name](student, torch.tensor(groups))
    arguments = (student, make(1)) if name == "interactive_contrastive" else (student,)
    expected = getattr(references, name)(*arguments, groups)
    assert value.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["contrastive", "sigmoid_contrastive"])
def test_rows_of_group_minus_one_are_left_out_as_rows_and_columns(name):
    full = make(0)
    kept = torch.tensor([i for i, group in enumerate(GROUPS) if group != -1])
    without = Embeddings(full.image[kept], full.text[kept], full.scale)
    ids = torch.tensor(GROUPS)
    torch.testing.assert_close(GROUPED[name](full, ids), GROUPED[name](without, ids[kept]))


def test_the_teachers_rows_of_group_minus_one_are_left_out():
    student, teacher = make(0), make(1)
    teacher.text[3] = student.image[0]
    ids = torch.tensor(GROUPS)
    before = interactive_contrastive(student, teacher, ids)
    teacher.text[3] = -student.image[0]
    assert torch.equal(interactive_contrastive(student, teacher, ids), before)


@pytest.mark.parametrize("name", GROUPED)
def test_without_partners_the_term_and_its_gradients_are_zero(name):
    student = make(0, bias=1.0, grad=True)
    value = GROUPED[name](student, torch.full((ROWS,), -1))
    value.backward()
    assert value.item() == 0.0
    for tensor in (student.image, student.text, student.scale, student.bias):
        assert tensor.grad.abs().max() == 0.0


@pytest.mark.parametrize("name", ["contrastive", "sigmoid_contrastive"])
def test_within_a_group_every_image_and_caption_form_a_true_pair(name):
    student, ids = make(0), torch.tensor(GROUPS)
    swapped = student.text[[2, 1, 0, 3, 4, 5, 6]]  # rows 0 and 2 are of one group
    other = Embeddings(student.image, swapped, student.scale)
    term = term_function(name)
    torch.testing.assert_close(term(student, ids), term(other, ids))
    assert abs(term(student) - term(other)) > 0.01


def test_contrastive_without_groups_is_the_loss_of_transformers_clip():
    student = make(0, scale=14.3)
    logits_per_text = student.scale * student.text @ student.image.T
    torch.testing.assert_close(contrastive(student), image_text_contrastive_loss(logits_per_text))


def test_a_student_equal_to_the_teacher_has_nothing_to_learn():
    teacher = make(0)
    corpus_image, corpus_text = banks()
    for term in (
        lambda student: kl_divergence(student, teacher, 2.0),
        lambda student: relational(student, teacher),
        lambda student: corpus_kl(student, teacher, corpus_image, corpus_text),
        lambda student: embedding_alignment(student, teacher, "mse"),
    ):
        student = make(0, grad=True)
        value = term(student)
        value.backward()
        assert value.item() == 0.0
        assert student.image.grad.abs().max() < 1e-12
    assert embedding_alignment(teacher, teacher).item() == pytest.approx(0.0, abs=1e-12)


def test_golden_numbers():
    angle = math.pi / 3
    turned = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    pairs = Embeddings(torch.eye(2), torch.eye(2), torch.tensor(2.0))
    flat = Embeddings(torch.eye(2), torch.eye(2), torch.tensor(0.0))
    shifted = Embeddings(turned, turned, torch.tensor(1.0))
    # ln(1 + e⁻²), and ln 2 minus the entropy of (e² / (1 + e²), 1 / (1 + e²)).
    assert float(contrastive(pairs)) == pytest.approx(0.1269280, abs=1e-6)
    assert float(interactive_contrastive(pairs, flat)) == pytest.approx(0.1269280, abs=1e-6)
    assert float(kl_divergence(flat, pairs)) == pytest.approx(0.3278136, abs=1e-6)
    scales = (torch.tensor(0.0), torch.tensor(2.0))
    bank_kl = prompt_kl(torch.eye(2), torch.eye(2), torch.eye(2), *scales)
    assert float(bank_kl) == pytest.approx(0.3278136, abs=1e-6)
    for over_corpus in (corpus_kl, corpus_relational):
        value = over_corpus(flat, pairs, torch.eye(2), torch.eye(2))
        assert float(value) == pytest.approx(0.3278136, abs=1e-6)
    # The target is (e² / (1 + e²), 1 / (1 + e²)) itself: its entropy.
    assert float(soft_target(pairs)) == pytest.approx(math.log(2) - 0.3278136, abs=1e-6)
    # A row has one true pair and one false: ln(1 + e⁻²) + ln 2.
    assert float(sigmoid_contrastive(pairs)) == pytest.approx(0.1269280 + math.log(2), abs=1e-6)
    # Two rows have one other each, which nothing can be confused with; three have two.
    assert relational(flat, pairs).item() == 0.0
    assert contrastive(make(0, rows=1)).item() == 0.0
    # At 60°: a half, the chord's square, and half of that, since no gap passes 1.
    assert float(embedding_alignment(pairs, shifted)) == pytest.approx(0.5, abs=1e-6)
    assert float(embedding_alignment(pairs, shifted, "mse")) == pytest.approx(1.0, abs=1e-6)
    assert float(embedding_alignment(pairs, shifted, "smooth_l1")) == pytest.approx(0.5, abs=1e-6)


def test_golden_number_of_three_related_rows():
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    flat = Embeddings(right, None, torch.tensor(0.0))
    teacher = Embeddings(right, None, torch.tensor(2.0))
    # Rows 0 and 1 know which other they resemble, row 2 does not: two thirds of 0.3278136.
    assert float(relational(flat, teacher)) == pytest.approx(0.3278136 * 2 / 3, abs=1e-6)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_equal_rows(case):
    def alike(seed):
        model = make(seed, bias=0.5)
        rows = [tower[:1].expand(ROWS, -1).contiguous() for tower in (model.image, model.text)]
        return Embeddings(*rows, model.scale, model.bias)

    student, teacher = alike(0), alike(1)
    expected = case.reference(student, teacher)
    assert case(student, teacher).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_large_logits_keep_their_accuracy(case, scale):
    student, teacher = (make(seed, dtype=torch.float32, scale=scale) for seed in (0, 1))
    value = case(student, teacher).item()
    # An input's own rounding moves a logit by 6e-8 of the scale.
    assert value == pytest.approx(case.reference(student, teacher), rel=1e-5, abs=2e-7 * scale)


@pytest.mark.parametrize("scale", [1e4, 1e12, 1e30])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_very_large_logits_do_not_overflow(case, scale):
    student = make(0, dtype=torch.float32, scale=scale, bias=3.0, grad=True)
    teacher = make(1, dtype=torch.float32, scale=scale)
    value = case(student, teacher)
    value.backward()
    assert math.isfinite(value.item())
    for tensor in (student.image, student.text, student.scale, student.bias):
        assert tensor.grad is None or torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_results_are_deterministic(case):
    def run():
        student, teacher = make(0, dtype=torch.float32, grad=True), make(1, dtype=torch.float32)
        value = case(student, teacher)
        value.backward()
        return [value.detach(), student.image.grad, student.text.grad, student.scale.grad]

    for first, second in zip(run(), run(), strict=True):
        assert first is second is None or torch.equal(first, second)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("name", ["embedding_alignment", "relational"])
def test_terms_of_common_towers_skip_a_missing_one(name, tower):
    term, reference = term_function(name), getattr(references, name)
    student, teacher = replace(make(0), **{tower: None}), make(1)
    expected = reference(student, teacher)
    assert term(student, teacher).item() == pytest.approx(expected, abs=1e-9)
    assert term(teacher, student).item() == pytest.approx(reference(teacher, student), abs=1e-9)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_corpus_terms_need_no_bank_for_a_missing_tower(tower):
    student, teacher = replace(make(0), **{tower: None}), make(1)
    corpus_image, corpus_text = banks()
    both = references.corpus_kl(student, teacher, corpus_image, corpus_text)
    needed = (corpus_image, None) if tower == "image" else (None, corpus_text)
    assert corpus_kl(student, teacher, *needed).item() == pytest.approx(both, abs=1e-9)
    alike = references.corpus_relational(student, teacher, corpus_image, corpus_text)
    needed = (None, corpus_text) if tower == "image" else (corpus_image, None)
    assert corpus_relational(student, teacher, *needed).item() == pytest.approx(alike, abs=1e-9)


def test_embeddings_from_inference_mode_can_teach():
    student = make(0, grad=True)
    with torch.inference_mode():
        seen = make(1)
    for term in (kl_divergence, relational, embedding_alignment):
        value = term(student, seen)
        value.backward()
        assert value.item() == pytest.approx(term(student, make(1)).item(), abs=1e-12)
    prompt_kl(student.image, seen.image, seen.text, student.scale, seen.scale).backward()
    embedding_alignment(student, seen, "smooth_l1").backward()


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_distributions_over_one_entry_leave_nothing_to_match(scale):
    models = [make(seed, rows=1, scale=scale, dtype=torch.float32) for seed in (0, 1)]
    assert kl_divergence(*models, 50.0).item() == 0
    bank = models[1].text
    student, teacher = models
    assert prompt_kl(student.image, teacher.image, bank, student.scale, teacher.scale).item() == 0
    pairs = [make(seed, rows=2, scale=scale, dtype=torch.float32) for seed in (0, 1)]
    assert relational(*pairs).item() == 0
