"""Every version computes the numbers that a released bundle once gave."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import BertTokenizer, CLIPImageProcessorPil

    from export.bundle import export_student
    from export.runtime import EdgeModel
    from students.config import StudentConfig
    from students.encoder import Student
    from students.model import StudentModel

pytestmark = pytest.mark.slow

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "red", "."]
IMAGE_GOLDEN = [-0.412238, -0.519648, -0.298536, 0.111311, 0.450788, 0.505275]
TEXT_GOLDEN = [
    [0.294675, -0.479347, -0.489295, 0.280688, 0.603257, -0.03576],
    [0.530102, -0.076691, -0.56124, -0.151178, 0.49986, 0.354126],
    [0.536881, 0.152477, -0.474974, -0.345321, 0.33477, 0.481241],
]
PROBABILITIES_GOLDEN = {"cat": 0.51347, "red cat": 0.34097, "dog": 0.14556}


def picture() -> bytes:
    """Return a PNG of 45 x 37 pixels with a transparent corner, all values from a formula."""
    y, x = np.mgrid[0:37, 0:45]
    channels = [(7 * x + 3 * y) % 256, (x * y) % 256, (255 - 5 * x) % 256, 255 - 9 * (y // 2)]
    image = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), "RGBA")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def student() -> Student:
    """Return a ViT of 32 x 32 pixels and a BERT of one layer, all weights from a formula."""
    image = {
        "backbone": "test_vit",
        "arguments": {"img_size": 32, "depth": 1},
        "projection": "mlp",
    }
    text = {
        "config": {
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 12,
        },
        "pooling": "mean",
        "projection": "linear",
        "context_length": 10,
    }
    config = StudentConfig(
        image=image, text=text, projection_dim=6, logit_scale_init_value=float(np.log(20))
    )
    model = StudentModel(config).eval()
    with torch.no_grad():
        for index, (name, parameter) in enumerate(sorted(model.named_parameters())):
            if name != "logit_scale":
                places = torch.arange(parameter.numel(), dtype=torch.float64)
                waves = torch.sin(0.7 * places + 1.3 * index) / max(parameter.shape[-1], 4) ** 0.5
                parameter.copy_(waves.view_as(parameter) + (parameter.ndim == 1))
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    processor = CLIPImageProcessorPil(size={"shortest_edge": 34}, crop_size=32)
    return Student(model, tokenizer, processor, 10, "longest")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    student().save(folder / "student")
    templates = ("a photo of a {}.", "a red {}")
    return export_student(folder / "student", folder / "bundle", templates=templates).folder


def test_embeddings_and_probabilities(bundle: Path):
    model = EdgeModel.load(bundle)
    texts = model.embed_texts(["a photo of a cat.", "DOG", ""])
    np.testing.assert_allclose(model.embed_images([picture()])[0], IMAGE_GOLDEN, atol=2e-5)
    np.testing.assert_allclose(texts, TEXT_GOLDEN, atol=2e-5)
    found = dict(model.classify(picture(), ["cat", "dog", "red cat"]))
    assert found == pytest.approx(PROBABILITIES_GOLDEN, abs=2e-4)
