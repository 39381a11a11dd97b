"""Texts: millions of strings in one buffer, not in millions of objects."""

from array import array


class Texts:
    """A list of strings in one UTF-8 buffer: small, and shared with forked workers."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add a string; file names that are not Unicode (surrogate escapes) are kept exactly."""
        self._buffer += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._buffer))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        begin, end = self._ends[index], self._ends[index + 1]
        return self._buffer[begin:end].decode("utf-8", "surrogateescape")
