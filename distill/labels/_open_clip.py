"""The names of classes and the templates that open_clip ships, read without importing torch."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

_PACKAGE = "open_clip"
_FILE = "zero_shot_metadata.py"


@cache
def zero_shot_metadata() -> ModuleType:
    """Return open_clip's module of names and templates.

    The file is loaded by its path, because importing the package imports torch.

    Raises:
        ModuleNotFoundError: open_clip is not installed.
    """
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    place = Path(package.origin).with_name(_FILE)
    spec = importlib.util.spec_from_file_location(f"_{_PACKAGE}_{place.stem}", place)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No file {place}", name=_PACKAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
