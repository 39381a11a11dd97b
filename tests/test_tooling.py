"""The files that tools read: they parse, and what they name exists."""

import importlib.metadata
import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.house import ROOT


def read_yaml(name: str) -> dict[str, Any]:
    values = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):(?!=)", makefile, flags=re.MULTILINE))


def hooks() -> list[dict[str, Any]]:
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"  # nothing is fetched
    return list(local["hooks"])


def test_hooks_for_commits_cover_lint_format_and_whole_files() -> None:
    assert {hook["id"] for hook in hooks()} == {
        "ruff-check",
        "ruff-format",
        "check-added-large-files",
        "check-merge-conflict",
        "end-of-file-fixer",
        "trailing-whitespace",
        "check-yaml",
        "check-toml",
    }


def test_hooks_run_tools_of_the_environment() -> None:
    pytest.importorskip("pre_commit_hooks")
    scripts = importlib.metadata.distribution("pre-commit-hooks").entry_points.names
    for hook in hooks():
        program, *arguments = hook["entry"].split()
        folder, name = program.rsplit("/", 1)
        assert folder == ".venv/bin"
        assert name in scripts or (name == "python" and arguments[:2] == ["-m", "ruff"])
        assert hook["language"] == "system"


def test_the_workflow_calls_targets_of_the_makefile() -> None:
    jobs = read_yaml(".github/workflows/check.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make check", "make test", "make docs"} <= set(commands)
    assert {command.removeprefix("make ") for command in commands} <= targets()
    versions = jobs["check"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = {line.rpartition(" ")[2] for line in project["classifiers"] if ":: 3." in line}
    assert set(versions) == promised


def test_continuous_integration_calls_targets_of_the_makefile() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)$", script, flags=re.MULTILINE)
    assert commands == ["test", "docs"]
    assert set(commands) <= targets()


def test_help_names_every_target_for_people() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    helped = set(re.findall(r"@echo 'make (\w+)", makefile))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert helped == set(phony.split()) - {"help", "static", "FORCE"}


def test_editors_use_the_line_length_of_ruff() -> None:
    editor = (ROOT / ".editorconfig").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (length,) = re.findall(r"^\[\*\.py\]\nmax_line_length = (\d+)$", editor, flags=re.MULTILINE)
    assert int(length) == project["tool"]["ruff"]["line-length"]


def test_pins_cover_every_requirement() -> None:
    """A fresh machine installs the same versions, those of the documentation's tools too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.split(r"[\[>=<]", line)[0].lower().replace("_", "-") for line in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert names - {"clip-distill"} <= pinned
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
