"""A damaged bundle is refused in one line that names the file."""

import json

import pytest

from export.runtime.errors import BundleError
from export.runtime.manifest import read, write
from tests.export.runtime.hand_made import MANIFEST, write_text_graph
from tests.lazy import lazy_imports

with lazy_imports():
    from export.runtime import EdgeModel


def refused(folder) -> str:
    with pytest.raises(BundleError) as caught:
        EdgeModel.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_manifest(folder, values) -> str:
    (folder / "manifest.json").write_text(json.dumps(values))
    message = refused(folder)
    assert message.startswith(f"{folder / 'manifest.json'}: ")
    return message


def test_a_missing_folder_and_a_missing_manifest(tmp_path):
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere")
    assert "manifest.json is missing, so it is not a bundle" in refused(tmp_path)


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    message = refused(bundle)
    assert str(bundle / name) in message
    assert "missing" in message


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_truncated_file_is_named(bundle, name, share):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: int(len(content) * share)])
    assert str(bundle / name) in refused(bundle)


def test_a_manifest_that_is_not_text(bundle):
    (bundle / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as JSON" in refused(bundle)


@pytest.mark.parametrize("found", [2, 0, "1", None, True])
def test_another_format_is_refused_before_its_keys(bundle, found):
    message = with_manifest(bundle, {"format": found, "other": 1})
    assert f"format: found {found!r}, and this version reads 1" in message


@pytest.mark.parametrize("values", [[], "text", 3, None])
def test_a_manifest_that_is_not_an_object(bundle, values):
    assert "format: found None" in with_manifest(bundle, values)


@pytest.mark.parametrize("part", [None, "image", "text"])
def test_unknown_and_missing_keys_are_named(bundle, part):
    def changed(change):
        values = json.loads(json.dumps(MANIFEST))
        change(values if part is None else values[part])
        return values

    added = with_manifest(bundle, changed(lambda entry: entry.update(quantised=True)))
    assert "'quantised' is unknown" in added
    key = "name" if part is None else "file"
    removed = with_manifest(bundle, changed(lambda entry: entry.pop(key)))
    assert f"'{key}' is missing" in removed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", "", "name: expected a text"),
        ("logit_scale", 0, "logit_scale: expected a number above 0"),
        ("logit_scale", "20", "logit_scale: expected a number above 0"),
        ("logit_bias", None, "logit_bias: expected a number"),
        ("templates", [], "templates: expected at least one"),
        ("templates", ["a photo"], "templates: found 'a photo'"),
        ("image.file", "../image.onnx", r"image.file: found '../image.onnx'"),
        ("image.file", "/etc/passwd", "image.file: found '/etc/passwd'"),
        ("text.file", "..", "text.file: found '..'"),
        ("text.tokenizer", "a\\b", "text.tokenizer: found"),
        ("image.width", 4, "text.width: found 5, expected 4"),
        ("image.width", True, "image.width: expected a whole number"),
        ("image.preprocessing.size", [4], "image.preprocessing.size: expected a list of 2"),
        ("text.inputs", ["input_ids"], "text.inputs: expected a list of 2"),
        ("text.padding", "shortest", "text.padding: expected longest or full"),
        ("text.context_length", 0, "text.context_length: expected a whole number of at least 1"),
        ("text.pad_token_id", -1, "text.pad_token_id: expected a whole number of at least 0"),
        ("text.mask_padding", "yes", "text.mask_padding: expected true or false"),
        ("image", {}, "image: 'file' is missing"),
    ],
)
def test_an_invalid_field_is_named(bundle, path, value, message):
    values = json.loads(json.dumps(MANIFEST))
    *parents, last = path.split(".")
    entry = values
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    assert message in with_manifest(bundle, values)


def test_a_bundle_without_towers(bundle):
    values = {**MANIFEST, "image": None, "text": None}
    assert "image and text are both null" in with_manifest(bundle, values)


def test_a_graph_that_does_not_match_the_manifest(bundle, make_bundle):
    write_text_graph(bundle / "image.onnx")
    message = refused(bundle)
    assert f"{bundle / 'image.onnx'}: the graph does not match manifest.json" in message

    image = {**MANIFEST["image"]}
    image["preprocessing"] = {**image["preprocessing"], "size": [6, 4]}
    assert "image.onnx: the graph does not match" in refused(make_bundle("turned", image=image))
    narrow = {part: {**MANIFEST[part], "width": 4} for part in ("image", "text")}
    assert "image.onnx: the graph does not match" in refused(make_bundle("narrow", **narrow))


def test_a_written_manifest_reads_back_the_same(bundle, tmp_path):
    manifest = read(bundle)
    write(tmp_path, manifest)
    assert read(tmp_path) == manifest
    assert json.loads((tmp_path / "manifest.json").read_text()) == MANIFEST
    assert manifest.files == ("manifest.json", "image.onnx", "text.onnx", "tokenizer.json")
