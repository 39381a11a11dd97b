"""Training on shards: measured on CLIP-benchmark's layout, by processes that share no tar."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.distill.data.shards.tars import Members, write_files, write_tar
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.run.pipeline import run

Recipe = Callable[..., Path]
TARS, EACH = 8, 12

# The command line, each process of which notes the tars that it reads.
NOTING = """
import os, sys
from distill.cli import app as cli
from distill.data.shards._pictures import Tars

read = Tars.read

def noted(tars, number, offset, size):
    with open(f"{os.environ['NOTES']}/{os.environ['RANK']}", "a") as notes:
        notes.write(tars.names[number] + "\\n")
    return read(tars, number, offset, size)

Tars.read = noted
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def shards(pictures: Path, tmp_path: Path) -> Path:
    """Write the pictures as ``train`` tars and in CLIP-benchmark's layout as ``set/test``."""
    with pictures.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    for tar in range(TARS):
        pairs: Members = []
        labelled: Members = []
        for number in range(tar * EACH, (tar + 1) * EACH):
            row = rows[number]
            content = (pictures.parent / row["image"]).read_bytes()
            pairs = [*pairs, (f"{number}.png", content), (f"{number}.txt", row["caption"])]
            place = str(classes.index(row["label"]))
            labelled = [*labelled, (f"s{number}.png", content), (f"s{number}.cls", place)]
        write_tar(tmp_path / f"train/{tar:03d}.tar", pairs)
        write_tar(tmp_path / f"set/test/{tar}.tar", labelled)
    templates = "a photo of a {c}.\na drawing of a {c}.\n"
    names = "\n".join(classes)
    files = {"classnames.txt": names, "zeroshot_classification_templates.txt": templates}
    write_files(tmp_path / "set", files)
    return tmp_path


def read_tars(notes: Path) -> list[str]:
    """Return the tars of ``train`` that a process read."""
    names = notes.read_text().splitlines()
    return sorted({Path(name).name for name in names if Path(name).parent.name == "train"})


@pytest.mark.slow
def test_two_processes_read_other_tars_and_train_the_same_student(
    recipe: Recipe, shards: Path, weights: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    pattern = f"{shards}/train/{{000..{TARS - 1:03d}}}.tar"
    changes = {
        "data": {"train": {"kind": "shards", "path": pattern}},
        "cache": {"folder": str(shards / "cache"), "shard_rows": 2 * EACH},
        "train": {"steps": TARS * EACH // 16, "validate_every": 100},
        "evaluate": {
            "name": "wds",
            "task": "zero_shot",
            "data": {"kind": "shards", "path": str(shards / "set/test")},
        },
    }
    one = run(recipe("one", **changes), stages=("cache", "train", "evaluate")).path
    (result,) = json.loads((one / "report.json").read_text())["sets"]
    assert result["samples"] == TARS * EACH
    # The cache holds two tars in each of its shards.
    rows = [len(np.load(path)) for path in sorted(shards.glob("cache/**/images-*.keys.npy"))]
    assert rows == [2 * EACH] * (TARS // 2)
    (shards / "noting.py").write_text(NOTING)
    (shards / "notes").mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, shards / "noting.py", "train", recipe("two", **changes)],
        env={**os.environ, "NOTES": str(shards / "notes")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, second = (read_tars(shards / "notes" / str(rank)) for rank in range(2))
    # An epoch: every tar is read, and by one of them.
    assert len(first) == len(second) == TARS // 2
    assert sorted(first + second) == [f"{tar:03d}.tar" for tar in range(TARS)]
    ours, theirs = weights(one), weights(shards / "two")
    for name, values in ours.items():
        assert torch.allclose(values, theirs[name], rtol=1e-3, atol=1e-4), name
