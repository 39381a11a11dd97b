"""Reading weights from untrusted files without running any code in them.

Pickles are read with ``torch.load(weights_only=True)``, which refuses TorchScript archives.
``torch.jit.load`` would run the ``__setstate__`` of their classes, and TorchScript's operators can
read and write files. So this module reads the tensors from the archive's pickle with an unpickler
that knows only tensors, and never looks at the archive's code.
"""

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from open_clip.factory import load_state_dict
from torch import Tensor

from export.runtime.errors import TeacherError
from students.messages import ERRORS, refusal, shorten

_STORED = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# The functions by which TorchScript writes lists.
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn errors from reading a weights file into one line.

    Raises:
        TeacherError: The file is damaged, holds something else, or asks to run code.
    """
    try:
        with warnings.catch_warnings():
            # torch warns before it refuses a pickle that it did not write.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            yield
    except pickle.UnpicklingError as error:
        raise TeacherError(_unreadable(file, refusal(error))) from error
    except (EOFError, LookupError, StopIteration) as error:
        # The text of these errors is a number or a key, or is empty.
        found = "it is damaged, or holds something other than weights"
        raise TeacherError(_unreadable(file, found)) from error
    except (*ERRORS, zipfile.BadZipFile) as error:
        raise TeacherError(_unreadable(file, shorten(error))) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive, a plain state dict or a safetensors file.

    A state dict may be inside a checkpoint, and its names may begin with ``module.``.

    Raises:
        TeacherError: The file is damaged, is not a map from names to tensors, or asks to run
            code; one line.
    """
    with reading(file):
        state = _read_torchscript(file) if is_torchscript(file) else load_state_dict(str(file))
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it holds something other than tensors by name")
        return dict(state)


def is_torchscript(file: Path) -> bool:
    """Tell whether a file is an archive that ``torch.jit.save`` wrote."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    return "constants.pkl" in names and "data.pkl" in names


def _read_torchscript(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by their dotted names.

    Raises:
        pickle.UnpicklingError: It refers to something other than tensors, lists and modules.
    """
    with zipfile.ZipFile(file) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(root) as stream:
            module = _Unpickler(stream, archive, root.removesuffix("data.pkl")).load()
    return dict(_tensors(module, ""))


class _Module:
    """An object of a class that the archive defines: its attributes without its code."""

    attributes: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        # A class with its own __getstate__ may have any state; a module's is a map.
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    """Builds tensors, lists and inert modules, and refuses all other names."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the object for a name in the pickle."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORED:
            return _STORED[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        # In torch's words, which `refusal` reads.
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not part of a module of tensors")

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage of the archive as a flat tensor."""
        _, dtype, key, *_ = pid
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else empty
        return self._storages[key]


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, inner in value.attributes.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))


def _unreadable(file: Path, reason: str) -> str:
    return f"teacher.model: {file} cannot be read as weights: {reason}"
