"""Gradients: which tensors they reach, their values, and their precision."""

import pytest

from tests.distill.losses.cases import CASES, NAMES, banks
from tests.distill.losses.references import make
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.losses.contrastive import soft_target
    from distill.losses.embeddings import Embeddings
    from distill.losses.tiled.softmax import distribution_loss
    from distill.losses.tiled.tiles import Product, tiling
    from distill.losses.weighted import Banks, Term, WeightedLoss


@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("case", [case for case in CASES if case.term != "soft_target"], ids=str)
def test_gradcheck(case, rows):
    student, teacher = make(0, bias=-1.0, grad=True), make(1)

    def value(image, text, scale, bias):
        with tiling(rows=rows):
            return case(Embeddings(image, text, scale, bias), teacher)

    inputs = (student.image, student.text, student.scale, student.bias)
    assert torch.autograd.gradcheck(value, inputs, check_undefined_grad=False)


@pytest.mark.parametrize("rows", [None, 2])
def test_gradcheck_of_a_fixed_soft_target(rows):
    student = make(0, grad=True)
    both = torch.cat([student.image, student.text], dim=1).detach()
    target = Product(both, both, student.scale.detach() / 4)

    def value(image, text, scale):
        with tiling(rows=rows):
            logits = Product(image, text, scale)
            return distribution_loss(logits, target, columns=True, entropy=True)

    inputs = (student.image, student.text, student.scale)
    assert torch.autograd.gradcheck(value, inputs, check_undefined_grad=False)
    wanted = torch.autograd.grad(value(*inputs), inputs)
    torch.testing.assert_close(torch.autograd.grad(soft_target(student, 2.0), inputs), wanted)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_no_gradient_reaches_a_teacher_that_requires_one(case):
    student, teacher = make(0, bias=1.0, grad=True), make(1, bias=2.0, grad=True)
    corpus = banks(grad=True)
    case(student, teacher, corpus=corpus).backward()
    assert student.image.grad.abs().max() > 0
    for tensor in (teacher.image, teacher.text, teacher.scale, teacher.bias):
        assert tensor.grad is None
    assert all(bank.grad is None for bank in corpus)


def test_only_tensors_that_require_a_gradient_get_one():
    student = make(0, grad=True)
    image_only = Embeddings(student.image, student.text.detach(), student.scale.detach())
    for case in CASES:
        student.image.grad = None
        case(image_only, make(1)).backward()
        assert student.image.grad is not None
    assert student.text.grad is None
    assert student.scale.grad is None


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_second_backward_pass_gives_the_same_gradient(case):
    student = make(0, grad=True)
    value = case(student, make(1))
    first = torch.autograd.grad(value, student.image, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(value, student.image)[0], first)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_half_precision_is_raised_to_float32_even_under_autocast(case, precision):
    dtype = getattr(torch, precision)

    def run(lift, autocast):
        student, teacher = make(0, dtype=dtype, grad=True), make(1, dtype=dtype)
        if lift:
            student, teacher = (
                Embeddings(*(tensor.float() for tensor in (model.image, model.text, model.scale)))
                for model in (student, teacher)
            )
        for tensor in (student.image, student.text, student.scale):
            tensor.retain_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = case.with_banks_of(dtype)(student, teacher)
            value.backward()
        return value.detach(), student.image.grad

    value, gradient = run(lift=False, autocast=True)
    expected, exact = run(lift=True, autocast=False)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert gradient.dtype == dtype
    assert torch.equal(gradient, exact.to(dtype))


@pytest.mark.parametrize("case", [case for case in CASES if case.needs_teacher], ids=str)
def test_student_and_teacher_may_differ_in_precision(case):
    student, teacher = make(0, dtype=torch.float32, grad=True), make(1)
    value = case(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(case.reference(student, teacher), rel=1e-5, abs=1e-6)
    assert student.image.grad.dtype == torch.float32


def test_scale_and_bias_get_a_gradient_of_zero_if_no_term_depends_on_them():
    student = make(0, bias=1.0, grad=True)
    loss = WeightedLoss({"embedding_alignment": Term(1.0)})
    loss(student, make(1), groups=None, progress=0.0)[0].backward()
    assert student.scale.grad == student.bias.grad == 0
    loss = WeightedLoss({"prompt_kl": Term(1.0)})
    student = make(0, bias=1.0, grad=True)
    total, _ = loss(student, make(1), groups=None, progress=0.0, banks=Banks(prompts=banks()[1]))
    total.backward()
    assert student.scale.grad != 0
    assert student.bias.grad == 0
