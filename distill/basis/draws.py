"""Random numbers without state: each draw is a pure function of its key.

A run that resumes draws the same numbers again, with any number of workers and processes.
"""

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray


def draw_integers(*parts: str | int, count: int = 1) -> list[int]:
    """Return ``count`` (at most 8) unsigned 64-bit integers that depend on ``parts`` only.

    The generator is BLAKE2b (RFC 7693) over the parts, so a draw is the same in every process, on
    every machine and with every version of numpy.
    """
    message = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(message.encode("utf-8", "surrogatepass"), digest_size=8 * count)
    return list(struct.unpack(f"<{count}Q", digest.digest()))


def draw_uniforms(*parts: str | int, count: int = 1) -> list[float]:
    """Return ``count`` (at most 8) numbers in [0, 1) that depend on ``parts`` only."""
    return [(integer >> 11) * 2.0**-53 for integer in draw_integers(*parts, count=count)]


def draw_permutation(length: int, *parts: str | int) -> NDArray[np.int64]:
    """Return a permutation of ``range(length)`` that depends on ``parts`` only.

    It is the order that sorts the raw stream of Philox, which numpy promises never to change.
    """
    key = np.array(draw_integers(*parts, count=2), dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(length)
    return np.argsort(raw, kind="stable")
