"""A bundle gives the same results as its student, for every kind of student."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lazy import lazy_imports

with lazy_imports():
    import onnx
    import onnxruntime
    import torch

    from export.bundle import ExportReport
    from export.runtime import EdgeModel
    from students.encoder import embed_images, embed_texts, tokenize
    from students.model import load_student

pytestmark = pytest.mark.slow

# Each student is exported once, with one tower or two.
ALL = ["towers", "image only", "text only", "clip", "siglip", "dual encoder"]
WITH_IMAGE = [name for name in ALL if name != "text only"]
WITH_TEXT = [name for name in ALL if name != "image only"]
TEXTS = ["a photo of a red cat.", "", "dog", "Green, GREEN photos " * 30, "naïve 東京"]

Exported = Callable[[str], ExportReport]
Folder = Callable[[str], Path]


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(4)
    sizes = [(32, 32), (61, 40), (35, 90), (7, 5), (200, 33)]
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))
        for width, height in sizes
    ]


@pytest.mark.parametrize("name", WITH_IMAGE)
@pytest.mark.usefixtures("no_grad")
def test_pictures_are_embedded_like_by_the_student(
    name: str, exported: Exported, student_folder: Folder
):
    student = load_student(student_folder(name))
    values = student.image_processor(pictures(), return_tensors="pt")["pixel_values"]
    expected = embed_images(student.model, values).numpy()
    model = EdgeModel.load(exported(name).folder)
    for batch_size in (1, 2, 5):
        found = model.embed_images(pictures(), batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # If all embeddings were alike, the comparison would prove little.
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.mark.parametrize("name", WITH_TEXT)
@pytest.mark.usefixtures("no_grad")
def test_texts_are_embedded_like_by_the_student(
    name: str, exported: Exported, student_folder: Folder
):
    student = load_student(student_folder(name))
    tokens = tokenize(
        student.tokenizer, TEXTS, context_length=student.context_length, padding=student.padding
    )
    expected = embed_texts(student.model, tokens).numpy()
    model = EdgeModel.load(exported(name).folder)
    for batch_size in (1, 2, 5):
        found = model.embed_texts(TEXTS, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected[0] - expected[2]).max() > 1e-3


@pytest.mark.parametrize("name", WITH_TEXT)
@pytest.mark.usefixtures("no_grad")
def test_the_text_graph_takes_every_length(name: str, exported: Exported, student_folder: Folder):
    student = load_student(student_folder(name))
    session = onnxruntime.InferenceSession(str(exported(name).folder / "text.onnx"))
    generator = torch.Generator().manual_seed(2)
    for batch, length in [(1, 1), (4, 1), (1, 2), (2, 3), (1, 9), (3, student.context_length)]:
        ids = torch.randint(0, 54, (batch, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, (length + 1) // 2 :] = 0
        expected = embed_texts(student.model, {"input_ids": ids, "attention_mask": mask})
        (found,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_bundle_contains_exactly_its_files(name: str, exported: Exported):
    report = exported(name)
    image, text = name != "text only", name != "image only"
    files = {"manifest.json"}
    files |= {"image.onnx"} if image else set()
    files |= {"text.onnx", "tokenizer.json"} if text else set()
    assert {path.name for path in report.folder.iterdir()} == files == report.sizes.keys()
    assert all((report.folder / file).stat().st_size == report.sizes[file] for file in files)
    assert report.differences.keys() == {file for file in files if file.endswith(".onnx")}
    assert max(report.differences.values()) < 1e-5
    # The temporary folder is gone.
    assert [path.name for path in report.folder.parent.iterdir()] == ["bundle"]


def test_inputs_and_outputs_are_as_promised(exported: Exported):
    folder = exported("towers").folder
    for file, inputs, output in (
        ("image.onnx", {"pixels": ("tensor(uint8)", ["batch", 32, 32, 3])}, "image_embeds"),
        (
            "text.onnx",
            dict.fromkeys(
                ("input_ids", "attention_mask"), ("tensor(int64)", ["batch", "sequence"])
            ),
            "text_embeds",
        ),
    ):
        session = onnxruntime.InferenceSession(str(folder / file))
        assert {node.name: (node.type, node.shape) for node in session.get_inputs()} == inputs
        (node,) = session.get_outputs()
        assert (node.name, node.type, node.shape) == (output, "tensor(float)", ["batch", 16])
        graph = onnx.load(folder / file)
        onnx.checker.check_model(graph, full_check=True)
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]


@pytest.mark.parametrize("name", ALL)
def test_a_graph_reveals_nothing_about_the_machine(name: str, exported: Exported):
    for path in exported(name).folder.glob("*.onnx"):
        content = path.read_bytes()
        for trace in (b"site-packages", b"stack_trace", b"/students/", str(Path.cwd()).encode()):
            assert trace not in content


def test_the_manifest_describes_the_inputs(exported: Exported):
    towers = EdgeModel.load(exported("towers").folder).manifest
    assert towers.name == "test_efficientnet + bert"
    assert towers.created_by.startswith("clip-distill")
    assert (towers.text.context_length, towers.text.padding) == (24, "longest")
    assert (towers.text.pad_token_id, towers.text.mask_padding) == (0, True)
    assert (towers.image.preprocessing.size, towers.image.preprocessing.resize_to) == ((32, 32), 40)
    assert towers.logit_bias == 0
    assert towers.templates == ("a photo of a {}.",)
    siglip = EdgeModel.load(exported("siglip").folder).manifest
    assert siglip.name == "siglip"
    assert (siglip.text.context_length, siglip.text.padding) == (16, "full")
    assert not siglip.text.mask_padding
    assert siglip.logit_scale == pytest.approx(np.exp(2))
    assert siglip.logit_bias == -3


@pytest.mark.usefixtures("no_grad")
def test_classify_gives_the_probabilities_of_transformers(
    exported: Exported, student_folder: Folder
):
    student = load_student(student_folder("clip"))
    labels = ["cat", "red dog", "green"]
    prompts = [f"a photo of a {label}." for label in labels]
    tokens = student.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
    picture = pictures()[1]
    values = student.image_processor(picture, return_tensors="pt")
    expected = student.model(**tokens, **values).logits_per_image.softmax(dim=-1)[0]
    found = dict(EdgeModel.load(exported("clip").folder).classify(picture, labels))
    for label, probability in zip(labels, expected.tolist(), strict=True):
        assert found[label] == pytest.approx(probability, abs=1e-4)
