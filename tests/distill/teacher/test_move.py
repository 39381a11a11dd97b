"""A teacher moves to another device and back, and embeds the same as before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distill.teacher.open_clip_models import save_open_clip
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from distill.teacher.ensemble import Ensemble
    from distill.teacher.hf import load_hf_teacher, load_student_teacher
    from distill.teacher.open_clip import load_open_clip_teacher

TEXTS = ["a cat", "the dog sat on a mat"]
# Devices that this machine has.
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))]


@pytest.fixture(params=["clip", "siglip", "open_clip", "hf_text"])
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param in ("open_clip", "hf_text"):
        name = "clip" if request.param == "open_clip" else request.param
        return load_open_clip_teacher(str(save_open_clip(tmp_path / "model", name)))
    return load_hf_teacher(str(request.getfixturevalue(f"{request.param}_folder")))


def tensors(teacher: Any) -> Iterator[Tensor]:
    """Yield every tensor of a teacher, in its model or as an attribute."""
    for value in vars(teacher).values():
        if isinstance(value, nn.Module):
            yield from (*value.parameters(), *value.buffers())
        elif isinstance(value, Tensor):
            yield value


def embed(ensemble: Ensemble) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    pixels = [
        torch.randint(0, 256, (3, *look.size, 3), dtype=torch.uint8)
        for look in ensemble.preprocessing
    ]
    return ensemble.encode_images(pixels).cpu(), ensemble.encode_texts(TEXTS).cpu()


@pytest.mark.parametrize("device", DEVICES)
def test_it_embeds_the_same_after_a_move(teacher: Any, device: str) -> None:
    teacher.move(device)
    ensemble = Ensemble([teacher], [1.0])
    image, text = embed(ensemble)
    ensemble.move("cpu")
    assert {tensor.device.type for tensor in tensors(teacher)} == {"cpu"}
    ensemble.move(device)
    assert {tensor.device.type for tensor in tensors(teacher)} == {device}
    again = embed(ensemble)
    assert torch.equal(again[0], image)
    assert torch.equal(again[1], text)


def test_a_move_leaves_no_tensor_behind(teacher: Any) -> None:
    # Every machine has the meta device, but a teacher cannot come back from it.
    Ensemble([teacher], [1.0]).move("meta")
    assert {tensor.device.type for tensor in tensors(teacher)} == {"meta"}


def test_only_published_models_declare_their_type(
    clip_folder: Path, pair_folder: Path, tmp_path: Path
) -> None:
    assert load_hf_teacher(str(clip_folder)).model_type == "clip"
    # A student has its own preprocessing, whatever its type.
    assert load_student_teacher(str(pair_folder)).model_type is None
    assert load_student_teacher(str(clip_folder)).model_type is None
    folder = save_open_clip(tmp_path / "open_clip", "clip")
    assert load_open_clip_teacher(str(folder)).model_type is None
