"""Errors of worker processes arrive as the worker raised them."""

from collections.abc import Iterator

import pytest

from export.runtime.errors import DataError


def test_an_error_of_a_worker_is_its_one_line() -> None:
    from distill.data.workers import from_workers

    def failing(message: str) -> Iterator[int]:
        yield 1
        raise DataError(message)

    # torch adds the traceback of the worker, and the name of the error.
    torn = "Caught DataError in worker 0.\nTraceback …\ndistill.DataError: a.jpg: it is damaged"
    for message in ("a.jpg: it is damaged", torn):
        batches = from_workers(failing(message))
        assert next(batches) == 1
        with pytest.raises(DataError, match=r"^a\.jpg: it is damaged$"):
            next(batches)
