"""Setup for every test: the same seeds, few threads, no hub, and imports when they are needed."""

import os
import random
import signal
import sys
from collections import Counter

import pytest

from tests.lazy import LazyImports

# Set before anything imports numpy or torch. Processes that a test starts inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# A process in the background ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
LazyImports.collecting = True


def pytest_configure(config: pytest.Config) -> None:
    """Let test modules import lazily while tests are collected."""
    config.pluginmanager.register(LazyImports())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so no process is left alone with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Start every test from the same random state, whichever tests ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
