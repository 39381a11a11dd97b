"""Examples in docstrings are run, and a page that loses one is noticed."""

import doctest
import importlib
from collections.abc import Sequence


def check_examples(module: str, *, documented: Sequence[str]) -> None:
    """Run the examples of a module; those of the ``documented`` names and no others exist."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(verbose=False)
    found = [
        test for test in finder.find(importlib.import_module(module), globs={}) if test.examples
    ]
    assert sorted(test.name.removeprefix(f"{module}.") for test in found) == documented
    for test in found:
        assert runner.run(test).failed == 0, test.name
