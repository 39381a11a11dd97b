"""The house as its source shows it: modules, their imports, and the names that they define."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("students", "distill", "export")
RUNTIME = "export.runtime"


def within(module: str, package: str) -> bool:
    """Tell whether a module is a package or lies inside it."""
    return module == package or module.startswith(f"{package}.")


def room_of(module: str) -> str:
    """Return the room of a module: students, export, export.runtime or a folder of distill."""
    if within(module, RUNTIME):
        return RUNTIME
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "distill" and len(parts) > 1 else parts[0]


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the checkout."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def source_files() -> dict[str, Path]:
    """Return the files of our packages by the names of their modules."""
    paths = (path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    return {module_name(path): path for path in sorted(paths)}


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Import:
    """An imported name; ``imported`` is ``package.module.name`` for ``from … import name``.

    ``alias`` is the local name, and ``target`` what it refers to. Both are empty for
    ``import_module``.
    """

    importer: str
    imported: str
    alias: str
    target: str
    relative: bool
    in_function: bool
    where: str

    @property
    def library(self) -> str:
        """The top-level package."""
        return self.imported.partition(".")[0]

    @property
    def module(self) -> str:
        """The module that is imported, or that the name is imported from."""
        if self.imported in source_files():
            return self.imported
        return self.imported.rpartition(".")[0]


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Return all imports of a file, also in functions, for type checkers and by import_module."""
    importer = module_name(path)
    parents = importer.split(".") if path.name == "__init__.py" else importer.split(".")[:-1]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for name, alias, target in _imported(node, parents):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} imports {name}"
            yield Import(importer, name, alias, target, relative, in_function, where)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function)

    return tuple(visit(parsed(path), in_function=False))


def _imported(node: ast.AST, parents: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield what a node imports, the local name, and what that name refers to."""
    match node:
        case ast.Import():
            for alias in node.names:
                top = alias.name.partition(".")[0]
                target = alias.name if alias.asname else top
                yield alias.name, alias.asname or top, target
        case ast.ImportFrom():
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield name, alias.asname or alias.name, name
        case ast.Call(
            func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield name, "", ""


@cache
def our_imports() -> tuple[Import, ...]:
    """Return all imports of our packages, from every library."""
    return tuple(found for path in source_files().values() for found in imports_of(path))


def internal_imports() -> Iterator[Import]:
    """Yield the imports of our own modules."""
    return (found for found in our_imports() if found.library in PACKAGES)


def circles(arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan's strongly connected components)."""
    targets: dict[str, set[str]] = {}
    for source, target in arrows:
        targets.setdefault(source, set()).add(target)
        targets.setdefault(target, set())
    reach = {node: _reachable(node, targets) for node in targets}
    groups = {
        frozenset(other for other in reach[node] if node in reach[other])
        for node in targets
        if node in reach[node]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(start: str, targets: Mapping[str, set[str]]) -> set[str]:
    """Return what can be reached from a node by one arrow or more."""
    seen: set[str] = set()
    waiting = list(targets[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += targets[node]
    return seen


def public_names(path: Path) -> set[str]:
    """Return the names without an underscore that a file defines at its top level."""
    return {name for name in _defined(parsed(path)) if not name.startswith("_")}


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign():
                for target in node.targets:
                    yield from (leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def exported_names(path: Path) -> set[str]:
    """Return the names in the ``__all__`` of a file."""
    for node in parsed(path).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return set(ast.literal_eval(value))
    return set()


@cache
def used_names(path: Path) -> frozenset[str]:
    """Return what a file takes from elsewhere, as ``package.module.name``.

    This is what it imports, attributes of what it imports, and functions that a row names as
    ``module:function``.
    """
    found = {name.imported for name in imports_of(path)} | {name for name, _ in attributes(path)}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant):
            named = re.fullmatch(r"([a-z_.]+):([a-z_]+)", str(node.value))
            found |= {f"{named[1]}.{named[2]}"} if named else set()
    return frozenset(found)


@cache
def attributes(path: Path) -> tuple[tuple[str, int], ...]:
    """Return the attributes of imported things as ``package.module.name``, and their lines."""
    targets: dict[str, set[str]] = {}
    for found in imports_of(path):
        if found.alias:
            targets.setdefault(found.alias, set()).add(found.target)
    return tuple(
        (".".join([target, *rest]), node.lineno)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        for first, *rest in [_chain(node)]
        for target in sorted(targets.get(first, ()))
    )


def _chain(node: ast.expr) -> list[str]:
    """Return the names in ``a.b.c``; the first is empty if it is not a plain name."""
    match node:
        case ast.Attribute(value=value, attr=name):
            return [*_chain(value), name]
        case ast.Name(id=name):
            return [name]
    return [""]
