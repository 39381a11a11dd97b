"""A teacher from transformers embeds as transformers does, and stays frozen."""

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image

from export.runtime.errors import TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    from distill.teacher.hf import load_hf_teacher
    from distill.teacher.load import load_teacher
    from distill.teacher.protocol import Teacher
    from students.build import build_towers

TEXTS = ["a cat", "the dog sat on a mat", "x"]


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(60, 45), (50, 50), (33, 80)]
    return [
        Image.fromarray(generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


def pixels_for(teacher: Teacher) -> torch.Tensor:
    seen = [teacher.preprocessing.pixels(picture) for picture in pictures()]
    return torch.from_numpy(np.stack(seen))


def by_transformers(folder: Path, **padding: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Embed with the library's own calls, as its documentation shows."""
    model = AutoModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        texts = tokenizer(TEXTS, return_tensors="pt", truncation=True, **padding)
        text = model.get_text_features(**texts).pooler_output
        image = model.get_image_features(**processor(pictures(), return_tensors="pt")).pooler_output
    return tuple(some / some.norm(dim=1, keepdim=True) for some in (image, text))


@pytest.mark.parametrize(
    ("kind", "padding", "width", "context"),
    [
        ("clip_folder", {"padding": True, "max_length": 20}, 24, 20),
        ("siglip_folder", {"padding": "max_length", "max_length": 64}, 32, 64),
        ("pair_folder", {"padding": True, "max_length": 12}, 24, 12),
        ("chinese_folder", {"padding": True, "max_length": 20}, 24, 20),
        # Its positions start at the padding token's id.
        ("alt_folder", {"padding": True, "max_length": 18}, 24, 18),
    ],
)
def test_embeddings_are_those_of_transformers(
    kind: str, padding: dict[str, Any], width: int, context: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    teacher = load_hf_teacher(str(folder))
    image, text = teacher.encode_images(pixels_for(teacher)), teacher.encode_texts(TEXTS)
    expected_image, expected_text = by_transformers(folder, **padding)
    torch.testing.assert_close(image, expected_image, rtol=0, atol=1e-5)
    torch.testing.assert_close(text, expected_text, rtol=0, atol=1e-5)
    assert image.dtype == text.dtype == torch.float32
    assert (teacher.width, teacher.context_length) == (width, context)
    assert teacher.name == folder.name
    assert teacher.bytes == (folder / "model.safetensors").stat().st_size


def test_scale_and_bias_are_the_models_own(clip_folder: Path, siglip_folder: Path) -> None:
    clip, siglip = load_hf_teacher(str(clip_folder)), load_hf_teacher(str(siglip_folder))
    assert clip.logit_scale == pytest.approx(math.exp(2.6592), rel=1e-6)
    assert clip.logit_bias == 0.0
    assert siglip.logit_scale == pytest.approx(math.exp(4.75), rel=1e-6)
    assert siglip.logit_bias == -12.5


KINDS = ("clip", "siglip", "pair", "chinese", "alt")


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    teacher = load_hf_teacher(str(folder))
    image, text = teacher.encode_images(pixels_for(teacher)), teacher.encode_texts(TEXTS)
    logits = image @ text.T * teacher.logit_scale + teacher.logit_bias
    padding = "max_length" if kind == "siglip" else True
    length = teacher.context_length
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, return_tensors="pt", truncation=True, padding=padding, max_length=length
    )
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder)(
            **tokens, **processor(pictures(), return_tensors="pt")
        ).logits_per_image
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_any_length_are_cut_and_counted(kind: str, request: pytest.FixtureRequest) -> None:
    teacher = load_hf_teacher(str(request.getfixturevalue(f"{kind}_folder")))
    texts = ["", "a " * (teacher.context_length - 2), "a " * teacher.context_length, "b " * 50_000]
    assert teacher.encode_texts(texts).isfinite().all()
    assert teacher.truncated == 2
    odd = ["a" * 20 + "\ud800", "a\0b", "🚲", "شجرة"]
    assert teacher.encode_texts(odd).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_embedding_alone_and_among_longer_ones(
    kind: str, request: pytest.FixtureRequest
) -> None:
    teacher = load_hf_teacher(str(request.getfixturevalue(f"{kind}_folder")))
    together, alone = teacher.encode_texts(["x", "a b c d e f g h"]), teacher.encode_texts(["x"])
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-6)


def test_many_pictures_and_texts_are_embedded_in_parts(clip_folder: Path) -> None:
    teacher = load_hf_teacher(str(clip_folder))
    pixels = torch.randint(0, 256, (19, 32, 32, 3), dtype=torch.uint8)
    single = torch.cat([teacher.encode_images(one[None]) for one in pixels])
    torch.testing.assert_close(teacher.encode_images(pixels), single, rtol=0, atol=1e-5)
    texts = [chr(ord("a") + i % 26) * (1 + i % 3) for i in range(300)]
    found = teacher.encode_texts(texts)
    assert found.shape == (300, 24)
    torch.testing.assert_close(found[299:], teacher.encode_texts(texts[299:]), rtol=0, atol=1e-5)
    assert teacher.encode_texts([]).shape == (0, 24)
    assert teacher.encode_images(pixels[:0]).shape == (0, 24)


def test_texts_that_are_cut_are_counted(clip_folder: Path) -> None:
    teacher = load_hf_teacher(str(clip_folder))
    assert teacher.truncated == 0
    # Each letter is a token, and so are the start and the end: 18 letters fit into 20.
    teacher.encode_texts(["a " * 18, "a " * 19, "a " * 60])
    assert teacher.truncated == 2
    teacher.encode_texts(["b " * 40])
    assert teacher.truncated == 3
    cut, whole = teacher.encode_texts(["a " * 60]), teacher.encode_texts(["a " * 18])
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-6)


def test_no_gradient_reaches_a_teacher(clip_folder: Path) -> None:
    teacher = load_hf_teacher(str(clip_folder))
    assert not isinstance(teacher, torch.nn.Module)
    holder = torch.nn.Module()
    holder.teacher = teacher
    assert list(holder.parameters()) == []
    assert holder.state_dict() == {}
    image, text = teacher.encode_images(pixels_for(teacher)), teacher.encode_texts(TEXTS)
    assert not image.requires_grad
    assert not text.requires_grad
    # A loss must be able to save its constants for the backward pass.
    weights = torch.ones(24, requires_grad=True)
    ((image * weights) @ text.T).sum().backward()
    assert weights.grad is not None
    model = teacher._model
    assert not model.training
    assert [
        name for name, p in model.named_parameters() if p.requires_grad or p.grad is not None
    ] == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_converted_to_the_dtype(
    dtype: str, half_clip_folder: Path, clip_folder: Path
) -> None:
    teacher = load_hf_teacher(str(half_clip_folder), dtype=dtype)
    kinds = {parameter.dtype for parameter in teacher._model.parameters()}
    assert kinds == {getattr(torch, dtype)}
    whole = load_hf_teacher(str(clip_folder))
    found, expected = teacher.encode_texts(TEXTS), whole.encode_texts(TEXTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert (found * expected).sum(dim=1).min() > 0.999
    pixels = pixels_for(teacher)
    similar = (teacher.encode_images(pixels) * whole.encode_images(pixels)).sum(dim=1)
    assert similar.min() > 0.999


def test_a_student_of_two_towers_can_teach(tmp_path: Path, pair_folder: Path) -> None:
    fields = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    student = build_towers(
        image={"backbone": "test_efficientnet", "pretrained": False, "image_size": 32},
        text={"config": fields, "tokenizer": str(pair_folder), "pretrained": False},
        width=24,
        logit_scale=20.0,
    )
    student.save(tmp_path)
    teacher = load_hf_teacher(str(tmp_path))
    assert teacher.encode_texts(TEXTS).shape == teacher.encode_images(pixels_for(teacher)).shape
    assert teacher.logit_scale == pytest.approx(20.0)
    build_towers(
        image=None,
        text={"config": fields, "tokenizer": str(pair_folder), "pretrained": False},
        width=24,
        logit_scale=20.0,
    ).save(tmp_path / "blind")
    with pytest.raises(TeacherError, match="needs an image tower and a text tower"):
        load_hf_teacher(str(tmp_path / "blind"))


def test_a_row_is_loaded_by_the_function_that_it_names(clip_folder: Path) -> None:
    row: Any = SimpleNamespace(
        loader="distill.teacher.hf:load_hf_teacher",
        arguments=lambda: {"model": str(clip_folder), "dtype": "float64"},
    )
    with pytest.raises(KeyError, match="float64"):
        load_teacher(row)
    row.arguments = lambda: {"model": str(clip_folder), "dtype": "float32"}
    assert load_teacher(row, device="cpu").width == 24


def fail(model: str) -> str:
    with pytest.raises(TeacherError) as caught:
        load_hf_teacher(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def copy(folder: Path, target: Path, *, without: str) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        if file.name != without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_what_a_folder_lacks_is_named(clip_folder: Path, tmp_path: Path) -> None:
    for number, (name, said) in enumerate(
        {
            "model.safetensors": "holds no weights; model.safetensors is missing",
            "config.json": "config.json is missing",
            "tokenizer.json": "tokenizer.json is missing",
            "preprocessor_config.json": "preprocessor_config.json is missing",
        }.items()
    ):
        folder = copy(clip_folder, tmp_path / str(number), without=name)
        message = fail(str(folder))
        assert said in message
        assert str(folder) in message


def test_a_weights_file_is_not_a_folder(clip_folder: Path) -> None:
    message = fail(str(clip_folder / "model.safetensors"))
    assert "model.safetensors is a file; give the folder" in message
    assert "kind openai" in message


def test_a_teacher_takes_no_ids_of_another_tokenizer(clip_folder: Path) -> None:
    teacher: Any = load_hf_teacher(str(clip_folder))
    for texts in (torch.zeros(2, 4, dtype=torch.long), [[1, 2]], [1], "a cat"):
        with pytest.raises(TypeError, match="takes a list of texts, since each model uses its own"):
            teacher.encode_texts(texts)


def test_folders_of_other_things_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy(clip_folder, tmp_path / "vision", without="")
    torch.manual_seed(0)
    AutoModel.from_pretrained(clip_folder).vision_model.save_pretrained(folder)
    assert "not a dual encoder" in fail(str(folder))
    folder = copy(clip_folder, tmp_path / "damaged", without="")
    (folder / "model.safetensors").write_bytes(b"nothing of use")
    assert "cannot be loaded" in fail(str(folder))


class Runs:
    """Its pickle asks to call a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_a_pickle_that_asks_to_run_code_is_refused(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copy(clip_folder, tmp_path / "hostile", without="model.safetensors")
    torch.save({"weight": Runs()}, folder / "pytorch_model.bin")
    message = fail(str(folder))
    assert message.startswith(f"teacher.model: {folder}")
    assert "asks to call posix.mkdir" in message
    assert not (tmp_path / "ran").exists()


def test_missing_tensors_are_never_random(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy(clip_folder, tmp_path / "lacking", without="")
    model = AutoModel.from_pretrained(clip_folder)
    state = {k: v for k, v in model.state_dict().items() if "layers.1" not in k}
    model.save_pretrained(folder, state_dict=state)
    assert "weights lack 32 of the model's tensors" in fail(str(folder))


def test_an_unsupported_processor_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    folder = copy(clip_folder, tmp_path / "odd", without="preprocessor_config.json")
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "Siglip2ImageProcessor"}'
    )
    assert fail(str(folder)).startswith(f"teacher.model: {folder}: ")


def test_a_hub_out_of_reach_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = fail("openai/clip-vit-large-patch14")
    assert "config.json, model.safetensors, tokenizer.json" in message
    assert "give the local path as teacher.model" in message
