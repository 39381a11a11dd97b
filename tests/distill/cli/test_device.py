"""`classify` and `embed` on a stand-in for the bundle."""

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.runtime.errors import DataError
from tests.distill.cli.pieces import answer
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.cli._embed import find_pictures


class FakeModel:
    """A stand-in for a bundle: the embedding of a picture is its mean colour."""

    manifest = SimpleNamespace(image=object())

    def embed_texts(self, texts: Any) -> np.ndarray:
        return np.array([[len(text), 1] for text in texts], np.float32)

    @classmethod
    def load(cls, _folder: Path) -> "FakeModel":
        return cls()

    def classify(self, image: Any, labels: list[str]) -> list[tuple[str, float]]:
        assert Path(image).name == "photo.png"
        return [(label, 1 / (number + 2)) for number, label in enumerate(labels)]

    def embed_images(self, images: list[Any], *, batch_size: int) -> np.ndarray:
        assert len(images) <= batch_size
        return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in images])


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Path:
    import export.runtime

    monkeypatch.setattr(export.runtime, "EdgeModel", FakeModel, raising=False)
    monkeypatch.setattr("distill.cli._embed.EdgeModel", FakeModel)
    return Path("bundle")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for number, name in enumerate(["c.png", "a.JPG", "b/d.png"]):
        Image.new("RGB", (4, 3), (10 * number, 0, 0)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_classify_with_a_list_or_a_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = answer(capsys, "classify", bundle, "photo.png", "--labels", "cat, a [dog]")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["label", "probability"],
        ["cat", "50.0%"],
        ["a", "[dog]", "33.3%"],
    ]
    file = tmp_path / "labels.txt"
    file.write_text("red, with comma\n\nblue\ngreen\n")
    out = answer(capsys, "classify", bundle, "photo.png", "--labels", file, "--top", 2)[1]
    assert "red, with comma" in out
    assert "green" not in out


def test_embed_writes_rows_and_their_files(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "features.npy"
    status, out, _ = answer(capsys, "embed", bundle, photos, photos / "c.png", "--out", target)
    assert status == 0
    names = (tmp_path / "features.files.txt").read_text().splitlines()
    assert names == [str(photos / name) for name in ("a.JPG", "b/d.png", "c.png", "c.png")]
    features = np.load(target)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, 0], [10, 20, 0, 0], atol=1)
    assert out.splitlines() == [
        f"{target}: 4 embeddings of width 3, their files in {tmp_path / 'features.files.txt'}"
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_embed_skips_counts_and_lists_what_is_unreadable(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    target = tmp_path / "features.npy"
    status, out, err = answer(capsys, "embed", bundle, photos, "--out", target)
    assert status == 0
    assert out.endswith("; 1 skipped\n")
    (line,) = [line for line in err.splitlines() if line.startswith("skipped")]
    assert str(photos / "bad.jpg") in line
    assert len(np.load(target)) == 3
    assert "bad.jpg" not in (tmp_path / "features.files.txt").read_text()


def test_embed_writes_nothing_if_nothing_can_be_read(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    arguments = ("embed", bundle, tmp_path / "bad.png", "--out", tmp_path / "features.npy")
    status, _, err = answer(capsys, *arguments)
    assert status == 2
    assert "none of the 1 pictures can be read" in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="no picture in it"):
        find_pictures([tmp_path])


def lines_of(photos: Path) -> list[bytes]:
    encoded = [base64.b64encode((photos / name).read_bytes()) for name in ("c.png", "a.JPG")]
    return [encoded[1], encoded[0], b"", encoded[1].rstrip(b"="), b"no picture", b"a\tb"]


def test_embed_lines_of_base64_in_their_order(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = tmp_path / "pictures.tsv", tmp_path / "features.npy"
    file.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines_of(photos)))
    status, out, err = answer(capsys, "embed", bundle, file, "--out", target)
    assert status == 0
    assert out.endswith("; 2 skipped\n")
    skipped = [line for line in err.splitlines() if line.startswith("skipped")]
    assert skipped[1].startswith(f"skipped {file}:6: it has 2 fields, and the schema has 1")
    assert f"{file}:5: " in skipped[0]
    names = (tmp_path / "features.files.txt").read_text().splitlines()
    assert names == [f"{file}:{number}" for number in (1, 2, 4)]
    np.testing.assert_allclose(np.load(target)[:, 0], [10, 0, 10], atol=1)


def test_embed_one_column_of_several(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = tmp_path / "lines.txt", tmp_path / "features.npy"
    picture = base64.urlsafe_b64encode((photos / "a.JPG").read_bytes())
    file.write_bytes(b"7\tx\t" + picture + b"\n")
    schema = "id:str:1,text:str:1,image:str:1"
    assert answer(capsys, "embed", bundle, file, "--out", target, "--schema", schema)[0] == 0
    np.testing.assert_allclose(np.load(target)[:, 0], [10], atol=1)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", (), "none of its 0 lines can be read"),
        (b"%%%\n", (), "none of its 1 lines can be read; the first: "),
        (b"a\n", ("--schema", "text"), "--schema: found 'text', must be name:type:length"),
        (b"a\n", ("--schema", "text:str:1"), "a column must be image, such as image:str:1"),
    ],
)
def test_lines_that_cannot_be_embedded(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    file = tmp_path / "lines.tsv"
    file.write_bytes(content)
    status, _, err = answer(capsys, "embed", bundle, file, "--out", tmp_path / "f.npy", *arguments)
    assert status == 2
    assert message in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["lines.tsv"]


def test_a_schema_or_a_file_of_lines_together_with_pictures(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = ("--out", tmp_path / "f.npy")
    assert (
        "leave --schema out"
        in answer(capsys, "embed", bundle, photos, "--schema", "x:str:1", *end)[2]
    )
    (tmp_path / "a.tsv").write_text("x")
    assert "give it alone" in answer(capsys, "embed", bundle, photos, tmp_path / "a.tsv", *end)[2]


def test_embed_writes_texts_and_their_rows(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries, target = tmp_path / "queries.txt", tmp_path / "queries.npy"
    queries.write_bytes(b"\xef\xbb\xbfa cat\n\n\xff\nzwei Hunde\nNone\n")
    status, out, err = answer(capsys, "embed", bundle, "--texts", queries, "--out", target)
    names = tmp_path / "queries.texts.txt"
    assert status == 0
    assert np.array_equal(np.load(target), [[5, 1], [10, 1], [4, 1]])
    assert names.read_text() == "a cat\nzwei Hunde\nNone\n"
    assert f"skipped {queries}:3: it is not UTF-8" in err
    assert out.strip() == f"{target}: 3 embeddings of width 2, their texts in {names}; 1 skipped"


@pytest.mark.parametrize("given", [(), ("p.png", "--texts", "q.txt")])
def test_embed_takes_pictures_or_texts(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...]
) -> None:
    status, _, err = answer(capsys, "embed", bundle, *given, "--out", tmp_path / "x.npy")
    assert (status, err) == (
        2,
        "embed: give pictures, or --texts with a file of texts, and not both\n",
    )


def test_a_missing_file_of_texts(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "q.txt"
    status, _, err = answer(
        capsys, "embed", bundle, "--texts", missing, "--out", tmp_path / "x.npy"
    )
    assert (status, err) == (
        2,
        f"{missing}: the file cannot be read: No such file or directory\n",
    )
