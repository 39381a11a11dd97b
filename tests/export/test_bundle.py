"""A bundle appears complete and verified or not at all, and never replaces other files."""

import doctest
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.runtime.errors import ClipDistillError, ExportError, StudentError
from tests.lazy import lazy_imports

with lazy_imports():
    import onnx
    import torch
    from safetensors.torch import load_file, save_file

    import export.bundle
    from export.bundle import ExportReport, export_student
    from export.runtime import EdgeModel

pytestmark = pytest.mark.slow

Folder = Callable[[str], Path]


@pytest.fixture
def quick(exported: Callable[[str], ExportReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse the exported graph of "text only", since tracing takes seconds."""
    path = exported("text only").folder / "text.onnx"
    monkeypatch.setattr(export.bundle, "export_text", lambda *_, **__: onnx.load(path))


@pytest.fixture
def student(student_folder: Folder) -> Path:
    return student_folder("text only")


def copied(folder: Path, to: Path, **changes: object) -> Path:
    """Copy a student and replace fields of its JSON files: ``preprocessor_config={...}``."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    for stem, fields in changes.items():
        path = to / f"{stem}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return to


def refused(kind: type[ClipDistillError], folder: Path, out: Path, **options: object) -> str:
    before = sorted(out.parent.rglob("*")) if out.parent.exists() else None
    with pytest.raises(kind) as caught:
        export_student(folder, out, **options)
    assert "\n" not in str(caught.value)
    after = sorted(out.parent.rglob("*")) if out.parent.exists() else None
    assert after == before
    return str(caught.value)


def test_a_bundle_is_written_with_parent_folders_and_templates(quick, student, tmp_path):
    out = tmp_path / "new" / "deep" / "bundle"
    report = export_student(student, out, templates=["a {}", "the {}"])
    assert report.folder == out
    assert report.tolerance == 1e-4
    assert EdgeModel.load(out).manifest.templates == ("a {}", "the {}")


def test_a_relative_path(quick, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export_student(student, Path("bundle")).folder == Path("bundle")
    assert EdgeModel.load("bundle").width == 16


def test_a_bundle_is_replaced(quick, student, tmp_path, exported):
    out = tmp_path / "bundle"
    copied(exported("image only").folder, out)
    export_student(student, out)
    assert {path.name for path in out.iterdir()} == {"manifest.json", "text.onnx", "tokenizer.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_empty_folder_is_filled(quick, student, tmp_path):
    (tmp_path / "bundle").mkdir()
    export_student(student, tmp_path / "bundle")
    assert EdgeModel.load(tmp_path / "bundle").width == 16


def test_a_folder_with_other_files_is_not_replaced(quick, student, tmp_path):
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"precious")
    assert "contains holiday.jpg and is not a bundle" in refused(ExportError, student, out)
    (out / "manifest.json").write_text("{}")
    assert "contains holiday.jpg" in refused(ExportError, student, out)
    assert (out / "holiday.jpg").read_bytes() == b"precious"
    export_student(student, out, force=True)
    assert not (out / "holiday.jpg").exists()


def test_a_folder_of_graphs_without_manifest_is_not_a_bundle(student, tmp_path):
    out = tmp_path / "graphs"
    out.mkdir()
    (out / "image.onnx").write_bytes(b"precious")
    assert "contains image.onnx and is not a bundle" in refused(ExportError, student, out)


def test_a_file_or_link_is_not_replaced(student, tmp_path):
    (tmp_path / "file").write_text("precious")
    for force in (False, True):
        message = refused(ExportError, student, tmp_path / "file", force=force)
        assert "found a file or a link" in message
    assert "file is a file" in refused(ExportError, student, tmp_path / "file" / "bundle")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert "a file or a link" in refused(ExportError, student, tmp_path / "link", force=True)


def test_the_student_is_not_replaced_by_its_bundle(student, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    folder = copied(student, run / "student")
    for out in (folder, run):
        assert "this folder contains the student" in refused(ExportError, folder, out, force=True)


def test_a_missing_student_is_named(tmp_path):
    message = refused(StudentError, tmp_path / "nowhere", tmp_path / "out" / "bundle")
    assert str(tmp_path / "nowhere") in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} or {}",)])
def test_templates_without_a_place_for_the_label(student, tmp_path, templates):
    message = refused(ExportError, student, tmp_path / "bundle", templates=templates)
    assert message.startswith("export.templates: ")


def test_a_graph_that_differs_leaves_nothing(quick, student, tmp_path):
    folder = copied(student, tmp_path / "student")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "projection" in key)
    weights[name][0, 0] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = refused(ExportError, folder, tmp_path / "new" / "bundle")
    assert message.startswith("text.onnx: its embeddings differ")
    assert "1e-04" in message or "0.0001" in message
    assert not (tmp_path / "new").exists()


def test_the_tolerance_can_be_set(quick, student, tmp_path):
    assert "1e-12" in refused(ExportError, student, tmp_path / "bundle", tolerance=1e-12)
    report = export_student(student, tmp_path / "bundle", tolerance=1e-5)
    assert 0 < report.differences["text.onnx"] <= 1e-5


def test_nan_embeddings_do_not_pass(quick, student, tmp_path):
    folder = copied(student, tmp_path / "student")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "projection" in key)
    weights[name][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "by up to inf" in refused(ExportError, folder, tmp_path / "bundle", tolerance=1e9)


@pytest.mark.parametrize("stage", ["check_tokenizer", "largest_difference", "_put_in_place"])
def test_an_interrupted_export_leaves_nothing_and_keeps_the_old_bundle(
    quick, student, tmp_path, exported, monkeypatch, stage
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export.bundle, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_student(student, tmp_path / "new" / "bundle")
    assert not (tmp_path / "new").exists()
    old = copied(exported("image only").folder, tmp_path / "bundle")
    with pytest.raises(KeyboardInterrupt):
        export_student(student, old)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert EdgeModel.load(old).manifest.text is None


def test_an_export_interrupted_between_two_renames_restores_the_old_bundle(
    quick, student, tmp_path, exported, monkeypatch
):
    old = copied(exported("image only").folder, tmp_path / "bundle")
    rename = Path.rename

    def interrupt(self, target):
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_student(student, old)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert EdgeModel.load(old).manifest.text is None


def test_a_full_disk_is_reported(quick, student, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.bundle, "_save", full)
    message = refused(ExportError, student, tmp_path / "bundle")
    assert message == f"{tmp_path / 'bundle'}: cannot be written (No space left on device)"


def test_an_image_processor_that_a_bundle_cannot_express(student_folder, tmp_path):
    folder = copied(
        student_folder("image only"), tmp_path / "student", preprocessor_config={"do_pad": True}
    )
    message = refused(ExportError, folder, tmp_path / "bundle")
    assert message.startswith("preprocessor_config.json: image processor, do_pad: found True")


def test_pictures_of_a_size_that_the_tower_does_not_take(student_folder, tmp_path):
    size = {"height": 40, "width": 40}
    folder = copied(
        student_folder("clip"),
        tmp_path / "student",
        preprocessor_config={"size": size, "crop_size": size},
    )
    message = refused(ExportError, folder, tmp_path / "bundle")
    assert "the image tower does not take pictures of 40 x 40 pixels" in message


def test_a_tokenizer_that_pads_on_the_left(quick, student, tmp_path):
    folder = copied(student, tmp_path / "student", tokenizer_config={"padding_side": "left"})
    message = refused(ExportError, folder, tmp_path / "bundle")
    assert message.startswith("tokenizer.json: ")
    assert "pads and cuts on the right" in message


def test_a_tower_that_torch_cannot_export(student, tmp_path, monkeypatch):
    def by_value(self, input_ids, attention_mask):
        rows = np.asarray(input_ids.tolist(), np.float32) + 1
        return torch.from_numpy(rows[:, :1].repeat(16, axis=1))

    monkeypatch.setattr("students.model.StudentModel.get_text_features", by_value)
    message = refused(ExportError, student, tmp_path / "bundle")
    assert message.startswith("text_embeds: torch cannot export this tower to ONNX (")


def test_another_opset(student, tmp_path):
    export_student(student, tmp_path / "bundle", opset=20)
    graph = onnx.load(tmp_path / "bundle" / "text.onnx")
    assert graph.opset_import[0].version == 20


def test_an_unknown_opset_is_refused(student, tmp_path):
    message = refused(ExportError, student, tmp_path / "bundle", opset=999)
    assert message.startswith("text_embeds: ")


def test_nothing_is_printed(student, tmp_path, capfd):
    export_student(student, tmp_path / "bundle")
    assert capfd.readouterr() == ("", "")


def test_the_example_in_the_docstring_runs(student_folder, exported, tmp_path, monkeypatch):
    made = exported("towers").folder
    for tower in ("image", "text"):
        graph = onnx.load(made / f"{tower}.onnx")
        monkeypatch.setattr(export.bundle, f"export_{tower}", lambda *_, graph=graph, **__: graph)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    copied(student_folder("towers"), tmp_path / "runs" / "mine" / "student")
    monkeypatch.chdir(tmp_path)
    (test,) = doctest.DocTestFinder().find(export_student, "export_student", globs={})
    assert doctest.DocTestRunner(verbose=False).run(test) == (0, len(test.examples))
