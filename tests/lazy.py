"""Imports that wait until a test runs, so that collecting tests loads no torch.

    with lazy_imports():
        import torch
        from distill.losses.contrastive import contrastive

While pytest collects tests, the block binds placeholders. Before a test or a fixture of the module
runs, ``LazyImports`` replaces them with the real things, there and in the modules of ``tests`` that
it imports. Annotations may use placeholders. Any other use at module level raises an error. From
Python 3.15 on, ``lazy import`` does this.
"""

import builtins
import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from tests.house import ROOT, imports_of, within


class _Placeholder:
    """A module, or something in it, that is not loaded yet."""

    def __init__(self, modules: Sequence[str], path: Sequence[str] = ()) -> None:
        self._modules = modules
        self._path = path

    def __getattr__(self, name: str) -> "_Placeholder":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(self._modules, (*self._path, name))

    def __getitem__(self, _: object) -> "_Placeholder":
        return self

    def __or__(self, _: object) -> "_Placeholder":
        return self

    __ror__ = __or__

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        name = ".".join((self._modules[0], *self._path))
        raise ImportError(
            f"{name} is used while tests are collected, but lazy_imports loads it when they run: "
            "move this into a function, a fixture, or a module that is imported lazily"
        )

    __call__ = __iter__ = __len__ = __mro_entries__ = __enter__ = _refuse


def _load(placeholder: _Placeholder) -> Any:
    """Import and return the real thing."""
    state = vars(placeholder)
    found: Any
    found, *_ = [importlib.import_module(name) for name in state["_modules"]]
    for name in state["_path"]:
        if not hasattr(found, name):
            importlib.import_module(f"{found.__name__}.{name}")
        found = getattr(found, name)
    return found


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Bind placeholders instead of importing, if tests are being collected."""
    if not LazyImports.collecting:
        yield
        return

    def find(name: str, *arguments: Any) -> _Placeholder:
        _, _, from_list, _ = arguments
        return _Placeholder([name] if from_list else [name.partition(".")[0], name])

    original = builtins.__import__
    builtins.__import__ = find
    try:
        yield
    finally:
        builtins.__import__ = original


_loaded: set[ModuleType] = set()


class LazyImports:
    """The plugin of pytest that loads what a test or fixture needs before it runs."""

    collecting = False  # until tests/conftest.py is loaded

    def pytest_collection_finish(self) -> None:
        """Import at once from now on."""
        LazyImports.collecting = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> None:
        """Load what the module of a fixture imports lazily."""
        if module := inspect.getmodule(inspect.unwrap(fixturedef.func)):
            _load_all(module)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> None:
        """Load what the module of a test imports lazily."""
        _load_all(pyfuncitem.module)


def _load_all(module: ModuleType) -> None:
    """Replace the placeholders in a module, and in the modules of the tests that it imports."""
    file = Path(getattr(module, "__file__", None) or "")
    if module in _loaded or not file.is_relative_to(ROOT / "tests"):
        return
    _loaded.add(module)
    namespace = vars(module)
    for name, value in list(namespace.items()):
        if type(value) is _Placeholder:
            namespace[name] = _load(value)
    for found in imports_of(file):
        for name in (found.imported, found.imported.rpartition(".")[0]):
            if within(name, "tests") and name in sys.modules:
                _load_all(sys.modules[name])
