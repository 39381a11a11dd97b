"""The loss terms against formulas written out in NumPy, and what their callers rely on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from distill.losses import (
    Embeddings,
    Term,
    WeightedLoss,
    contrastive,
    embedding_alignment,
    kl_divergence,
)

GROUPS = [3, 5, 3, -1, 7, 5, 3]
ROWS = len(GROUPS)


def make(seed, *, rows=ROWS, width=6, scale=8.0, bias=None, dtype=torch.float64, grad=False):
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        torch.nn.functional.normalize(
            torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1
        ).to(dtype)
        for _ in range(2)
    )
    numbers = [torch.tensor(scale, dtype=dtype)]
    if bias is not None:
        numbers.append(torch.tensor(bias, dtype=dtype))
    for tensor in (image, text, *numbers):
        tensor.requires_grad_(grad)
    return Embeddings(image, text, *numbers)


# --- references: one number at a time, in float64 ------------------------------------------------


def softmax_reference(row):
    shifted = [value - max(row) for value in row]
    total = sum(math.exp(value) for value in shifted)
    return [math.exp(value) / total for value in shifted]


def logits_reference(embeddings, *, temperature=1.0):
    image = embeddings.image.double().numpy()
    text = embeddings.text.double().numpy()
    bias = 0.0 if embeddings.bias is None else float(embeddings.bias)
    scores = np.zeros((len(image), len(text)))
    for i in range(len(image)):
        for j in range(len(text)):
            scores[i, j] = (
                float(embeddings.scale) * float(image[i] @ text[j]) + bias
            ) / temperature
    return scores


def kl_reference(student, teacher, temperature):
    ours = logits_reference(student, temperature=temperature)
    theirs = logits_reference(teacher, temperature=temperature)
    total = 0.0
    for a, b in ((ours, theirs), (ours.T, theirs.T)):
        for i in range(len(a)):
            p, q = softmax_reference(b[i]), softmax_reference(a[i])
            total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    return temperature**2 * total / (2 * len(ours))


def contrastive_reference(student, groups=None):
    groups = list(range(len(student.image))) if groups is None else groups
    rows = [i for i, group in enumerate(groups) if group != -1]
    if not rows:
        return 0.0
    scores = logits_reference(student)
    total = 0.0
    for matrix in (scores, scores.T):
        for i in rows:
            chances = softmax_reference([matrix[i, j] for j in rows])
            partners = [n for n, j in enumerate(rows) if groups[j] == groups[i]]
            total -= sum(math.log(chances[n]) for n in partners) / len(partners)
    return total / (2 * len(rows))


def alignment_reference(student, teacher, kind):
    towers = []
    for a, b in ((student.image, teacher.image), (student.text, teacher.text)):
        if a is None or b is None:
            continue
        rows = []
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
            gaps = np.abs(x - y)
            if kind == "cosine":
                rows.append(1 - float(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)))
            elif kind == "mse":
                rows.append(sum(gap**2 for gap in gaps))
            else:
                rows.append(sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps))
        towers.append(sum(rows) / len(rows))
    return sum(towers) / len(towers)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_kl_is_the_written_out_formula(temperature, rows):
    student, teacher = make(0, rows=rows), make(1, rows=rows, width=9, scale=20.0, bias=-3.0)
    value = kl_divergence(student, teacher, temperature)
    assert value.item() == pytest.approx(kl_reference(student, teacher, temperature), abs=1e-9)


@pytest.mark.parametrize("kind", ["cosine", "mse", "smooth_l1"])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_alignment_is_the_written_out_formula(kind, rows):
    student, teacher = make(0, rows=rows), make(1, rows=rows)
    value = embedding_alignment(student, teacher, kind)
    assert value.item() == pytest.approx(alignment_reference(student, teacher, kind), abs=1e-9)


@pytest.mark.parametrize("groups", [None, GROUPS, [-1] * ROWS, [-1] * (ROWS - 1) + [4], [2] * ROWS])
def test_contrastive_is_the_written_out_formula(groups):
    student = make(0, bias=-2.0)
    ids = None if groups is None else torch.tensor(groups)
    value = contrastive(student, ids)
    assert value.item() == pytest.approx(contrastive_reference(student, groups), abs=1e-9)


def test_float32_stays_within_1e_6_of_float64():
    student, teacher = make(0, dtype=torch.float32), make(1, dtype=torch.float32)
    ids = torch.tensor(GROUPS)
    assert float(kl_divergence(student, teacher)) == pytest.approx(
        kl_reference(student, teacher, 1.0), abs=1e-6
    )
    assert float(embedding_alignment(student, teacher)) == pytest.approx(
        alignment_reference(student, teacher, "cosine"), abs=1e-6
    )
    assert float(contrastive(student, ids)) == pytest.approx(
        contrastive_reference(student, GROUPS), abs=1e-6
    )


def test_contrastive_without_groups_is_the_loss_of_clip():
    student = make(0, scale=14.3)
    logits_per_text = student.scale * student.text @ student.image.T
    torch.testing.assert_close(contrastive(student), image_text_contrastive_loss(logits_per_text))


def test_golden_numbers():
    angle = math.pi / 3
    turned = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    pairs = Embeddings(torch.eye(2), torch.eye(2), torch.tensor(2.0))
    flat = Embeddings(torch.eye(2), torch.eye(2), torch.tensor(0.0))
    shifted = Embeddings(turned, turned, torch.tensor(1.0))
    # ln(1 + e⁻²), and ln 2 minus the entropy of (e² / (1 + e²), 1 / (1 + e²)).
    assert float(contrastive(pairs)) == pytest.approx(0.1269280, abs=1e-6)
    assert float(kl_divergence(flat, pairs)) == pytest.approx(0.3278136, abs=1e-6)
    assert contrastive(make(0, rows=1)).item() == 0.0
    # At 60°: a half, the chord's square, and half of that, since no gap passes 1.
    assert float(embedding_alignment(pairs, shifted)) == pytest.approx(0.5, abs=1e-6)
    assert float(embedding_alignment(pairs, shifted, "mse")) == pytest.approx(1.0, abs=1e-6)
    assert float(embedding_alignment(pairs, shifted, "smooth_l1")) == pytest.approx(0.5, abs=1e-6)


def test_a_student_equal_to_the_teacher_has_nothing_to_learn():
    teacher = make(0)
    student = make(0, grad=True)
    value = kl_divergence(student, teacher, 2.0)
    value.backward()
    assert value.item() == 0.0
    assert student.image.grad.abs().max() < 1e-12
    assert embedding_alignment(student, teacher).item() == pytest.approx(0.0, abs=1e-12)
    assert embedding_alignment(student, teacher, "mse").item() == 0.0


def test_within_a_group_every_image_and_caption_is_a_true_pair():
    student, ids = make(0), torch.tensor(GROUPS)
    swapped = student.text[[2, 1, 0, 3, 4, 5, 6]]  # rows 0 and 2 are of one group
    other = Embeddings(student.image, swapped, student.scale)
    torch.testing.assert_close(contrastive(student, ids), contrastive(other, ids))
    assert abs(contrastive(student) - contrastive(other)) > 0.01


def test_rows_of_group_minus_one_are_left_out_as_rows_and_columns():
    full = make(0)
    kept = torch.tensor([i for i, group in enumerate(GROUPS) if group != -1])
    without = Embeddings(full.image[kept], full.text[kept], full.scale)
    ids = torch.tensor(GROUPS)
    torch.testing.assert_close(contrastive(full, ids), contrastive(without, ids[kept]))


def test_where_no_row_has_a_partner_the_term_is_zero_and_so_are_its_gradients():
    student = make(0, grad=True)
    value = contrastive(student, torch.full((ROWS,), -1))
    value.backward()
    assert value.item() == 0.0
    for tensor in (student.image, student.text, student.scale):
        assert tensor.grad.abs().max() == 0.0


@pytest.mark.parametrize("scale", [1e4, 1e12, 1e30])
def test_very_large_logits_do_not_overflow(scale):
    student = make(0, dtype=torch.float32, scale=scale, grad=True)
    teacher = make(1, dtype=torch.float32, scale=scale)
    ids = torch.tensor(GROUPS)
    value = kl_divergence(student, teacher) + contrastive(student, ids) + contrastive(student)
    value.backward()
    assert math.isfinite(value.item())
    for tensor in (student.image, student.text, student.scale):
        assert torch.isfinite(tensor.grad).all()


def test_the_same_inputs_give_the_same_bits():
    def run():
        student, teacher = make(0, dtype=torch.float32, grad=True), make(1, dtype=torch.float32)
        value = (
            kl_divergence(student, teacher, 2.0)
            + embedding_alignment(student, teacher)
            + contrastive(student, torch.tensor(GROUPS))
        )
        value.backward()
        return value.detach(), student.image.grad, student.text.grad, student.scale.grad

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


# --- gradients and precision ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "term",
    [
        lambda student, teacher: kl_divergence(student, teacher, 2.0),
        lambda student, teacher: embedding_alignment(student, teacher),
        lambda student, teacher: embedding_alignment(student, teacher, "mse"),
        lambda student, teacher: embedding_alignment(student, teacher, "smooth_l1"),
        lambda student, teacher: contrastive(student),
        lambda student, teacher: contrastive(student, torch.tensor(GROUPS)),
    ],
)
def test_gradients(term):
    student, teacher = make(0, grad=True), make(1)

    def value(image, text, scale):
        return term(Embeddings(image, text, scale), teacher)

    assert torch.autograd.gradcheck(
        value, (student.image, student.text, student.scale), check_undefined_grad=False
    )


def test_no_gradient_reaches_the_teacher_even_where_it_asks_for_one():
    student, teacher = make(0, bias=1.0, grad=True), make(1, bias=2.0, grad=True)
    loss = WeightedLoss({"kl_divergence": Term(1.0), "embedding_alignment": Term(5.0)})
    total, _ = loss(student, teacher, groups=None, progress=0.0)
    total.backward()
    assert student.image.grad is not None
    for tensor in (teacher.image, teacher.text, teacher.scale, teacher.bias):
        assert tensor.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32_under_autocast_too(dtype):
    student, teacher = make(0, dtype=dtype), make(1, dtype=dtype)
    raised = [
        Embeddings(model.image.float(), model.text.float(), model.scale.float())
        for model in (student, teacher)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = [
            kl_divergence(student, teacher),
            embedding_alignment(student, teacher),
            contrastive(student),
        ]
    expected = [kl_divergence(*raised), embedding_alignment(*raised), contrastive(raised[0])]
    for value, wanted in zip(values, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted)


# --- errors ---------------------------------------------------------------------------------------


def without(embeddings, tower):
    return replace(embeddings, **{tower: None})


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_term_of_both_towers_says_which_is_missing(tower):
    whole = make(0)
    for call in (
        lambda: kl_divergence(without(whole, tower), whole),
        lambda: kl_divergence(whole, without(whole, tower)),
        lambda: contrastive(without(whole, tower)),
    ):
        with pytest.raises(ValueError, match=f"both towers.*no {tower} tower"):
            call()


def test_alignment_takes_the_towers_in_common():
    student, teacher = make(0), make(1)
    for tower in ("image", "text"):
        value = embedding_alignment(without(student, tower), teacher)
        expected = alignment_reference(without(student, tower), teacher, "cosine")
        assert value.item() == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="no tower in common"):
        embedding_alignment(without(student, "image"), without(teacher, "text"))


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"width is 6 .* 9"):
        embedding_alignment(make(0), make(1, width=9))
    with pytest.raises(ValueError, match=r"7 rows .* 1"):
        kl_divergence(make(0), make(1, rows=1))
    with pytest.raises(ValueError, match=r"7 image rows .* 1"):
        embedding_alignment(make(0), make(1, rows=1))
    with pytest.raises(ValueError, match=r"groups is \[2\].*\[7\]"):
        contrastive(make(0), torch.tensor([1, 2]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(ValueError, match="must be above 0"):
        kl_divergence(make(0), make(1), temperature)


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(ValueError, match="cosine, mse, smooth_l1"):
        embedding_alignment(make(0), make(1), kind="l1")


# --- the weighted sum -----------------------------------------------------------------------------


def test_the_weighted_sum_is_the_sum_of_its_terms():
    student, teacher = make(0, grad=True), make(1)
    ids = torch.tensor(GROUPS)
    loss = WeightedLoss(
        {
            "kl_divergence": Term(2.0, {"temperature": 3.0}),
            "embedding_alignment": Term(5.0, {"kind": "mse"}),
            "contrastive": Term(0.25),
        }
    )
    total, terms = loss(student, teacher, groups=ids, progress=0.3)
    expected = {
        "kl_divergence": kl_divergence(student, teacher, 3.0),
        "embedding_alignment": embedding_alignment(student, teacher, "mse"),
        "contrastive": contrastive(student, ids),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(terms[name], value.detach())
        assert not terms[name].requires_grad
    weights = {"kl_divergence": 2.0, "embedding_alignment": 5.0, "contrastive": 0.25}
    wanted = sum(weights[name] * value.item() for name, value in expected.items())
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


def test_the_weighted_sum_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"'contrastve' is unknown.*contrastive"):
        WeightedLoss({"contrastve": Term(1.0)})
    with pytest.raises(ValueError, match="no term"):
        WeightedLoss({})
    loss = WeightedLoss({"kl_divergence": Term(1.0)})
    assert loss.needs_teacher
    with pytest.raises(ValueError, match="needs a teacher"):
        loss(make(0), None, groups=None, progress=0.0)
    assert not WeightedLoss({"contrastive": Term(1.0)}).needs_teacher
