"""What the doctor looks for on the machine: room on the disk and in memory."""

from dataclasses import dataclass

from distill.cache_estimate import human_bytes
from distill.doctor.finding import Finding, fine, wrong

# A weight in training: itself, its gradient and AdamW's two moments, in float32.
BYTES_PER_WEIGHT = 16
# What a checkpoint holds of a weight: itself and both moments.
BYTES_PER_WEIGHT_SAVED = 12


@dataclass(frozen=True)
class Asked:
    """What a run asks of a machine, in bytes or in numbers of weights."""

    cache: int
    student_weights: int
    teacher_bytes: int
    corpus: int
    checkpoints: int


def examine_disk(asked: Asked, *, free: int, place: str) -> list[Finding]:
    """Look whether the cache and the checkpoints fit on the disk."""
    saved = asked.student_weights * BYTES_PER_WEIGHT_SAVED * asked.checkpoints
    needed = asked.cache + saved
    told = (
        f"{human_bytes(needed)} are needed ({human_bytes(asked.cache)} for the cache), "
        f"{human_bytes(free)} are free at {place}"
    )
    if needed > free:
        ways = "free some, set output or cache.folder elsewhere, or fewer cache.views or dtype int8"
        return [wrong("disk", told, ways)]
    return [fine("disk", told)]


def examine_memory(asked: Asked, *, free: int, device: str) -> list[Finding]:
    """Look whether the weights alone fit into memory; activations come on top of them."""
    needed = asked.student_weights * BYTES_PER_WEIGHT + asked.teacher_bytes + asked.corpus
    told = (
        f"{human_bytes(needed)} are needed for weights, moments and banks, without activations; "
        f"{human_bytes(free)} are free on {device}"
    )
    if needed > free:
        ways = "cache the teacher (train.teacher: cached), take fewer samples of the corpus, or a "
        return [wrong("memory", told, ways + "smaller student")]
    return [fine("memory", told)]
