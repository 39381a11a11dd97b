"""Teachers from open_clip embed as open_clip does, and never with a wrong activation."""

import json
import math
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image

from export.runtime.errors import BundleError, TeacherError
from tests.distill.teacher.open_clip_models import CLIP, MODELS, random_weights, save_open_clip
from tests.lazy import lazy_imports

with lazy_imports():
    import open_clip
    import torch
    from torch import Tensor

    from distill.teacher._open_clip_towers import read_preprocessing, silent
    from distill.teacher.open_clip import load_open_clip_teacher
    from tests.distill.teacher.openai_format import save_torchscript

TEXTS = ["a cat", "The dog, sat on a mat!", "x", "a b c d e f g h i j k l m n o p q r s t u v"]
SIZES = [(60, 45), (50, 50), (33, 80), (32, 32), (97, 41), (20, 31), (7, 90)]


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("open_clip")
    return {name: save_open_clip(place / name, name) for name in MODELS}


def by_open_clip(folder: Path) -> tuple[Tensor, Tensor]:
    """Embed with the library's own calls, as its documentation shows."""
    name = f"local-dir:{folder}"
    with silent():
        model, transform = open_clip.create_model_from_pretrained(name)
        tokenizer = open_clip.get_tokenizer(name)
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack([transform(one) for one in pictures()]))
        text = model.encode_text(tokenizer(TEXTS))
    some = (value[0] if isinstance(value, tuple) else value for value in (image, text))
    return tuple(value / value.norm(dim=1, keepdim=True) for value in some)


@pytest.mark.parametrize("name", list(MODELS))
def test_embeddings_are_those_of_open_clip(name: str, folders: dict[str, Path]) -> None:
    teacher = load_open_clip_teacher(str(folders[name]))
    pixels = np.stack([teacher.preprocessing.pixels(picture) for picture in pictures()])
    image, text = by_open_clip(folders[name])
    found = teacher.encode_images(torch.from_numpy(pixels))
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)
    torch.testing.assert_close(teacher.encode_texts(TEXTS), text, rtol=0, atol=1e-5)
    assert (teacher.width, teacher.name) == (24, name)
    assert teacher.context_length == MODELS[name]["text_cfg"]["context_length"]
    # If each letter is a token, the second text is too long as well.
    assert teacher.truncated == (2 if name in ("siglip", "hf_text") else 1)
    assert teacher.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert teacher.logit_bias == (-10 if name == "siglip" else 0)


def test_quick_gelu_is_what_the_folder_says(folders: dict[str, Path], tmp_path: Path) -> None:
    quick, plain = (load_open_clip_teacher(str(folders[name])) for name in ("quick", "clip"))
    assert (quick.encode_texts(TEXTS) - plain.encode_texts(TEXTS)).abs().max() > 1e-3
    assert quick.fingerprint != plain.fingerprint
    message = fail(str(folders["quick"]), quick_gelu=False)
    assert message.startswith("teacher.quick_gelu: found false, but the weights")
    assert load_open_clip_teacher(f"local-dir:{folders['quick']}", quick_gelu=True).width == 24


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(MODELS))
def test_it_computes_in_the_dtype(name: str, dtype: str, folders: dict[str, Path]) -> None:
    folder = str(folders[name])
    whole, half = load_open_clip_teacher(folder), load_open_clip_teacher(folder, dtype=dtype)
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    for found, expected in (
        (half.encode_images(pixels), whole.encode_images(pixels)),
        (half.encode_texts(TEXTS), whole.encode_texts(TEXTS)),
    ):
        assert found.dtype == torch.float32
        assert (found * expected).sum(dim=1).min() > 0.98


def test_the_fingerprint_does_not_depend_on_the_place(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("siglip", "hf_text"):
        moved = Path(shutil.copytree(folders[name], tmp_path / name))
        file = moved / "open_clip_config.json"
        values = json.loads(file.read_text())
        if name == "hf_text":
            values["model_cfg"]["text_cfg"]["hf_model_name"] = str(moved / "bert")
            file.write_text(json.dumps(values))
        before = load_open_clip_teacher(str(folders[name])).fingerprint
        assert load_open_clip_teacher(str(moved)).fingerprint == before
        values["preprocess_cfg"]["resize_mode"] = "shortest" if name == "siglip" else "squash"
        file.write_text(json.dumps(values))
        seen = [before, load_open_clip_teacher(str(moved)).fingerprint]
        weights = moved / "open_clip_pytorch_model.bin"
        state = torch.load(weights)
        torch.save({**state, "logit_scale": state["logit_scale"] + 1}, weights)
        seen.append(load_open_clip_teacher(str(moved)).fingerprint)
        assert len(set(seen)) == 3


# --- built-in architectures


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make open_clip know a small architecture and its QuickGELU twin, with a tag for each."""
    configs, known = open_clip.factory._MODEL_CONFIGS, open_clip.pretrained._PRETRAINED
    monkeypatch.setitem(configs, "tiny", json.loads(json.dumps(CLIP)))
    monkeypatch.setitem(configs, "tiny-quickgelu", json.loads(json.dumps(MODELS["quick"])))
    file = tmp_path / "weights.pt"
    torch.save(random_weights("tiny"), file)
    look = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    plain = {"file": str(file), "resize_mode": "squash", **look}
    quick = {**plain, "quick_gelu": True}
    monkeypatch.setitem(known, "tiny", {"plain": plain, "quick": quick, "also": plain})
    monkeypatch.setitem(known, "tiny-quickgelu", {"quick": quick})
    return file


def test_tags_state_activation_and_preprocessing(weights: Path) -> None:
    plain = load_open_clip_teacher("tiny", pretrained="plain")
    quick = load_open_clip_teacher("tiny-quickgelu", pretrained="quick")
    forced = load_open_clip_teacher("tiny", pretrained="quick", quick_gelu=True)
    assert plain.name == "tiny-plain"
    assert (plain.preprocessing.resize, plain.preprocessing.resample) == ("square", "bilinear")
    assert plain.preprocessing.mean == (0.5, 0.5, 0.5)
    assert torch.equal(quick.encode_texts(TEXTS), forced.encode_texts(TEXTS))
    assert (quick.encode_texts(TEXTS) - plain.encode_texts(TEXTS)).abs().max() > 1e-3
    assert math.isclose(quick.logit_scale, 1 / 0.07, rel_tol=1e-6)


def test_a_wrong_activation_is_an_error_for_a_tag(weights: Path) -> None:
    assert fail("tiny", pretrained="quick") == (
        "teacher.model: tiny is built without QuickGELU, but the weights quick were trained with "
        "QuickGELU; name tiny-quickgelu, or set quick_gelu: true"
    )
    assert fail("tiny-quickgelu", pretrained="plain") == (
        "teacher.model: tiny-quickgelu is built with QuickGELU, but the weights plain were trained "
        "without QuickGELU; name tiny"
    )
    for model, tag, given in (("tiny", "plain", True), ("tiny-quickgelu", "quick", False)):
        message = fail(model, pretrained=tag, quick_gelu=given)
        assert message.startswith(
            f"teacher.quick_gelu: found {str(given).lower()}, but the weights"
        )


def test_a_recipe_must_state_the_activation_of_a_file(weights: Path) -> None:
    assert fail("tiny", pretrained=str(weights)).startswith("teacher.quick_gelu: missing; ")
    plain = load_open_clip_teacher("tiny", pretrained=str(weights), quick_gelu=False)
    quick = load_open_clip_teacher("tiny", pretrained=str(weights), quick_gelu=True)
    twin = load_open_clip_teacher("tiny-quickgelu", pretrained=str(weights), quick_gelu=True)
    tag = load_open_clip_teacher("tiny", pretrained="plain")
    assert torch.equal(plain.encode_texts(TEXTS), tag.encode_texts(TEXTS))
    assert torch.equal(quick.encode_texts(TEXTS), twin.encode_texts(TEXTS))
    # The preprocessing of the architecture's published weights, not open_clip's default.
    assert plain.preprocessing == tag.preprocessing
    assert "name tiny" in fail("tiny-quickgelu", pretrained=str(weights), quick_gelu=False)
    stated = load_open_clip_teacher("tiny", pretrained="quick", quick_gelu=True)
    assert torch.equal(stated.encode_texts(TEXTS), quick.encode_texts(TEXTS))
    as_tag = load_open_clip_teacher("tiny", pretrained="plain", weights=str(weights))
    assert as_tag.fingerprint == tag.fingerprint
    assert "not used with the file" in fail("tiny", pretrained=str(weights), weights=str(weights))
    assert "nowhere.pt is not a file" in fail("tiny", pretrained="plain", weights="nowhere.pt")


def test_every_published_tag_has_one_right_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tag that open_clip lists can be loaded, by its architecture or by that one's twin."""

    monkeypatch.setattr("distill.teacher.open_clip._load", lambda found, model, **_: found)
    known = open_clip.get_pretrained_cfg
    for model, tag in open_clip.list_pretrained():
        if known(model, tag).get("quick_gelu") and not model.endswith("-quickgelu"):
            assert "set quick_gelu: true" in fail(model, pretrained=tag)
            assert load_open_clip_teacher(model, pretrained=tag, quick_gelu=True).quick_gelu
        else:
            found = load_open_clip_teacher(model, pretrained=tag)
            assert found.quick_gelu == (model.endswith("-quickgelu") or model == "roberta-ViT-B-32")


# --- preprocessing


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("size", [32, 37])
def test_preprocessing_equals_open_clips_to_the_bit(
    mode: str, interpolation: str, size: int
) -> None:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    transform = open_clip.image_transform(
        size, False, mean=mean, std=std, resize_mode=mode, interpolation=interpolation
    )
    ours = read_preprocessing(
        {"size": size, "mean": mean, "std": std}
        | {"interpolation": interpolation, "resize_mode": mode}
    )
    for width in range(size - 4, size + 5):
        for height in (5, size - 1, size, size + 1, 2 * size + 1, 101):
            generator = np.random.default_rng(width * height)
            picture = Image.fromarray(
                generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
            )
            found = ours.normalise(ours.pixels(picture)[None])[0]
            assert np.array_equal(found, transform(picture).numpy()), (width, height)


def test_unsupported_preprocessing_is_refused() -> None:
    plain = {"mean": (0.5,) * 3, "std": 0.5, "interpolation": "bicubic"}
    for size, mode in ((32, "longest"), ((32, 48), "shortest")):
        with pytest.raises(BundleError, match="must be squash, or shortest to a square"):
            read_preprocessing({"size": size, "resize_mode": mode, **plain})
    found = read_preprocessing({"size": (32, 48), "resize_mode": "squash", **plain})
    assert (found.size, found.std) == ((32, 48), (0.5, 0.5, 0.5))


# --- mistakes


def fail(model: str, **arguments: object) -> str:
    with pytest.raises(TeacherError) as caught:
        load_open_clip_teacher(model, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_that_open_clip_does_not_know(weights: Path) -> None:
    assert "did you mean ViT-B-32?" in fail("ViT-B-33", pretrained="openai")
    assert "a tag of ViT-B-32: openai, laion400m_e31" in fail("ViT-B/32", pretrained="opnai")
    assert "missing; name a weights file, or a tag of tiny: plain" in fail("tiny")
    assert "local-dir:nowhere: the folder does not exist" in fail("local-dir:nowhere")


def test_what_a_folder_lacks_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "clip"))
    assert f"teacher.pretrained: not used with {folder}" in fail(str(folder), pretrained="openai")
    (folder / "open_clip_pytorch_model.bin").unlink()
    assert "open_clip_model.safetensors is missing" in fail(str(folder))
    (folder / "open_clip_config.json").write_text("{")
    assert "is missing or damaged" in fail(str(folder))
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"")
    assert "is missing or damaged" in fail(str(folder))


def test_weights_of_another_form_are_refused(weights: Path, tmp_path: Path) -> None:
    archive = save_torchscript(torch.nn.Linear(2, 2), tmp_path / "archive.pt")
    message = fail("tiny", pretrained=str(archive), quick_gelu=True)
    assert "use kind: openai" in message
    torch.save({"visual.proj": torch.zeros(3)}, tmp_path / "few.pt")
    message = fail("tiny", pretrained=str(tmp_path / "few.pt"), quick_gelu=True)
    assert "cannot be read as weights" in message
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pt")
    message = fail("tiny", pretrained=str(tmp_path / "code.pt"), quick_gelu=True)
    assert "asks to call torch.nn.modules.linear.Linear, which is refused" in message


def test_a_hub_out_of_reach_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = fail("ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert "download open_clip_model.safetensors of laion/CLIP-ViT-B-32-laion2B" in message
    assert "cannot be loaded from the hub; download" in message
    assert "and set teacher.weights to the file" in message
    assert "open_clip_config.json" in fail("hf-hub:timm/ViT-B-16-SigLIP")
    weights = tmp_path / "x.pt"
    torch.save({}, weights)
    message = fail("ViT-B-16-SigLIP", pretrained="webli", weights=str(weights))
    assert "timm/ViT-B-16-SigLIP" in message
    assert "cannot be loaded from the hub" in message
