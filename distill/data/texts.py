"""Texts: millions of strings in one buffer instead of as many objects."""

from array import array


class Texts:
    """A list of strings in one buffer of UTF-8: small, and shared with forked workers as it is."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add a string; names of files that are no Unicode (surrogate escapes) come back whole."""
        self._buffer += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._buffer))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        begin, end = self._ends[index], self._ends[index + 1]
        return self._buffer[begin:end].decode("utf-8", "surrogateescape")
