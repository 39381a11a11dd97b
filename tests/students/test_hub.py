"""Local folders are used as they are, and the hub's cache replaces a hub out of reach."""

import shutil
import socket
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    from students.build import build_towers
    from students.hub import find_file, find_model
    from students.model import load_student


@pytest.fixture
def cached(bert_folder: Path) -> Path:
    """Put one model in the hub's cache, in the layout of huggingface_hub."""
    repository = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--someone--small-bert"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(bert_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return snapshot


@pytest.mark.usefixtures("no_hub")
def test_a_cached_model_is_found_without_the_hub(request: pytest.FixtureRequest) -> None:
    snapshot: Path = request.getfixturevalue("cached")
    assert find_model("someone/small-bert", field="student.text.model") == snapshot
    candidates = ["absent.bin", "model.safetensors"]
    found = find_file("someone/small-bert", candidates, field="student.image.weights")
    assert found == snapshot / "model.safetensors"
    with pytest.raises(OSError, match=r"missing: absent\.bin"):
        find_file("someone/small-bert", ["absent.bin"], field="student.image.weights")


@pytest.mark.usefixtures("no_hub")
def test_a_cache_without_the_weights_says_what_is_missing(request: pytest.FixtureRequest) -> None:
    snapshot: Path = request.getfixturevalue("cached")
    (snapshot / "model.safetensors").unlink()
    assert find_model("someone/small-bert", field="x", weights=False) == snapshot
    with pytest.raises(OSError, match=r"model\.safetensors") as caught:
        find_model("someone/small-bert", field="student.text.model")
    assert "\n" not in str(caught.value)


def test_local_folders_need_no_network(
    monkeypatch: pytest.MonkeyPatch, bert_folder: Path, image: dict[str, Any], tmp_path: Path
) -> None:
    def refuse(*arguments: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    text = {"model": str(bert_folder), "pretrained": True, "context_length": 20}
    build_towers(image=image, text=text, width=8, logit_scale=10.0).save(tmp_path)
    assert load_student(tmp_path).width == 8
