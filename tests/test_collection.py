"""Collecting the tests is quick: it loads none of the heavy libraries."""

import json
import os
import subprocess
import sys

from tests.house import ROOT

HEAVY = {
    "accelerate",
    "datasets",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "open_clip",
    "pandas",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}
COLLECT = """
import json, sys, pytest
status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-m", "slow or not slow"])
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_collection_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stdout[-2000:]
    assert HEAVY & set(loaded) == set(), (
        "a test module imports these when it is collected: import them, and modules of ours that "
        "load them, under lazy_imports() (tests/lazy.py)"
    )
