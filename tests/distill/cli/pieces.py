"""A stand-in for the pipeline, and a way to ask the command line."""

from types import ModuleType
from typing import Any

import pytest

from distill.cli.app import main


class Pipeline(ModuleType):
    """A stand-in for distill.run.pipeline that remembers its calls, or fails."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__("distill.run.pipeline")
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        for name in ("run", "build_cache", "train", "evaluate", "export"):
            setattr(self, name, self._function(name, error))

    def _function(self, name: str, error: BaseException | None) -> Any:
        def function(*arguments: Any, **options: Any) -> None:
            self.asked.append((name, arguments, options))
            if error is not None:
                raise error

        return function


def answer(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Run a command and return its exit status, its output and what it says on standard error."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err
