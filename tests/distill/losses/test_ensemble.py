"""Several teachers: joined embeddings, and terms that are applied to each teacher."""

import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    import torch.nn.functional as F

    from distill.losses.alignment import embedding_alignment
    from distill.losses.embeddings import Embeddings, split
    from distill.losses.prompts import prompt_kl
    from distill.losses.weighted import Banks, Term, WeightedLoss
    from distill.teacher.shares import Share, join, mean_scale

WIDTHS, WEIGHTS = (6, 10), (0.3, 0.7)
ROWS = 7


def shares():
    return Share(0.3, 6, 20.0, 0.0), Share(0.7, 10, 55.0, -3.0)


def vectors(width, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(ROWS, width, generator=generator, dtype=torch.float64), dim=1)


def teachers():
    return [
        Embeddings(
            vectors(share.width, number),
            vectors(share.width, number + 10),
            torch.tensor(share.scale, dtype=torch.float64),
            torch.tensor(share.bias, dtype=torch.float64),
        )
        for number, share in enumerate(shares())
    ]


def joined():
    members = teachers()
    scale, bias = mean_scale(shares())
    return Embeddings(
        join([member.image for member in members], shares()),
        join([member.text for member in members], shares()),
        torch.tensor(scale, dtype=torch.float64),
        torch.tensor(bias, dtype=torch.float64),
    )


def student(width=16):
    image, text = vectors(width, 20).requires_grad_(), vectors(width, 21).requires_grad_()
    return Embeddings(image, text, torch.tensor(12.0, dtype=torch.float64, requires_grad=True))


def log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def logits_of(model, a, b):
    rows, columns = getattr(model, a).detach().numpy(), getattr(model, b).detach().numpy()
    return float(model.scale.detach()) * rows @ columns.T


def test_a_cosine_of_joined_rows_is_the_weighted_mean_of_cosines():
    whole = joined()
    torch.testing.assert_close(whole.image.norm(dim=1), torch.ones(ROWS, dtype=torch.float64))
    expected = sum(
        weight * member.image @ member.text.T
        for weight, member in zip(WEIGHTS, teachers(), strict=True)
    )
    torch.testing.assert_close(whole.image @ whole.text.T, expected)


def test_split_returns_each_teacher_at_its_own_scale():
    for found, member in zip(split(joined(), shares()), teachers(), strict=True):
        for name in ("image", "text", "scale", "bias"):
            torch.testing.assert_close(getattr(found, name), getattr(member, name))


def test_kl_divergence_is_the_weighted_sum_over_teachers():
    model = student()
    loss = WeightedLoss({"kl_divergence": Term(1.0)}, shares=shares())
    value, _ = loss(model, joined(), groups=None, progress=0.0)
    expected = 0.0
    for weight, member in zip(WEIGHTS, teachers(), strict=True):
        for a, b in (("image", "text"), ("text", "image")):
            ours = log_softmax(logits_of(model, a, b))
            theirs = log_softmax(logits_of(member, a, b))
            rows = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
            expected += weight * rows.mean() / 2
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_the_gradient_is_that_of_kl_to_the_mean_distribution():
    model = student()
    loss = WeightedLoss({"kl_divergence": Term(1.0)}, shares=shares())
    loss(model, joined(), groups=None, progress=0.0)[0].backward()
    found = [model.image.grad, model.text.grad, model.scale.grad]
    other = student()
    logits = other.scale * other.image @ other.text.T
    total = 0.0
    for turned in (False, True):
        target = sum(
            weight * torch.softmax(each.T if turned else each, dim=1)
            for weight, member in zip(WEIGHTS, teachers(), strict=True)
            for each in [member.scale * member.image @ member.text.T]
        )
        ours = F.log_softmax(logits.T if turned else logits, dim=1)
        total = total + F.kl_div(ours, target, reduction="batchmean") / 2
    total.backward()
    for mine, expected in zip(found, (other.image, other.text, other.scale), strict=True):
        torch.testing.assert_close(mine, expected.grad)


def test_relational_is_the_weighted_sum_over_teachers():
    model, term = student(), {"relational": Term(1.0)}
    whole, _ = WeightedLoss(term, shares=shares())(model, joined(), groups=None, progress=0.0)
    each = [
        WeightedLoss(term)(model, member, groups=None, progress=0.0)[0] for member in teachers()
    ]
    assert whole.item() == pytest.approx(0.3 * each[0].item() + 0.7 * each[1].item())


def test_scale_teacher_uses_the_scale_of_each_teacher():
    model = student()
    term = {"kl_divergence": Term(1.0, options={"scale": "teacher"})}
    whole, _ = WeightedLoss(term, shares=shares())(model, joined(), groups=None, progress=0.0)
    each = [
        WeightedLoss(term)(model, member, groups=None, progress=0.0)[0] for member in teachers()
    ]
    assert whole.item() == pytest.approx(0.3 * each[0].item() + 0.7 * each[1].item())


def test_alignment_and_prompts_use_the_joined_embeddings():
    model, whole = student(), joined()
    terms = {"embedding_alignment": Term(1.0), "prompt_kl": Term(1.0)}
    bank = join([vectors(share.width, 30) for share in shares()], shares())
    loss = WeightedLoss(terms, shares=shares())
    _, values = loss(model, whole, groups=None, progress=0.0, banks=Banks(prompts=bank))
    assert values["embedding_alignment"].item() == embedding_alignment(model, whole).item()
    expected = prompt_kl(model.image, whole.image, bank, model.scale, whole.scale)
    assert values["prompt_kl"].item() == expected.item()
    assert whole.scale.item() == pytest.approx(0.3 * 20 + 0.7 * 55)


def test_joining_a_single_teacher_changes_nothing():
    member = teachers()[0]
    assert join([member.image], shares()[:1]) is member.image
