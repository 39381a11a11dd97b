"""Encoders give what the models of transformers give when called directly."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from export.runtime.preprocess import Preprocessing
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import (
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        PreTrainedTokenizerFast,
    )

    from distill.evaluate.encoder import (
        BundleEncoder,
        StudentEncoder,
        TeacherEncoder,
        encode_many,
    )
    from students.encoder import Student

WORDS = ["[PAD]", "[UNK]", "[END]", "a", "photo", "of", "red", "cat"]
TEXTS = ["a photo of a cat", "red cat", "a", "unheard of"]


@pytest.fixture
def student():
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    layers = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={
            **layers,
            "vocab_size": len(WORDS),
            "max_position_embeddings": 8,
            "eos_token_id": 7,
            "bos_token_id": 0,
            "pad_token_id": 0,
        },
        vision_config={**layers, "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    return Student(
        model=CLIPModel(config).eval(),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
        ),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        context_length=8,
        padding="longest",
    )


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((20, 31), (40, 17), (16, 16), (9, 50), (33, 33))
    ]


def normalised(features):
    return torch.nn.functional.normalize(features.pooler_output, dim=-1).numpy()


def test_a_student_sees_what_its_processor_makes(student, images):
    vectors = StudentEncoder(student).encode_images(images)
    pixels = student.image_processor(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = normalised(student.model.get_image_features(pixels))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_student_reads_what_its_tokenizer_makes(student):
    vectors = StudentEncoder(student).encode_texts(TEXTS)
    tokens = student.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = normalised(
            student.model.get_text_features(tokens.input_ids, tokens.attention_mask)
        )
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_change_nothing_and_pictures_may_come_one_by_one(student, images, batch_size):
    whole = StudentEncoder(student)
    parts = StudentEncoder(student, batch_size=batch_size)
    np.testing.assert_allclose(
        parts.encode_images(image for image in images), whole.encode_images(images), atol=1e-5
    )
    np.testing.assert_allclose(parts.encode_texts(TEXTS), whole.encode_texts(TEXTS), atol=1e-5)


def test_nothing_to_encode_gives_no_rows(student):
    assert len(StudentEncoder(student).encode_images([])) == 0
    assert len(StudentEncoder(student).encode_texts([])) == 0


def test_a_missing_tower_gives_none_and_leaves_its_inputs_alone(student, images):
    def untouchable():
        pytest.fail("read")
        yield

    texts_only = StudentEncoder(replace(student, image_processor=None))
    assert texts_only.encode_images(untouchable()) is None
    assert texts_only.encode_texts(TEXTS).shape == (4, 12)
    images_only = StudentEncoder(replace(student, tokenizer=None))
    assert images_only.encode_texts(TEXTS) is None
    assert images_only.encode_images(images).shape == (5, 12)


def test_encoding_leaves_the_training_mode_alone(student, images):
    student.model.train()
    frozen = student.model.vision_model.eval()
    encoder = StudentEncoder(student)
    modes = [module.training for module in student.model.modules()]
    first = encoder.encode_images(images)
    encoder.encode_texts(TEXTS)
    assert [module.training for module in student.model.modules()] == modes
    assert student.model.training
    assert not frozen.training
    np.testing.assert_array_equal(first, encoder.encode_images(images))


def test_sizes_are_those_of_the_saved_weights(student, tmp_path):
    encoder = StudentEncoder(student)
    student.save(tmp_path)
    saved = (tmp_path / "model.safetensors").stat().st_size
    assert encoder.parameters == sum(weight.numel() for weight in student.model.parameters())
    assert 0.5 * saved < encoder.bytes <= saved
    tied = torch.nn.Linear(4, 4, bias=False)
    student.model.register_module("one", tied)
    student.model.register_module("two", tied)
    assert StudentEncoder(student).bytes == encoder.bytes + 4 * 16


@dataclass
class PixelTeacher:
    """Embeds a picture as its mean colour and a text as its length."""

    preprocessing: Preprocessing
    name: str = "folder"
    width: int = 3
    logit_scale: float = 10.0
    logit_bias: float = 0.0
    fingerprint: str = ""
    context_length: int = 8
    truncated: int = 0
    parameters: int = 5
    bytes: int = 20
    largest: int = 0

    def encode_images(self, pixels):
        assert pixels.dtype == torch.uint8
        assert pixels.shape[1:] == (8, 8, 3)
        self.largest = max(self.largest, len(pixels))
        return pixels.float().mean(dim=(1, 2))

    def encode_texts(self, texts):
        self.largest = max(self.largest, len(texts))
        return torch.tensor([[float(len(text)), 0, 0] for text in texts])


def test_a_teacher_gets_its_own_pixels_in_batches(images):
    look = Preprocessing.from_processor(
        CLIPImageProcessorPil(
            size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
        ).to_dict()
    )
    teacher = PixelTeacher(look)
    encoder = TeacherEncoder(teacher, batch_size=2)
    expected = [look.pixels(image).mean(axis=(0, 1)) for image in images]
    np.testing.assert_allclose(encoder.encode_images(iter(images)), expected, rtol=1e-5)
    assert encoder.encode_texts(["a", "abc", "ab"])[:, 0].tolist() == [1, 3, 2]
    assert teacher.largest == 2
    assert (encoder.name, encoder.parameters, encoder.bytes) == ("teacher", 5, 20)


class TextBundle:
    """A bundle without an image tower, as far as an encoder looks at it."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = SimpleNamespace(image=None, text=SimpleNamespace(file="text.onnx"))

    def embed_texts(self, texts):
        return np.ones((len(texts), 2), dtype=np.float32)


def test_a_bundle_of_one_tower_gives_none_for_the_other(images, tmp_path):
    for name, size in (("text.onnx", 3), ("text.onnx.data", 9), ("tokenizer.json", 100)):
        (tmp_path / name).write_bytes(b"x" * size)
    encoder = BundleEncoder(TextBundle(tmp_path), name="int8")
    assert encoder.encode_images(images) is None
    assert encoder.encode_texts(["a", "b"]).shape == (2, 2)
    assert (encoder.name, encoder.parameters, encoder.bytes) == ("int8", None, 12)


class Lengths:
    """Embeds a text as its length, and counts the texts of each call."""

    name = "lengths"

    def __init__(self, *, reads=True):
        self.calls = []
        self._reads = reads

    def encode_texts(self, texts):
        self.calls.append(len(texts))
        return np.array([[len(text)] for text in texts], np.float32) if self._reads else None


def test_many_texts_are_embedded_in_parts_under_a_bar():
    texts = ["x" * (number % 7) for number in range(2100)]
    whole, parts, blind = Lengths(), Lengths(), Lengths(reads=False)
    expected = encode_many(whole, texts, progress=False)
    np.testing.assert_array_equal(encode_many(parts, texts, progress=True), expected)
    assert (whole.calls, parts.calls) == ([2100], [1024, 1024, 52])
    assert encode_many(blind, texts, progress=True) is None
    assert blind.calls == [1024]
    few = Lengths()
    encode_many(few, texts[:5], progress=True)
    assert few.calls == [5]
