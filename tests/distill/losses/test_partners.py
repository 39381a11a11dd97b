"""corpus_contrastive, compared with NumPy row by row."""

import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.losses.corpus import corpus_contrastive
    from distill.losses.embeddings import Embeddings
    from distill.losses.tiled.tiles import tiling
    from distill.losses.weighted import Banks, Term, WeightedLoss


def partners() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pairs of pictures, and of texts, that belong together."""
    return (
        torch.tensor([[0, 1], [0, 6], [2, 3], [4, 0], [4, 5]]),
        torch.tensor([[1, 2], [3, 0]]),
    )


def unit(rows: int, *, seed: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, 6, generator=generator, dtype=dtype or torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1)


def student(*, grad: bool = False) -> Embeddings:
    tensors = [unit(5, seed=0), unit(5, seed=1), torch.tensor(7.0, dtype=torch.float64)]
    return Embeddings(*(tensor.requires_grad_(grad) for tensor in tensors))


def banks() -> tuple[torch.Tensor, torch.Tensor]:
    # Fewer pictures than rows, and more texts.
    return unit(3, seed=2), unit(9, seed=3)


def reference(rows: torch.Tensor, bank: torch.Tensor, partners: torch.Tensor) -> float:
    found = []
    for row in sorted(set(partners[:, 0].tolist())):
        logits = 7.0 * (bank.numpy() @ rows.detach().numpy()[row])
        log_sum = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
        own = [logits[column] for number, column in partners.tolist() if number == row]
        found.append(log_sum - np.mean(own))
    return float(np.mean(found))


def test_each_row_is_contrasted_with_everything_except_its_partners() -> None:
    model, (pictures, texts) = student(), banks()
    expected = (
        reference(model.image, texts, partners()[0])
        + reference(model.text, pictures, partners()[1])
    ) / 2
    value = corpus_contrastive(model, pictures, texts, *partners())
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_with_one_partner_for_each_row_it_is_cross_entropy() -> None:
    model, (_, texts) = student(), banks()
    partners = torch.tensor([[row, column] for row, column in enumerate([3, 3, 0, 8, 1])])
    logits = 7.0 * model.image @ texts.T
    expected = torch.nn.functional.cross_entropy(logits, partners[:, 1])
    alone = Embeddings(model.image, None, model.scale)
    value = corpus_contrastive(alone, None, texts, partners, None)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_gradients_in_tiles(rows: int) -> None:
    model, (pictures, texts) = student(grad=True), banks()

    def value(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        with tiling(rows=rows):
            return corpus_contrastive(Embeddings(image, text, scale), pictures, texts, *partners())

    assert torch.autograd.gradcheck(value, (model.image, model.text, model.scale))


def test_no_gradient_reaches_the_corpus() -> None:
    model, found = student(grad=True), [bank.requires_grad_() for bank in banks()]
    corpus_contrastive(model, *found, *partners()).backward()
    assert model.image.grad.abs().max() > 0
    assert all(bank.grad is None for bank in found)
    # A row without a partner learns nothing.
    assert not model.image.grad[[1, 3]].any()


def test_without_partners_value_and_gradients_are_zero() -> None:
    model, nobody = student(grad=True), torch.zeros(0, 2, dtype=torch.int64)
    value = corpus_contrastive(model, *banks(), nobody, nobody)
    value.backward()
    assert value.item() == 0
    assert not model.image.grad.any()
    assert model.scale.grad == 0


def test_errors_name_what_is_missing() -> None:
    model, (pictures, texts) = student(), banks()
    with pytest.raises(ValueError, match="corpus_contrastive: the image tower needs a bank and"):
        corpus_contrastive(model, pictures, None, *partners())
    with pytest.raises(ValueError, match="the text tower needs a bank and partners"):
        corpus_contrastive(model, pictures, texts, partners()[0], None)
    with pytest.raises(ValueError, match="width"):
        corpus_contrastive(model, pictures, texts[:, :4], *partners())
    nothing = Embeddings(None, None, model.scale)
    with pytest.raises(ValueError, match="no tower"):
        corpus_contrastive(nothing, pictures, texts, *partners())


def test_the_weighted_sum_applies_a_factor_of_the_teachers_scale() -> None:
    model, (pictures, texts) = student(), banks()
    teacher = Embeddings(unit(5, seed=4), unit(5, seed=5), torch.tensor(14.0, dtype=torch.float64))
    loss = WeightedLoss({"corpus_contrastive": Term(2.0, options={"scale": 0.5})})
    given = Banks(None, pictures, texts, *partners())
    total, _ = loss(model, teacher, groups=None, progress=0.0, banks=given)
    expected = corpus_contrastive(model, pictures, texts, *partners())
    torch.testing.assert_close(total, 2 * expected)
