"""The benchmark of the loader: it reads every form, and compares each with the plain loop."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.lazy import lazy_imports

with lazy_imports():
    from benchmarks import loader


@pytest.mark.slow
def test_every_form_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures/inside"
    pictures.mkdir(parents=True)
    for number in range(70):
        Image.new("RGB", (40, 30), (3 * number, 9, 9)).save(pictures / f"{number}.jpg", quality=100)
    # A copy under another name does not count as another picture.
    (pictures / "copy.jpg").write_bytes((pictures / "0.jpg").read_bytes())
    arguments = ["--data", str(pictures.parent), "--size", "32", "--processes", "1"]
    arguments += ["--rounds", "1", "--passes", "1", "--ways", "whole"]
    loader.main([*arguments, "--out", str(tmp_path / "out.json")])
    report = json.loads((tmp_path / "out.json").read_text())
    # Whole batches.
    assert report["files"] == 64
    assert report["median_size"] == [40, 30]
    assert set(report["results"]) == {f"{form}, whole" for form in loader.FORMS}
    for found in report["results"].values():
        assert len(found["turns"]) == 1
        turn = found["turns"][0]
        assert found["ratio"] == turn["plain"]["clock"] / turn["ours"]["clock"]
    assert "| folder, whole |" in capsys.readouterr().out


def test_what_it_cannot_measure_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        loader.main(["--data", str(tmp_path / "none")])
    assert "the folder does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="found 0 pictures"):
        loader.main(["--data", str(tmp_path)])
