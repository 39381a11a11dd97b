"""Solved projections equal scikit-learn's, and nothing else in the student changes."""

import copy
from typing import Any

import numpy as np
import pytest

from export.runtime.errors import RunError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from sklearn.linear_model import Ridge
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from distill.train.projection import GRID, StartBatch, solve_projection, start_projections
    from students.config import StudentConfig
    from students.model import StudentModel


def cpu() -> torch.device:
    return torch.device("cpu")


WIDTH = 12
BERT = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def build(*, image: bool = True, projection: str = "linear") -> StudentModel:
    torch.manual_seed(4)
    tower = {"backbone": "test_resnet", "arguments": {}, "projection": projection}
    text = {"config": BERT, "pooling": "mean", "projection": "linear", "context_length": 8}
    return StudentModel(
        StudentConfig(image=tower if image else None, text=text, projection_dim=WIDTH)
    )


def sample(batches: int = 6, rows: int = 16, width: int = WIDTH) -> list[StartBatch]:
    """Pictures and texts with a teacher's embeddings."""
    generator = torch.Generator().manual_seed(8)
    view = torch.randn(3 * 32 * 32, width, generator=generator) / 55
    words = torch.randn(30, width, generator=generator)
    found = []
    for _ in range(batches):
        pixels = torch.randn(rows, 3, 32, 32, generator=generator)
        ids = torch.randint(5, 30, (rows, 6), generator=generator)
        image = nn.functional.normalize(pixels.flatten(1) @ view + 1.0, dim=1)
        text = nn.functional.normalize(words[ids].mean(dim=1) + 0.5, dim=1)
        tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found.append(StartBatch(pixels, tokens, image, text))
    return found


def problem(rows: int, features: int, noise: float) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(5)
    inputs = generator.normal(size=(rows, features)) * generator.uniform(0.1, 3, features) + 0.7
    outputs = inputs @ generator.normal(size=(features, WIDTH))
    outputs = outputs + noise * generator.normal(size=outputs.shape)
    return torch.from_numpy(inputs).float(), torch.from_numpy(outputs).float()


def cosines(found: Any, expected: Any) -> float:
    product = (found * expected).sum(axis=1)
    return float(
        np.mean(product / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1))
    )


def ranks(found: Any, targets: Any) -> float:
    """The mean share of targets that are closer to a row than its own target."""
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    closer = [
        sum(row @ other > row @ own for other in targets)
        for row, own in zip(found, targets, strict=True)
    ]
    return float(np.mean(closer)) / len(targets)


@pytest.mark.parametrize(
    ("rows", "features", "noise"), [(200, 20, 1.0), (200, 20, 60.0), (40, 90, 5)]
)
def test_the_solution_is_that_of_scikit_learn(rows: int, features: int, noise: float) -> None:
    inputs, outputs = problem(rows, features, noise)
    solution = solve_projection(inputs, outputs)
    assert solution.weight.dtype == torch.float64
    x, y = inputs.double().numpy(), outputs.double().numpy()
    expected = Ridge(alpha=solution.ridge, fit_intercept=False, solver="svd").fit(x, y).coef_
    np.testing.assert_allclose(solution.weight.numpy(), expected, rtol=1e-6, atol=1e-9)
    # The ridge is the best of the grid on the held-out tenth, as scikit-learn sees it.
    held = np.arange(rows) % 10 == 9
    trained, others = np.square(x[~held]).sum(axis=0).mean(), np.square(x).sum(axis=0).mean()
    scores = {}
    for size in GRID:
        ridge = Ridge(alpha=size * trained, fit_intercept=False, solver="svd")
        found = ridge.fit(x[~held], y[~held]).predict(x[held])
        scores[size] = (ranks(found, y[held]), -cosines(found, y[held]))
    best = min(scores, key=lambda size: scores[size])
    assert solution.ridge == pytest.approx(best * others)
    assert (solution.rank, -solution.cosine) == pytest.approx(scores[best], abs=1e-9)


def test_more_noise_leads_to_a_larger_ridge() -> None:
    quiet, loud = (solve_projection(*problem(200, 20, noise)).ridge for noise in (1.0, 200.0))
    assert loud > 10 * quiet


def test_a_sample_with_one_row_is_refused() -> None:
    inputs, outputs = problem(2, 20, 1.0)
    assert solve_projection(inputs, outputs).weight.shape == (WIDTH, 20)
    with pytest.raises(RunError, match=r"projection_start: ridge has 1 rows .* needs at least 2"):
        solve_projection(inputs[:1], outputs[:1])


def pooled(model: StudentModel, batches: list[StartBatch], tower: str) -> Tensor:
    part = {"image": model.image_tower, "text": model.text_tower}[tower]
    seen: list[Tensor] = []
    hook = part.projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()
    with torch.no_grad():
        for batch in batches:
            part(batch.pixels) if tower == "image" else part(**batch.tokens)
    hook.remove()
    return torch.cat(seen)


def test_the_student_gets_the_solution() -> None:
    model, batches = build(), sample()
    before = copy.deepcopy(model)
    solutions = start_projections(model, batches, device=cpu())
    assert set(solutions) == {"image", "text"}
    targets = torch.cat([batch.teacher_text for batch in batches if batch.teacher_text is not None])
    features = pooled(before, batches, "text").double().numpy()
    ridge = Ridge(alpha=solutions["text"].ridge, fit_intercept=False, solver="svd")
    expected = ridge.fit(features, targets.double().numpy()).coef_
    layer = model.text_tower.projection.layers[0].weight.detach()
    np.testing.assert_allclose(layer, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_solution_brings_the_student_closer_to_the_teacher() -> None:
    model, batches = build(), sample(batches=12, rows=32)
    random = copy.deepcopy(model)
    start_projections(model, batches[:-2], device=cpu())
    for tower in ("image", "text"):
        target = torch.cat([getattr(batch, f"teacher_{tower}") for batch in batches[-2:]]).numpy()
        found = {}
        for name, part in (("ridge", model), ("random", random)):
            features = pooled(part, batches[-2:], tower)
            layer = getattr(part, f"{tower}_tower").projection
            found[name] = cosines(layer(features).detach().numpy(), target)
        assert found["ridge"] > 0.5 > found["random"] + 0.2, tower


def test_nothing_else_in_the_student_changes() -> None:
    model = build()
    model.train()
    model.image_tower.backbone.layer1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]
    start_projections(model, sample(), device=cpu())
    changed = {
        name for name, now in model.state_dict().items() if not torch.equal(now, before[name])
    }
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    weights = {f"{tower}_tower.projection.layers.0.weight" for tower in ("image", "text")}
    assert changed == statistics | weights
    assert [part.training for part in model.modules()] == modes
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_new_batch_norms_get_the_average_statistics_of_the_sample() -> None:
    model, batches = build(), sample()
    seen: list[Tensor] = []
    first = model.image_tower.backbone.bn1
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    start_projections(model, batches, device=cpu())
    hook.remove()
    mean = torch.stack([part.mean(dim=(0, 2, 3)) for part in seen]).mean(dim=0)
    var = torch.stack([part.var(dim=(0, 2, 3)) for part in seen]).mean(dim=0)
    assert torch.allclose(first.running_mean.double(), mean, atol=1e-5)
    assert torch.allclose(first.running_var.double(), var, atol=1e-5)


def test_trained_batch_norms_keep_their_statistics() -> None:
    model = build()
    model.train()
    model.get_image_features(torch.randn(8, 3, 32, 32))
    before = copy.deepcopy(model.state_dict())
    start_projections(model, sample(), device=cpu())
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "running_" in name)


def test_a_tower_of_student_or_teacher_may_be_missing() -> None:
    batches = sample()
    assert set(start_projections(build(image=False), batches, device=cpu())) == {"text"}
    blind = [StartBatch(batch.pixels, batch.tokens, None, batch.teacher_text) for batch in batches]
    model = build()
    before = model.image_tower.projection.layers[0].weight.clone()
    assert set(start_projections(model, blind, device=cpu())) == {"text"}
    assert torch.equal(model.image_tower.projection.layers[0].weight, before)


def test_errors_name_what_cannot_be_solved() -> None:
    with pytest.raises(
        RunError, match=r"student\.width: the image projection has width 12, but .* 7;"
    ):
        start_projections(build(), sample(width=7), device=cpu())
    with pytest.raises(RunError, match=r"student\.image\.projection: .* linear"):
        start_projections(build(projection="mlp"), sample(), device=cpu())
