"""What the doctor looks for on the machine: room on the disk and in memory.

Both are estimates. The cache's bytes are those of its arrays, with captions counted on a sample.
The activations are measured on two pairs and grow with the batch; what the libraries, the workers
and the temporary values inside an operator take comes on top.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.basis.words import human_bytes
from distill.doctor.finding import Finding, fine, wrong
from distill.run.estimate import existing_folder
from students.encoder import embed_images, embed_texts

# A weight in training: itself, its gradient and AdamW's two moments, in float32.
BYTES_PER_WEIGHT = 16
# A weight on the disk: a checkpoint has it and both moments, and the next is written before the
# last one goes; then the last student, the best one and the bundle.
BYTES_PER_WEIGHT_SAVED = 2 * 12 + 3 * 4
AVERAGE_BYTES = 4


@dataclass(frozen=True)
class Memory:
    """What a run holds at once, in bytes.

    ``weights`` with their gradients and moments, ``activations`` of the pairs that go through the
    towers together, ``banks`` of the corpus, ``teacher`` beside the student. ``embedding`` is the
    teacher alone, while the cache is written.
    """

    weights: int
    activations: int
    banks: int = 0
    teacher: int = 0
    embedding: int = 0

    @property
    def total(self) -> int:
        """The most that is needed at a time."""
        return max(self.weights + self.activations + self.banks + self.teacher, self.embedding)


def examine_disk(needed: Mapping[Path, int]) -> list[Finding]:
    """Look whether what goes into each of some folders fits there; folders may share a disk."""
    found, by_disk = [], dict[int, list[tuple[Path, int]]]()
    for folder, count in needed.items():
        place = existing_folder(folder)
        by_disk.setdefault(place.stat().st_dev, []).append((place, count))
    for entries in by_disk.values():
        place, total = entries[0][0], sum(count for _, count in entries)
        free = shutil.disk_usage(place).free
        told = (
            f"about {human_bytes(total)} will be written, {human_bytes(free)} are free at {place}"
        )
        if total > free:
            ways = (
                "free some, set output or cache.folder elsewhere, or ask for less (cache.views, "
                "cache.dtype: int8)"
            )
            found.append(wrong("disk", told, ways))
        else:
            found.append(fine("disk", told))
    return found


def examine_memory(asked: Memory, *, free: int | None, device: str) -> list[Finding]:
    """Look whether a step fits into memory; ``free`` is None where nobody tells."""
    parts = {
        "weights, gradients and moments": asked.weights,
        "activations": asked.activations,
        "corpus": asked.banks,
        "teacher": asked.teacher,
    }
    listed = ", ".join(f"{name} {human_bytes(count)}" for name, count in parts.items() if count)
    told = f"about {human_bytes(asked.total)} are needed ({listed})"
    if asked.embedding == asked.total:
        told = f"about {human_bytes(asked.total)} are needed (the teacher's weights)"
    if free is None:
        return [fine("memory", told)]
    told += f", {human_bytes(free)} are free on {device}"
    if asked.total > free:
        ways = (
            "set train.micro_batch_size, train.gradient_checkpointing, teacher.dtype: float16 or "
            "train.teacher: cached, or take a smaller model"
        )
        return [wrong("memory", told, ways)]
    return [fine("memory", told)]


def free_memory(device: str) -> int | None:
    """Return the bytes that are free on a device, None where that cannot be known.

    Beside a CUDA device it is what the system calls available, and no more than a container may.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    lines = _read("/proc/meminfo").splitlines()
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.strip().isdecimal() and used.strip().isdecimal():
        stat = dict(line.split() for line in _read("/sys/fs/cgroup/memory.stat").splitlines())
        # What files left in memory makes room when it is needed.
        values.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return max(0, min(values)) if values else None


def activation_bytes(
    model: PreTrainedModel, pixels: Tensor | None, tokens: Mapping[str, Tensor] | None
) -> int:
    """Return the bytes that one pair's activations take until the backward pass.

    ``pixels`` ``[N, 3, H, W]`` and ``tokens`` ``[N, L]`` are None where the student has no such
    tower. What autograd keeps is counted, the weights left out.
    """
    count = len(pixels) if pixels is not None else len(next(iter((tokens or {}).values())))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    was_training = model.training
    model.train()
    try:
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        ):
            # Held to the end, so that no two of them are at the same place.
            outputs = [
                *([] if pixels is None else [embed_images(model, pixels)]),
                *([] if tokens is None else [embed_texts(model, tokens)]),
            ]
    finally:
        model.train(was_training)
    total = sum(kept.values()) + sum(output.nbytes for output in outputs)
    return total // max(count, 1)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
