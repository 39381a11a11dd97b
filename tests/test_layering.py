"""Which libraries the parts of the house need: read from the source, and in fresh interpreters."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass

import pytest

from tests.house import PACKAGES, ROOT, RUNTIME, our_imports, source_files, within

RUNTIME_LIBRARIES = {"numpy", "PIL", "tokenizers", "onnxruntime"}
TRAIN_LIBRARIES = {
    "accelerate",
    "datasets",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnxscript",
    "open_clip",
    "pydantic",
    "safetensors",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
    "transformers",
    "yaml",
}
NOT_FOR_TRAINING = {"pydantic", "typer", "datasets", "onnxruntime"}


def modules(*packages: str) -> list[str]:
    return sorted(
        name
        for name in source_files()
        if any(within(name, package) for package in packages) and not name.endswith("__main__")
    )


# --- read from the source


@pytest.mark.parametrize(
    ("package", "libraries"),
    [
        (RUNTIME, RUNTIME_LIBRARIES),
        ("distill.losses", {"torch"}),
        ("distill.evaluate.metrics", {"numpy"}),
    ],
)
def test_libraries_of_the_narrow_modules(package: str, libraries: set[str]) -> None:
    allowed = libraries | set(sys.stdlib_module_names) | {package.partition(".")[0]}
    used = [found for found in our_imports() if within(found.importer, package)]
    assert used
    assert [found.where for found in used if found.library not in allowed] == []


def distribution_names(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", name.group()).lower() for name in names if name}


# What `clip-distill --help` loads.
COMMAND_LINE = {
    "distill.__main__",
    *(f"distill.cli.{name}" for name in ("app", "run", "device", "demo", "_errors", "_options")),
}


def test_every_library_is_declared_where_it_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = distribution_names(project["dependencies"])
    train = base | distribution_names(project["optional-dependencies"]["train"])
    providers = importlib.metadata.packages_distributions()
    missing = []
    # Pinned by pydantic to the version that belongs to it.
    train.add("pydantic-core")
    for found in our_imports():
        if found.library in {*sys.stdlib_module_names, *PACKAGES}:
            continue
        on_a_device = within(found.importer, RUNTIME) or (
            found.importer in COMMAND_LINE and not found.in_function
        )
        names = distribution_names(providers.get(found.library, [found.library]))
        if not names & (base if on_a_device else train):
            missing.append(found.where)
    assert missing == []


# --- seen in fresh interpreters

LOADER = """
import importlib, json, sys
from importlib.machinery import PathFinder

names, absent = json.loads(sys.argv[1])

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            return None
        return super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
for name in names:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def loaded_by(names: list[str], *, absent: set[str]) -> set[str]:
    assert names
    done = python("-c", LOADER, json.dumps([names, sorted(absent)]))
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class Rule:
    packages: tuple[str, ...]
    forbidden: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    ours: tuple[str, ...] = PACKAGES


# The losses, and how the embeddings of several teachers become one.
LOSSES = ("distill.losses", "distill.teacher.shares")


RULES = {
    "what everybody imports of the runtime is light": Rule(
        ("export.runtime.errors",),
        forbidden=frozenset(RUNTIME_LIBRARIES | TRAIN_LIBRARIES),
        ours=("export",),
    ),
    "the runtime stands alone": Rule(
        (RUNTIME,),
        forbidden=frozenset({"typer", "rich", "distill", "students"}),
        absent=frozenset(TRAIN_LIBRARIES),
        ours=("export",),
    ),
    "the command line needs no extra": Rule(
        ("distill.cli.app",),
        forbidden=frozenset({"onnxruntime"}),
        absent=frozenset(TRAIN_LIBRARIES),
    ),
    "metrics are numpy alone": Rule(
        ("distill.evaluate.metrics",),
        absent=frozenset(TRAIN_LIBRARIES | NOT_FOR_TRAINING),
        ours=("distill.evaluate.metrics",),
    ),
    "losses are torch alone": Rule(
        ("distill.losses",),
        forbidden=frozenset({"accelerate", "transformers", "timm"}),
        absent=frozenset(NOT_FOR_TRAINING),
        ours=LOSSES,
    ),
    "students know nothing of ours": Rule(
        ("students",),
        absent=frozenset({*NOT_FOR_TRAINING, "distill", "export"}),
        ours=("students",),
    ),
    "the training step is the losses and the student": Rule(
        ("distill.train.step",),
        absent=frozenset(NOT_FOR_TRAINING),
        ours=(
            "distill.train.step",
            "distill.train.piece",
            "distill.train._gradient_cache",
            *LOSSES,
            "students",
        ),
    ),
    "export does not know distill": Rule(("export",), ours=("export", "students")),
    "distill loads of export only the runtime": Rule(
        ("distill",), ours=("distill", "students", RUNTIME)
    ),
}


SLOW = {name for name, rule in RULES.items() if "torch" not in rule.forbidden | rule.absent}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RULES]
)
def test_a_fresh_interpreter_loads_only_what_the_rule_allows(name: str) -> None:
    rule = RULES[name]
    loaded = loaded_by(modules(*rule.packages), absent=set(rule.absent))
    libraries = {module.partition(".")[0] for module in loaded}
    assert libraries & (rule.forbidden | rule.absent | {"tests", "benchmarks"}) == set()
    ours = {module for module in loaded if module.partition(".")[0] in PACKAGES}
    parents = {name for allowed in rule.ours for name in ancestors(allowed)}
    strangers = {
        module for module in ours - parents if not any(within(module, name) for name in rule.ours)
    }
    assert strangers == set()


def ancestors(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def test_help_loads_no_torch() -> None:
    done = python(
        "-c",
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded:', *sys.modules, file=sys.stderr))\n"
        "from distill.cli.app import main\n"
        "sys.argv = ['clip-distill', '--help']\n"
        "main()\n",
    )
    assert done.returncode == 0
    assert "clip-distill" in done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.rpartition("loaded:")[2].split()}
    assert "typer" in loaded
    assert loaded & (TRAIN_LIBRARIES | {"onnxruntime"}) == set()


def processor_seconds() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


def test_help_answers_within_half_a_second() -> None:
    # Processor time does not depend on what else the machine is doing.
    seconds = []
    for _ in range(3):
        start = processor_seconds()
        assert python("-m", "distill", "--help").returncode == 0
        seconds.append(processor_seconds() - start)
    assert min(seconds) < 0.5, seconds
