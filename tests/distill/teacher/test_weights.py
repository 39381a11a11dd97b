"""Weights are read unchanged, and no code in their files runs."""

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from export.runtime.errors import TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    import safetensors.torch
    import torch
    from torch import nn

    from distill.teacher._weights import is_torchscript, read_weights
    from tests.distill.teacher.openai_format import save_torchscript
    from tests.distill.teacher.scripted import Shelf, Speaking


class Runs:
    """Its pickle asks to call a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_an_archive_gives_the_same_tensors_as_torch(tmp_path: Path) -> None:
    file = save_torchscript(Shelf(), tmp_path / "shelf.pt")
    assert is_torchscript(file)
    found = read_weights(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(file).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_plain_forms(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(2, 3), "b": torch.tensor(1)}
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pt")
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "parallel.pt")
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    for name in ("zip.pt", "old.pt", "checkpoint.pt", "parallel.pt", "x.safetensors"):
        found = read_weights(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
        assert not is_torchscript(tmp_path / name)


def fail(file: Path) -> str:
    with pytest.raises(TeacherError) as caught:
        read_weights(file)
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message
    assert not Path("ran").exists()
    return message


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_asks_to_run_code_is_refused(
    new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Runs()}, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    message = fail(tmp_path / "x.pt")
    assert "it asks to call posix.mkdir, which is refused" in message
    assert "save the state dict alone" in message
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt", _use_new_zipfile_serialization=new)
    assert "asks to call torch.nn.modules.linear.Linear" in fail(tmp_path / "whole.pt")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_without_a_warning(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"a": Runs()}, protocol=protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = fail(tmp_path / "x.pt")
    assert "save the state dict alone" in message


def test_an_archive_that_asks_to_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = save_torchscript(Shelf(), tmp_path / "shelf.pt")
    with (
        zipfile.ZipFile(whole) as source,
        zipfile.ZipFile(tmp_path / "x.pt", "w") as target,
    ):
        for name in source.namelist():
            hostile = name.endswith("/data.pkl")
            target.writestr(name, pickle.dumps(Runs()) if hostile else source.read(name))
    assert "it asks to call posix.mkdir, which is refused" in fail(tmp_path / "x.pt")


def test_the_code_of_an_archive_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = save_torchscript(Speaking(), tmp_path / "x.pt")
    assert read_weights(file) == {}
    assert not Path("ran").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(file)
    assert Path("ran").exists()


def test_damaged_files_give_one_line(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    archive = save_torchscript(Shelf(), tmp_path / "shelf.pt").read_bytes()
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    torch.save({}, tmp_path / "empty_dict.pt")
    for name, some in {
        "empty.pt": b"",
        "text.pt": b"these are no weights",
        "cut.pt": content[: len(content) // 2],
        "bits.pt": content[:700] + bytes(200) + content[900:],
        "archive_bits.pt": archive[:3000] + bytes(200) + archive[3200:],
        "x.safetensors": b"\x10",
    }.items():
        (tmp_path / name).write_bytes(some)
    names = ["list", "numbers", "empty_dict", "empty", "text", "cut", "archive_bits"]
    for name in names:
        assert "cannot be read as weights: " in fail(tmp_path / f"{name}.pt")
    assert "cannot be read as weights: " in fail(tmp_path / "x.safetensors")
