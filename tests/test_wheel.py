"""The wheel, as a device gets it: installed without extras, away from the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PACKAGES = ("students", "distill", "export")

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    own = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def succeed(*command: str | Path, folder: Path) -> str:
    done = run(*command, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: the checkout stays clean, and no old files get in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    succeed(*command, source, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty environment with the wheel and what it requires; yield its ``bin``."""
    folder = tmp_path_factory.mktemp("device")
    succeed(sys.executable, "-m", "venv", folder / "environment", folder=folder)
    scripts = folder / "environment" / "bin"
    pip = (scripts / "python", "-m", "pip", "--disable-pip-version-check")
    options = ("install", "--no-compile", "--quiet", "-c", ROOT / "constraints.txt")
    succeed(*pip, *options, wheel, folder=folder)
    yield scripts
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from export.bundle import export_student
    from students.build import build_towers

    folder = tmp_path_factory.mktemp("bundle")
    words = ["[PAD]", "[UNK]", "[CLS]", *["a", "photo", "of", "cat", "dog", "."]]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokens.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", words.index("[CLS]"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder / "tokenizer")
    student = build_towers(
        image={"backbone": "test_efficientnet", "pretrained": False, "image_size": 32},
        text={
            "tokenizer": str(folder / "tokenizer"),
            "pretrained": False,
            "config": {
                "vocab_size": len(words),
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            },
            "context_length": 16,
        },
        width=8,
        logit_scale=10.0,
    )
    student.save(folder / "student")
    export_student(folder / "student", folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name in ("first.png", "second.jpg", "third.png"):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    return folder


def test_wheel_carries_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert {path.relative_to(ROOT).as_posix() for path in ours} <= names
    assert {f"{name}/py.typed" for name in PACKAGES} <= names
    folders = {name.partition("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_carries_the_data_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.suffix not in {".py", ".tmp"} and "__pycache__" not in path.parts
        if path.is_file()
    }
    assert "distill/evaluate/report/report.html" in data
    assert {"distill/demo/teacher/config.json", "distill/demo/teacher/model.safetensors"} <= data
    assert data <= names


def test_device_has_no_torch(device: Path) -> None:
    listed = succeed(device / "python", "-m", "pip", "list", folder=device)
    installed = {line.split()[0].lower() for line in listed.splitlines()[2:]}
    assert {"clip-distill", "numpy", "onnxruntime", "pillow", "tokenizers"} <= installed
    assert installed & {"torch", "transformers", "timm", "onnx", "datasets"} == set()


def test_help_and_version(device: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in succeed(device / "clip-distill", "--version", folder=tmp_path)
    answer = succeed(device / "clip-distill", "--help", folder=tmp_path)
    for command in ("run", "cache", "train", "eval", "export", "classify", "embed", "demo"):
        assert command in answer


def test_import_of_the_runtime(device: Path, tmp_path: Path) -> None:
    command = "import export.runtime as runtime; print(runtime.__file__, runtime.EdgeModel.load)"
    answer = succeed(device / "python", "-c", command, folder=tmp_path)
    assert str(device.parent) in answer


def test_classify(device: Path, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    picture = pictures / "first.png"
    command = (device / "clip-distill", "classify", bundle, picture, "--labels", "cat,dog")
    answer = succeed(*command, folder=tmp_path)
    assert "cat" in answer
    assert "dog" in answer


def test_embed(device: Path, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    command = (device / "clip-distill", "embed", bundle, pictures, "--out", "features.npy")
    succeed(*command, folder=tmp_path)
    features = np.load(tmp_path / "features.npy")
    assert features.shape == (3, 8)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_classify_is_what_the_runtime_says_here(
    device: Path, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    from export.runtime import EdgeModel

    command = (device / "clip-distill", "embed", bundle, pictures, "--out", "features.npy")
    succeed(*command, folder=tmp_path)
    model = EdgeModel.load(bundle)
    here = model.embed_images(sorted(pictures.iterdir()))
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), here, atol=1e-5)


@pytest.mark.parametrize(
    "command",
    [
        ("train", "x.yaml"),
        ("cache", "x.yaml"),
        ("eval", "runs/x"),
        ("export", "runs/x", "--out", "bundle"),
        ("demo",),
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_needs_more_names_the_extra(
    device: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "x.yaml").write_text("seed: 0\n")
    done = run(device / "clip-distill", *command, folder=tmp_path)
    assert done.returncode == 2
    assert "clip-distill[train]" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == [tmp_path / "x.yaml"]
