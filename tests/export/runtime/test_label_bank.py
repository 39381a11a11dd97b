"""Labels in a bundle work without a text tower, and are refused if they are damaged."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.runtime.errors import BundleError
from export.runtime.manifest import read, write
from tests.export.runtime.hand_made import EMBEDDING, HEIGHT, MANIFEST, WIDTH, image_reference
from tests.lazy import lazy_imports

with lazy_imports():
    from export.runtime import EdgeModel

NAMES = ["red", "green", "blue"]
RED = np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8)
_DRAWN = np.random.default_rng(3).normal(size=(3, EMBEDDING)).astype(np.float32)
ROWS = _DRAWN / np.linalg.norm(_DRAWN, axis=1, keepdims=True)

Make = Callable[..., Path]


@pytest.fixture
def carrying(make_bundle: Make) -> Make:
    """Return a function that writes a bundle with labels, by default without a text tower."""

    def make(rows: Any = ROWS, names: Any = NAMES, **changes: Any) -> Path:
        buffer = io.BytesIO()
        np.save(buffer, rows)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        part = {"file": "labels.npy", "sha256": digest, "names": names}
        folder = make_bundle(**{"text": None, "labels": part, **changes})
        (folder / "labels.npy").write_bytes(buffer.getvalue())
        return folder

    return make


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        EdgeModel.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pictures_are_classified_without_a_text_tower(carrying: Make) -> None:
    model = EdgeModel.load(carrying())
    logits = 20.0 * (image_reference(RED[None])[0] @ ROWS.T) - 1.5
    expected = np.exp(logits) / np.exp(logits).sum()
    found = model.classify(RED)
    assert [label for label, _ in found] == [NAMES[row] for row in np.argsort(-logits)]
    assert dict(found) == pytest.approx(dict(zip(NAMES, expected, strict=True)), abs=1e-5)
    assert model.labels == tuple(NAMES)


def test_some_of_the_labels_in_any_order(carrying: Make) -> None:
    model = EdgeModel.load(carrying())
    assert np.array_equal(model.embed_labels(["blue", "red"]), ROWS[[2, 0]])
    everything = dict(model.classify(RED))
    two = dict(model.classify(RED, ["blue", "red"]))
    assert two["red"] / two["blue"] == pytest.approx(everything["red"] / everything["blue"])


def test_changing_the_looked_up_embeddings_leaves_the_bank_alone(carrying: Make) -> None:
    model = EdgeModel.load(carrying())
    model.embed_labels()[:] = 0
    assert np.array_equal(model.embed_labels(), ROWS)


def test_another_label_is_refused_with_the_nearest(carrying: Make) -> None:
    model = EdgeModel.load(carrying())
    with pytest.raises(BundleError) as caught:
        model.classify(RED, ["red", "gren", "pink"])
    assert str(caught.value).endswith(
        "without a text tower, this bundle knows only the 3 labels that it carries, and lacks "
        "'gren' (the nearest is 'green') and 1 more; choose among its labels, or export the "
        "student again with --labels"
    )


def test_other_templates_need_a_text_tower(carrying: Make) -> None:
    model = EdgeModel.load(carrying())
    assert model.classify(RED, templates=["a photo of a {}."]) == model.classify(RED)
    with pytest.raises(BundleError, match="other templates need a text tower, and this bundle has"):
        model.classify(RED, templates=["a {}"])


def test_with_a_text_tower_other_labels_and_templates_work(carrying: Make) -> None:
    folder = carrying(text=MANIFEST["text"])
    model = EdgeModel.load(folder)
    assert np.array_equal(model.embed_labels(["red"]), ROWS[:1])
    own = model.embed_texts(["a photo of a photo."])
    assert np.allclose(model.embed_labels(["photo"]), own, atol=1e-6)
    spoken = model.embed_texts(["a red"])
    assert np.allclose(model.embed_labels(["red"], templates=["a {}"]), spoken, atol=1e-6)


def test_classifying_without_labels_is_refused(make_bundle: Make) -> None:
    model = EdgeModel.load(make_bundle())
    assert model.labels == ()
    with pytest.raises(BundleError, match="the bundle carries no labels; give labels, or export"):
        model.classify(RED)


def test_labels_are_written_and_read_again(carrying: Make, tmp_path: Path) -> None:
    manifest = read(carrying())
    write(tmp_path, manifest)
    assert read(tmp_path) == manifest
    assert manifest.files == ("manifest.json", "image.onnx", "labels.npy")


def test_damaged_labels_are_refused(carrying: Make) -> None:
    folder = carrying()
    path = folder / "labels.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{path}: the bundle's labels do not match its manifest" in refused(folder)
    path.unlink()
    assert f"{path}: the bundle's labels are missing" in refused(folder)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (ROWS[:2], "found float32 [2, 5], expected float32 [3, 5]"),
        (ROWS[:, :4], "found float32 [3, 4], expected float32 [3, 5]"),
        (ROWS.astype(np.float64), "found float64 [3, 5]"),
        (np.array(["red", None, 3], object), "the bundle's labels are not an array"),
    ],
)
def test_labels_of_another_shape_or_type_are_refused(carrying: Make, rows: Any, found: str) -> None:
    assert found in refused(carrying(rows))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"file": "../labels.npy"}, "labels.file: found '../labels.npy'"),
        ({"names": []}, "labels.names: expected at least one label"),
        ({"names": ["red", "red", "blue"]}, "labels.names: expected at least one label, and each"),
        ({"names": ["red", 3, "blue"]}, "labels.names: expected a text"),
        ({"sha256": None}, "labels.sha256: expected a text"),
        ({"more": 1}, "'more' is unknown"),
    ],
)
def test_an_invalid_labels_entry_is_named(
    make_bundle: Make, part: dict[str, Any], message: str
) -> None:
    labels = {"file": "labels.npy", "sha256": "0", "names": NAMES, **part}
    assert message in refused(make_bundle(text=None, labels=labels))
