"""The whole demo, with fewer pictures and steps."""

import json
from pathlib import Path

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    from distill.demo import run as demo
    from export.runtime.model import EdgeModel


@pytest.mark.slow
def test_the_demo_leaves_report_and_bundle_and_skips_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_PICTURES", 256)
    monkeypatch.setattr(demo, "_CAPTIONED", 128)
    pictures = {"trained_pairs": ("train", 144, 11), "held_out_pairs": ("held_out", 80, 12)}
    monkeypatch.setattr(demo, "_NEW_PICTURES", pictures)
    short = ["train.steps=4", "data.workers=0"]
    out = tmp_path / "demo"
    demo.run_demo(out, overrides=short)
    report = json.loads((out / "report.json").read_text())
    models = {model["name"]: model for model in report["models"]}
    assert list(models) == ["teacher", "student", "student_alone"]
    assert models["student"]["parameters"] <= models["teacher"]["parameters"] / 4
    sets = {entry["name"]: entry for entry in report["sets"]}
    assert list(sets) == ["trained_pairs", "held_out_pairs"]
    # The teacher is the bundled one; 144 and 80 pictures are enough to show it.
    assert sets["trained_pairs"]["results"]["teacher"]["top1"] >= 0.95
    assert sets["held_out_pairs"]["results"]["teacher"]["top1"] >= 0.9
    page = (out / "report.html").read_text()
    assert "procedural" in page
    assert "not a CLIP of the real world" in page
    assert EdgeModel.load(out / "bundle").embed_texts(["a red circle"]).shape == (1, 128)
    student = (out / "student" / "student" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    demo.run_demo(out, overrides=short)
    assert (out / "student" / "student" / "model.safetensors").stat().st_mtime_ns == student
    assert capsys.readouterr().err.count("train: finished before") == 2


def test_both_students_get_the_same_captioned_pictures(tmp_path: Path) -> None:
    many = demo.render_scenes(tmp_path / "many", count=20, seed=demo.TRAIN_SEED, captioned=8)
    few = demo.render_scenes(tmp_path / "few", count=8, seed=demo.TRAIN_SEED)
    captioned = [line for line in many.read_text().splitlines() if ",," not in line]
    assert captioned == few.read_text().splitlines()
    for path in (few.parent / "images").iterdir():
        assert path.read_bytes() == (many.parent / "images" / path.name).read_bytes()
