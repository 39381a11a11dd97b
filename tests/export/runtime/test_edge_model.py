"""A bundle embeds and classifies like its two small graphs computed by hand."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from export.runtime.errors import BundleError, DataError, RecipeError
from tests.export.runtime.hand_made import MANIFEST, WORD_VECTORS, image_reference, text_reference
from tests.lazy import lazy_imports

with lazy_imports():
    from export.runtime import EdgeModel

PIXELS = np.random.default_rng(1).integers(0, 256, (7, 4, 6, 3), np.uint8)
RED = np.full((9, 9, 3), (255, 0, 0), np.uint8)


def test_images_are_embedded_as_computed_by_hand(bundle):
    embeddings = EdgeModel.load(bundle).embed_images(PIXELS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, image_reference(PIXELS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_nothing(bundle, batch_size):
    model = EdgeModel.load(bundle)
    embeddings = model.embed_images(iter(PIXELS), batch_size=batch_size)
    np.testing.assert_allclose(embeddings, image_reference(PIXELS), atol=1e-5)
    texts = ["a photo", "red", "a photo of a blue .", "green"]
    together = model.embed_texts(texts)
    np.testing.assert_allclose(model.embed_texts(texts, batch_size=batch_size), together, atol=1e-6)


def test_every_kind_of_source_gives_the_same_embeddings(bundle, tmp_path):
    path = tmp_path / "picture.png"
    image = Image.fromarray(PIXELS[0])
    image.save(path)
    sources = [path, str(path), path.read_bytes(), image, PIXELS[0]]
    embeddings = EdgeModel.load(bundle).embed_images(sources)
    np.testing.assert_array_equal(embeddings, np.repeat(embeddings[:1], 5, axis=0))


def test_texts_are_embedded_as_computed_by_hand(bundle):
    texts = ["red", "a photo of a", "", "nonsense ."]
    expected = [
        text_reference("red"),
        text_reference("a", "photo", "of", "a"),
        text_reference(),
        text_reference("[UNK]", "."),
    ]
    embeddings = EdgeModel.load(bundle).embed_texts(texts)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_texts_are_cut_at_the_context_length(bundle):
    # Eight tokens, two of them the special tokens.
    embedding = EdgeModel.load(bundle).embed_texts(["a photo of a red green blue ."])
    expected = text_reference("a", "photo", "of", "a", "red", "green")
    np.testing.assert_allclose(embedding, [expected], atol=1e-5)


def test_full_padding_that_is_attended_to(make_bundle):
    text = {**MANIFEST["text"], "padding": "full", "mask_padding": False, "pad_token_id": 10}
    embedding = EdgeModel.load(make_bundle(text=text)).embed_texts(["red"])
    # Three tokens, and five times the vector of the padding.
    np.testing.assert_allclose(embedding, [text_reference("red", *".....")], atol=1e-5)


def test_empty_input_gives_no_rows(bundle):
    model = EdgeModel.load(bundle)
    for empty in (model.embed_images([]), model.embed_texts([])):
        assert empty.shape == (0, 5)
        assert empty.dtype == np.float32


def test_what_the_bundle_says_about_itself(bundle):
    model = EdgeModel.load(str(bundle), threads=1)
    assert (model.width, model.logit_scale, model.logit_bias) == (5, 20.0, -1.5)
    assert model.manifest.name == "by hand"
    assert model.folder == bundle


def expected_probabilities(labels: list[str], prompts: list[list[str]]) -> dict[str, float]:
    rows = []
    for label in labels:
        mean = np.mean([text_reference(*prompt, label) for prompt in prompts], axis=0)
        rows.append(mean / np.linalg.norm(mean))
    logits = 20 * (np.array(rows) @ image_reference(np.broadcast_to(RED, (1, 9, 9, 3)))[0])
    weights = np.exp(logits)
    return dict(zip(labels, weights / weights.sum(), strict=True))


def test_classify_gives_the_softmax_of_the_scaled_similarities(bundle):
    labels = ["red", "green", "blue"]
    result = EdgeModel.load(bundle).classify(RED, labels, templates=["a {}"])
    expected = expected_probabilities(labels, [["a"]])
    assert [label for label, _ in result] == sorted(labels, key=lambda name: -expected[name])
    for label, probability in result:
        assert isinstance(probability, float)
        assert probability == pytest.approx(expected[label], abs=1e-5)
    assert sum(probability for _, probability in result) == pytest.approx(1)


def test_prompts_are_averaged_after_normalising(make_bundle):
    templates = ["a {}", "a photo of {}"]
    labels = ["red", "green"]
    expected = expected_probabilities(labels, [["a"], ["a", "photo", "of"]])
    own = EdgeModel.load(make_bundle("own", templates=templates)).classify(RED, labels)
    model = EdgeModel.load(make_bundle("given"))
    assert model.classify(RED, labels) != own
    assert model.classify(RED, labels, templates=templates) == own
    assert dict(own) == pytest.approx(expected, abs=1e-5)


def test_the_order_of_labels_does_not_matter_and_large_scales_do_not_overflow(make_bundle):
    model = EdgeModel.load(make_bundle(logit_scale=1e6))
    result = model.classify(RED, ["red", "green", "blue"])
    assert model.classify(RED, ["blue", "red", "green"]) == result
    assert result[0][1] == pytest.approx(1)
    assert np.isfinite([probability for _, probability in result]).all()


def test_changing_label_embeddings_leaves_the_model_alone(bundle):
    model = EdgeModel.load(bundle)
    before = model.classify(RED, ["red", "green"])
    model.embed_labels(["red", "green"])[:] = 0
    assert model.classify(RED, ["red", "green"]) == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "labels: found none"),
        (["red", "green", "red"], "labels: found 'red' twice"),
        (["red", " "], "labels: found ' '"),
        (["red", 3], "labels: found 3"),
        ("red,green", "labels: found one text 'red,green'"),
    ],
)
def test_labels_that_cannot_be_used(bundle, labels, message):
    with pytest.raises(RecipeError, match=message) as caught:
        EdgeModel.load(bundle).classify(RED, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("templates", [[], ["a photo"], ["{} and {}"], "a {}", [3]])
def test_templates_that_cannot_be_used(bundle, templates):
    with pytest.raises(RecipeError, match="templates: "):
        EdgeModel.load(bundle).classify(RED, ["red"], templates=templates)


def test_a_label_with_braces_is_taken_literally(bundle):
    model = EdgeModel.load(bundle)
    assert len(model.classify(RED, ["{0}", "{red}", "{}"])) == 3


def test_one_tower_says_which_is_missing(make_bundle):
    images = EdgeModel.load(make_bundle("images", text=None))
    texts = EdgeModel.load(make_bundle("texts", image=None))
    assert images.embed_images([RED]).shape == texts.embed_texts(["red"]).shape == (1, 5)
    assert images.width == texts.width == 5
    for call, missing in (
        (lambda: images.embed_texts(["red"]), "no text tower"),
        (lambda: images.embed_labels(["red"]), "no text tower"),
        (lambda: images.classify(RED, ["red"]), "needs a text tower"),
        (lambda: texts.embed_images([RED]), "no image tower"),
        (lambda: texts.classify(RED, ["red"]), "needs an image tower"),
    ):
        with pytest.raises(BundleError, match=missing) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("single", [RED, b"bytes", "picture.jpg", Image.new("RGB", (2, 2))])
def test_a_single_picture_is_refused(bundle, single):
    with pytest.raises(DataError, match="put it in a list"):
        EdgeModel.load(bundle).embed_images(single)


def test_a_single_text_and_other_types_are_refused(bundle):
    model = EdgeModel.load(bundle)
    with pytest.raises(DataError, match="put it in a list"):
        model.embed_texts("red")
    with pytest.raises(DataError, match="found an item of type int"):
        model.embed_texts(["red", 3])


def test_an_unreadable_picture_is_named(bundle, tmp_path):
    model = EdgeModel.load(bundle)
    with pytest.raises(DataError, match=r"missing\.jpg: there is no such picture"):
        model.embed_images([RED, tmp_path / "missing.jpg"])


def test_a_picture_that_does_not_fit_is_named(make_bundle, tmp_path):
    preprocessing = {**MANIFEST["image"]["preprocessing"], "resize": "none"}
    model = EdgeModel.load(make_bundle(image={**MANIFEST["image"], "preprocessing": preprocessing}))
    Image.fromarray(RED).save(tmp_path / "nine.png")
    with pytest.raises(DataError, match=r"nine\.png: the picture is 9 x 9"):
        model.embed_images([tmp_path / "nine.png"])


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_and_threads_are_at_least_one(bundle, size):
    model = EdgeModel.load(bundle)
    with pytest.raises(RecipeError, match="batch_size"):
        model.embed_images([RED], batch_size=size)
    with pytest.raises(RecipeError, match="threads"):
        EdgeModel.load(bundle, threads=size)


def test_ids_beyond_the_graph_are_an_error_of_the_bundle(make_bundle):
    text = {**MANIFEST["text"], "pad_token_id": len(WORD_VECTORS), "padding": "full"}
    with pytest.raises(BundleError, match=r"text\.onnx: the graph failed") as caught:
        EdgeModel.load(make_bundle(text=text)).embed_texts(["red"])
    assert "\n" not in str(caught.value)


def test_the_runtime_loads_lazily_and_works_on_its_own(bundle):
    code = (
        "import sys, export.runtime, export.runtime.errors\n"
        "assert 'onnxruntime' not in sys.modules and 'numpy' not in sys.modules\n"
        f"model = export.runtime.EdgeModel.load({str(bundle)!r})\n"
        "model.embed_texts(['red'])\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'timm', 'onnx', 'yaml', 'distill',\n"
        "         'students', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_of_the_package():
    import export.runtime

    with pytest.raises(AttributeError, match="no attribute 'Model'"):
        _ = export.runtime.Model


def test_a_picture_as_bytes_is_classified(bundle):
    buffer = io.BytesIO()
    Image.fromarray(RED).save(buffer, "PNG")
    model = EdgeModel.load(bundle)
    assert model.classify(buffer.getvalue(), ["red", "blue"]) == model.classify(
        RED, ["red", "blue"]
    )
