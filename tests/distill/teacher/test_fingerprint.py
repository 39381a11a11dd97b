"""A fingerprint depends on the content of a teacher, not on its place."""

import json
import shutil
from pathlib import Path

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import safetensors.torch

    from distill.teacher._fingerprint import fingerprint, weight_files
    from distill.teacher.hf import load_hf_teacher


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "here"))


def test_moving_and_describing_change_nothing(folder: Path, tmp_path: Path) -> None:
    before = load_hf_teacher(str(folder)).fingerprint
    moved = folder.rename(tmp_path / "there")
    (moved / "README.md").write_text("trained on pictures")
    (moved / "training_args.bin").write_bytes(b"1")
    assert load_hf_teacher(str(moved)).fingerprint == before


def change(file: Path, key: str, value: object) -> None:
    content = json.loads(file.read_text())
    assert content.get(key) != value
    file.write_text(json.dumps({**content, key: value}))


def test_every_part_counts(folder: Path) -> None:
    seen = [fingerprint(folder, dtype="float32"), fingerprint(folder, dtype="float16")]
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["text_projection.weight"][0, 0] += 1
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    seen.append(fingerprint(folder, dtype="float32"))
    change(folder / "config.json", "projection_dim", 25)
    seen.append(fingerprint(folder, dtype="float32"))
    change(folder / "preprocessor_config.json", "resample", 2)
    seen.append(fingerprint(folder, dtype="float32"))
    change(folder / "tokenizer_config.json", "model_max_length", 11)
    seen.append(fingerprint(folder, dtype="float32"))
    change(folder / "tokenizer.json", "normalizer", None)
    seen.append(fingerprint(folder, dtype="float32"))
    assert len(set(seen)) == len(seen)


def test_an_index_names_the_shards_of_the_weights(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").write_bytes(b"1")
    (tmp_path / "two.safetensors").write_bytes(b"22")
    assert [file.name for file in weight_files(tmp_path)] == ["one.safetensors", "two.safetensors"]
    before = fingerprint(tmp_path, dtype="float32")
    (tmp_path / "two.safetensors").write_bytes(b"33")
    assert fingerprint(tmp_path, dtype="float32") != before
