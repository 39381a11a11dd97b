"""OpenAI's checkpoints embed as the same weights in a ``CLIPModel`` do."""

import math
from pathlib import Path

import numpy as np
import pytest

from distill.teacher.openai_names import OPENAI_MODELS
from export.runtime.errors import TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    import open_clip
    import torch
    from open_clip.model import CLIP
    from torch import Tensor
    from transformers import CLIPModel

    from distill.teacher.hf import load_hf_teacher
    from distill.teacher.openai import load_openai_teacher
    from tests.distill.teacher.openai_format import (
        CONTEXT,
        EMBEDDING,
        IMAGE,
        NUMBERS,
        random_state,
        save_as_clip_model,
        save_openai,
    )

WORDS = ["a", "photo", "of", "two", "small", "red", "bicycles", "under", "an", "old", "tree"]
# One text for each length that fits, with start and end tokens.
TEXTS = [" ".join((WORDS * 7)[:count]) for count in range(76)]
FORMS = ("state_dict", "torchscript")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("openai")
    return {form: save_openai(folder, form, state=state) for form in FORMS}


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> Path:
    return save_as_clip_model(tmp_path_factory.mktemp("clip_model"), state)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.integers(0, 256, (5, IMAGE, IMAGE, 3), dtype=np.uint8))


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_are_those_of_the_same_weights_in_transformers(
    form: str, files: dict[str, Path], clip_model: Path, pixels: Tensor
) -> None:
    teacher, expected = load_openai_teacher(str(files[form])), load_hf_teacher(str(clip_model))
    text, image = teacher.encode_texts(TEXTS), teacher.encode_images(pixels)
    torch.testing.assert_close(text, expected.encode_texts(TEXTS), rtol=0, atol=1e-5)
    torch.testing.assert_close(image, expected.encode_images(pixels), rtol=0, atol=1e-5)
    assert text.shape == (len(TEXTS), EMBEDDING)
    assert teacher.truncated == expected.truncated == 0


def test_the_texts_have_every_length_and_the_activation_matters(
    state: dict[str, Tensor], files: dict[str, Path], tmp_path: Path
) -> None:
    lengths = [(open_clip.tokenize([text]) != 0).sum().item() for text in TEXTS]
    assert lengths == list(range(2, CONTEXT + 1))
    plain = load_hf_teacher(str(save_as_clip_model(tmp_path, state, hidden_act="gelu")))
    found = load_openai_teacher(str(files["state_dict"])).encode_texts(TEXTS)
    assert (found - plain.encode_texts(TEXTS)).abs().max() > 1e-3


def test_what_it_declares(files: dict[str, Path]) -> None:
    teacher = load_openai_teacher(str(files["torchscript"]))
    assert (teacher.name, teacher.width, teacher.context_length) == ("torchscript", EMBEDDING, 77)
    assert teacher.logit_scale == pytest.approx(math.exp(4.6052), rel=1e-6)
    assert teacher.logit_bias == 0
    assert teacher.tokenizer == "SimpleTokenizer"
    assert teacher.preprocessing.size == (IMAGE, IMAGE)
    assert teacher.preprocessing.crop_offset == "round"
    assert teacher.preprocessing.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert teacher.bytes == files["torchscript"].stat().st_size


def test_long_texts_are_cut_and_counted(files: dict[str, Path]) -> None:
    teacher = load_openai_teacher(str(files["state_dict"]))
    texts = [TEXTS[-1], f"{TEXTS[-1]} more", "word " * 20000, "x" * 100_000, "", "\ud800 \0 🚲"]
    found = teacher.encode_texts(texts)
    assert teacher.truncated == 3
    assert found.isfinite().all()
    tokens = open_clip.tokenize(texts[:3])
    with torch.no_grad():
        expected = teacher._model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(found[:3], expected, rtol=0, atol=1e-6)


def test_weights_in_half_precision_as_openai_stores_them(tmp_path: Path, pixels: Tensor) -> None:
    state = random_state(dtype=torch.float16)
    teacher = load_openai_teacher(str(save_openai(tmp_path, "torchscript", state=state)))
    expected = load_hf_teacher(str(save_as_clip_model(tmp_path / "hf", state)))
    found = teacher.encode_images(pixels)
    torch.testing.assert_close(found, expected.encode_images(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_it_computes_in_the_dtype(dtype: str, files: dict[str, Path], pixels: Tensor) -> None:
    whole = load_openai_teacher(str(files["state_dict"]))
    half = load_openai_teacher(str(files["state_dict"]), dtype=dtype)
    for found, expected in (
        (half.encode_images(pixels), whole.encode_images(pixels)),
        (half.encode_texts(TEXTS[:9]), whole.encode_texts(TEXTS[:9])),
    ):
        assert found.dtype == torch.float32
        assert (found * expected).sum(dim=1).min() > 0.99
    assert half.fingerprint != whole.fingerprint


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:FutureWarning")
def test_a_resnet_embeds_as_open_clips_own_loader_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CLIP(
        24,
        vision_cfg={"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
        text_cfg={"width": 64, "heads": 1, "layers": 1},
        quick_gelu=True,
    ).half()
    file = tmp_path / "RN.pt"
    torch.save(model.state_dict(), file)
    teacher = load_openai_teacher(str(file))
    expected = open_clip.load_openai_model(str(file), precision="fp32", device="cpu")
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    values = torch.from_numpy(teacher.preprocessing.normalise(pixels.numpy()))
    with torch.no_grad():
        image = expected.encode_image(values, normalize=True)
        text = expected.encode_text(open_clip.tokenize(TEXTS[:4]), normalize=True)
    torch.testing.assert_close(teacher.encode_images(pixels), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(teacher.encode_texts(TEXTS[:4]), text, rtol=0, atol=1e-5)


def test_the_fingerprint_depends_on_the_content(
    files: dict[str, Path], state: dict[str, Tensor], tmp_path: Path
) -> None:
    script, plain = (load_openai_teacher(str(files[form])).fingerprint for form in FORMS)
    assert script == plain
    moved = save_openai(tmp_path, "state_dict", state={**state, "epoch": torch.tensor(1)} | state)
    changed = {**state, "visual.proj": state["visual.proj"] + 1e-3}
    other = save_openai(tmp_path, "torchscript", state=changed)
    assert load_openai_teacher(str(other)).fingerprint != plain
    with pytest.raises(TeacherError, match="epoch"):
        load_openai_teacher(str(moved))


def test_a_scripted_model_stores_its_mask_with_the_weights(
    state: dict[str, Tensor], tmp_path: Path, files: dict[str, Path]
) -> None:
    mask = {"attn_mask": torch.zeros(CONTEXT, CONTEXT)}
    file = save_openai(tmp_path, "torchscript", state={**state, **mask})
    expected = load_openai_teacher(str(files["state_dict"])).encode_texts(TEXTS[:3])
    torch.testing.assert_close(load_openai_teacher(str(file)).encode_texts(TEXTS[:3]), expected)


def test_an_assumed_activation_is_announced(
    state: dict[str, Tensor],
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file in files.values():
        load_openai_teacher(str(file))
    assert "QuickGELU" not in capsys.readouterr().err
    weights = {key: value for key, value in state.items() if key not in NUMBERS}
    torch.save(weights, tmp_path / "plain.pt")
    load_openai_teacher(str(tmp_path / "plain.pt"))
    said = " ".join(capsys.readouterr().err.split())
    assert "plain.pt does not say which activation it was trained with" in said
    assert "set kind: open_clip and quick_gelu: false" in said


def fail(model: object) -> str:
    with pytest.raises(TeacherError) as caught:
        load_openai_teacher(str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_formats_are_refused_in_one_line(
    state: dict[str, Tensor], clip_model: Path, tmp_path: Path
) -> None:
    torch.save(CLIPModel.from_pretrained(clip_model).state_dict(), tmp_path / "hf.pt")
    assert "is not a checkpoint of OpenAI's CLIP, since it lacks" in fail(tmp_path / "hf.pt")
    few = {**state, "token_embedding.weight": state["token_embedding.weight"][:100]}
    message = fail(save_openai(tmp_path, "state_dict", state=few))
    assert "has 49408 tokens, but the text tower embeds 100" in message
    narrow = {**state, "ln_final.weight": torch.ones(32)}
    assert "32 wide" in fail(save_openai(tmp_path, "state_dict", state=narrow))
    del narrow["ln_final.bias"]
    lacking = {key: value for key, value in state.items() if key != "ln_final.bias"}
    assert "ln_final.bias" in fail(save_openai(tmp_path, "state_dict", state=lacking))
    assert "must be one of OpenAI's files or one of RN50" in fail("ViT-L/15")


def test_names_equal_openais(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, Path]
) -> None:
    known = [name for name in open_clip.list_openai_models() if not name.endswith("-quickgelu")]
    ours = [name.replace("/", "-").replace("@336px", "-336") for name in OPENAI_MODELS]
    assert sorted(ours) == sorted(known)
    monkeypatch.setenv("HOME", str(tmp_path))
    message = fail("ViT-L/14@336px")
    assert "download https://openaipublic.azureedge.net/clip/models/" in message
    assert "ViT-L-14-336px.pt" in message
    assert "set teacher.model to the path of the file" in message
    cache = tmp_path / ".cache" / "clip"
    cache.mkdir(parents=True)
    (cache / "ViT-B-32.pt").write_bytes(files["torchscript"].read_bytes())
    assert load_openai_teacher("ViT-B/32").name == "ViT-B/32"
