"""The documentation: links lead somewhere, names exist, and lines of prose are short."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.house import ROOT, parsed

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
# The changelog tells what names used to be.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
WIDTH = 100
OURS = ("students", "distill", "export", "benchmarks", "tests", "configs", "docs")

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(OURS)})/[\w./-]*")
DOTTED = re.compile(
    r"(?<![\w./-])(?:students|distill|export|benchmarks)(?!\.(?:md|py|json|html)\b)(?:\.\w+)+"
)


def each_page(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "page", pages, ids=[page.relative_to(ROOT).as_posix() for page in pages]
    )


def lines_of(page: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield each line with its number, and whether it is in a block of code."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            yield number, line, True
        else:
            yield number, line, fenced or line.startswith("    ")


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    found: set[str] = set()
    for _, line, is_code in lines_of(page):
        if not is_code and (heading := re.match(r"#+\s+(.*)", line)):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")

            found.add(slug)
    return found


@each_page(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for number, line, is_code in lines_of(page):
        for match in () if is_code else LINK.finditer(line):
            link = match[1] or match[2]
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            file = (page.parent / target) if target else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(ROOT)}:{number}: {link}")
    assert broken == []


@each_page(PAGES)
def test_lines_of_prose_are_short(page: Path) -> None:
    assert [
        f"{page.relative_to(ROOT)}:{number}: {len(line)} columns"
        for number, line, is_code in lines_of(page)
        if len(line) > WIDTH and not (is_code or line.lstrip().startswith("|") or "://" in line)
    ] == []


@each_page(CURRENT)
def test_files_exist(page: Path) -> None:
    """A path of ours that a page names exists; a folder may be written with or without a slash."""
    missing = []
    for number, line, _ in lines_of(page):
        for match in PATH.finditer(line):
            path = match[0].rstrip(".")
            if not (ROOT / path).exists() and Path(path).stem != "mine":  # the reader's own
                missing.append(f"{page.relative_to(ROOT)}:{number}: {path}")
    assert missing == []


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(r"`([\w./-]+\.(?:py|toml|txt|ya?ml|md|json))`", text)
    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []


@each_page(CURRENT)
def test_modules_and_their_names_exist(page: Path) -> None:
    missing = []
    for number, line, _ in lines_of(page):
        for match in DOTTED.finditer(line):
            if match[0] not in recipe_fields() and not exists(match[0]):
                missing.append(f"{page.relative_to(ROOT)}:{number}: {match[0]}")
    assert missing == []


def test_the_changelog_names_new_places_that_exist() -> None:
    rows = re.findall(r"^ *\|[^|]*\|([^|]*)\|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in DOTTED.findall(row)]
    assert names
    assert [name for name in names if not exists(name)] == []


@each_page(CURRENT)
def test_imports_of_examples_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    imports = re.findall(r"^from ([\w.]+) import ([\w, ]+)$", text, flags=re.MULTILINE)
    names = [f"{module}.{name}" for module, line in imports for name in line.split(", ")]
    ours = [name for name in names if name.partition(".")[0] in OURS]
    assert [name for name in ours if not exists(name)] == []


@cache
def recipe_fields() -> set[str]:
    """Return the fields of the section of a recipe that is called as a package of ours is."""
    schema = json.loads((ROOT / "configs" / "schema.json").read_text(encoding="utf-8"))
    section = schema["properties"]["export"]
    if "$ref" in section:
        section = schema["$defs"][section["$ref"].rpartition("/")[2]]
    return {f"export.{name}" for name in section["properties"]}


def exists(dotted: str) -> bool:
    """Tell whether a dotted name is a module or package of ours, or something one of them has."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        rest = parts[length:]
        if place.is_dir():
            file = place / "__init__.py"
            return not rest or (file.exists() and rest[0] in names_of(file))
        if place.with_suffix(".py").exists():
            return not rest or rest[0] in names_of(place.with_suffix(".py"))
    return False


def names_of(file: Path) -> set[str]:
    """Return the names that a file defines or imports at its top level, under an `if` too."""
    found: set[str] = set()
    waiting = list(parsed(file).body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If():
                waiting += node.body
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign():
                found |= {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


def targets() -> set[str]:
    """Return the targets of the Makefile that are meant for people."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^\t@echo 'make (\w+)", makefile, flags=re.MULTILINE))


@each_page(CURRENT)
def test_make_targets_exist(page: Path) -> None:
    named = {
        name
        for _, line, is_code in lines_of(page)
        for name in re.findall(r"(?:^\s*|`)make (\w+)", line)
        if is_code or "`make" in line
    }
    assert named <= targets()


def test_the_site_has_every_page() -> None:
    """``make docs`` checks this too; here it needs no MkDocs."""
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = {Path(name) for name in re.findall(r"^ +- [^:]+: (\S+\.md)$", site, flags=re.MULTILINE)}
    docs = {page.relative_to(ROOT / "docs") for page in PAGES if page.parent != ROOT}
    assert named == docs | {Path("index.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md")}
