"""The rules of the house: which way arrows go, which doors are private, and that names are used."""

import ast
from pathlib import Path

import pytest

from distill.losses.catalogue import TERMS
from tests.house import (
    PACKAGES,
    ROOT,
    RUNTIME,
    attributes,
    circles,
    exported_names,
    internal_imports,
    parsed,
    public_names,
    room_of,
    source_files,
    used_names,
    within,
)

# What each room may import of ours; every one of them may raise the runtime's errors but basis.
MAY_IMPORT: dict[str, set[str]] = {
    "students": set(),
    "export.runtime": set(),
    "export": {"students", RUNTIME},
    "distill.basis": set(),
    "distill.labels": {"distill.basis", RUNTIME},
    "distill.data": {"distill.basis", "distill.labels", RUNTIME},
    "distill.teacher": {"distill.basis", "distill.data", "students", RUNTIME},
    "distill.losses": {"distill.teacher", RUNTIME},
    "distill.train": {
        "distill.basis",
        "distill.data",
        "distill.teacher",
        "distill.losses",
        "students",
        RUNTIME,
    },
    "distill.evaluate": {
        "distill.basis",
        "distill.data",
        "distill.labels",
        "distill.teacher",
        "students",
        RUNTIME,
    },
    "distill.recipe": {
        "distill.basis",
        "distill.labels",
        "distill.data",
        "distill.losses",
        "distill.teacher",
        RUNTIME,
    },
}
_BELOW = {*MAY_IMPORT}
MAY_IMPORT |= {
    "distill.run": _BELOW,
    "distill.doctor": {*_BELOW, "distill.run"},
    "distill.demo": {*_BELOW, "distill.run"},
    "distill.cli": {*_BELOW, "distill.run", "distill.doctor", "distill.demo", "distill"},
    "distill": {"distill.cli"},
}
# What a recipe may load of the rooms whose other modules are heavy.
LIGHT = {
    "distill.teacher": {"distill.teacher.openai_names"},
    "distill.losses": {"distill.losses.catalogue", "distill.losses.presets"},
    "distill.data": {"distill.data.guess", "distill.data.tables.schema"},
}


def test_every_folder_is_a_room() -> None:
    folders = {f"distill.{path.name}" for path in (ROOT / "distill").iterdir() if path.is_dir()}
    assert {name for name in folders if "__" not in name} == {
        room for room in MAY_IMPORT if room.startswith("distill.")
    }


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_go_one_way(room: str) -> None:
    assert [
        found.where
        for found in internal_imports()
        if room_of(found.importer) == room
        and room_of(found.module) not in {room, *MAY_IMPORT[room]}
    ] == []


def test_the_rest_of_export_is_imported_where_it_is_used() -> None:
    """Training must work without onnx."""
    assert [
        found.where
        for found in internal_imports()
        if room_of(found.module) == "export"
        and room_of(found.importer) not in {"export", RUNTIME}
        and not found.in_function
    ] == []


def test_a_recipe_takes_only_what_is_light() -> None:
    assert [
        found.where
        for found in internal_imports()
        if room_of(found.importer) == "distill.recipe"
        and (light := LIGHT.get(room_of(found.module))) is not None
        and found.module not in light
    ] == []


def test_the_runtime_imports_itself_alone_and_relatively() -> None:
    assert [
        found.where
        for found in internal_imports()
        if within(found.importer, RUNTIME)
        and not (found.relative and within(found.module, RUNTIME))
    ] == []


def test_rooms_have_no_circle() -> None:
    pairs = {(room_of(found.importer), room_of(found.module)) for found in internal_imports()}
    assert circles(pair for pair in pairs if pair[0] != pair[1]) == []


def test_modules_have_no_circle() -> None:
    arrows = {(found.importer, found.module) for found in internal_imports()}
    # A package and what is inside it are one thing here: `__init__` files re-export names.
    assert circles(arrow for arrow in arrows if arrow[0] != arrow[1]) == []


def private_folder(imported: str) -> str | None:
    """Return the folder that something is private to, None for what is public."""
    parts = imported.split(".")
    private = next((n for n, part in enumerate(parts) if part.startswith("_")), None)
    return None if private is None else ".".join(parts[:private])


def is_open(importer: str, imported: str) -> bool:
    """Tell whether a module may import a name, or use it as an attribute of a module."""
    folder = private_folder(imported)
    if folder is None:
        return True
    if folder in source_files() and source_files()[folder].name != "__init__.py":
        folder = folder.rpartition(".")[0]
    return within(importer, folder)


def test_nobody_comes_through_a_private_door() -> None:
    broken = [
        found.where for found in internal_imports() if not is_open(found.importer, found.imported)
    ]
    broken += [
        f"{path.relative_to(ROOT)}:{line} uses {name}"
        for module, path in source_files().items()
        for name, line in attributes(path)
        if name.rpartition(".")[0] in source_files() and not is_open(module, name)
    ]
    assert broken == []


def readers() -> list[Path]:
    """Return every file that may use a name: our packages, tests and benchmarks."""
    folders = (*PACKAGES, "tests", "benchmarks")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def sections(path: Path) -> set[str]:
    """Return the sections of a recipe that a file defines: rows, which the schema names."""
    return {
        node.name
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and within(module_of(path), "distill.recipe")
    }


def terms(path: Path) -> set[str]:
    """Return the functions of loss terms in a file, which rows of the catalogue name."""
    return {row.name for row in TERMS.values() if module_of(path) == f"distill.losses.{row.family}"}


def module_of(path: Path) -> str:
    return next(name for name, file in source_files().items() if file == path)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_public_names_are_used_by_another_file(room: str) -> None:
    unused = []
    for module, path in source_files().items():
        if room_of(module) != room:
            continue
        elsewhere = [used_names(reader) for reader in readers() if reader != path]
        named = sections(path) | terms(path) | exported_names(path)
        for name in sorted(public_names(path) - named):
            if not any(f"{module}.{name}" in names for names in elsewhere):
                unused.append(f"{path.relative_to(ROOT)}: {name}")
    assert unused == []
