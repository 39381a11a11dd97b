"""The doctor's visit to the machine: is there enough room on the disk and in memory?

Both are estimates. The bytes of the cache are those of its arrays; the number of different
captions is taken from the sample. Activations are measured on two pairs and grow with the batch.
Libraries, worker processes and temporary values inside an operator come on top.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.basis.words import human_bytes
from distill.doctor._samples import Drawn, ReadOnlyProject
from distill.doctor.finding import Finding, fine, wrong
from distill.run.cache_stage import cache_folders
from distill.run.estimate import existing_folder, stored_bytes
from distill.run.student import student_preprocessing
from distill.teacher.cache.cache import Cache
from distill.teacher.protocol import Teacher
from distill.train.towers import corpus_parts
from students.encoder import Student, embed_images, embed_texts, tokenize

# A weight in training: the weight, its gradient and AdamW's two moments, in float32.
_BYTES_PER_WEIGHT = 16
# A weight on the disk: a checkpoint has the weight and both moments, and the next one is written
# before the last one is deleted; then the last student, the best one and the bundle.
_BYTES_PER_WEIGHT_SAVED = 2 * 12 + 3 * 4
_AVERAGE_BYTES = 4
_TEACHER_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_PAIRS = 2


@dataclass(frozen=True)
class Memory:
    """What a run holds in memory at once, in bytes.

    ``weights`` with their gradients and moments, ``activations`` of the pairs that go through the
    towers together, ``banks`` of the corpus, and the ``teacher`` that runs together with the
    student. ``embedding`` is the teacher alone, while the cache is written.
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


def examine_machine(
    project: ReadOnlyProject,
    student: Student,
    teachers: Sequence[Teacher],
    caches: Sequence[Sequence[Cache]],
    samples: Sequence[Drawn],
    *,
    free: int | None,
) -> Iterator[Finding]:
    """Yield whether disk and memory are large enough; ``free`` is the memory without models."""
    config = project.config
    weights = sum(weight.numel() for weight in student.model.parameters())
    average = 0 if config.train.ema_decay is None else _AVERAGE_BYTES * weights
    needed = {config.folder: _BYTES_PER_WEIGHT_SAVED * weights + 2 * average}
    if any(caches):
        folder = cache_folders(project, config.folder)[0][0]
        needed[folder] = sum(
            _cache_bytes(project, teacher, of_teacher, samples)
            for teacher, of_teacher in zip(teachers, caches, strict=True)
        )
    yield from examine_disk(needed)
    sizes = [
        teacher.parameters * _TEACHER_BYTES[entry.dtype]
        for teacher, entry in zip(teachers, config.teachers, strict=True)
    ]
    asked = Memory(
        weights=_BYTES_PER_WEIGHT * weights + average,
        activations=_activations(project, student, samples),
        banks=_banks(project, student.width) if teachers else 0,
        teacher=sum(sizes) if config.train.teacher == "live" else 0,
        embedding=max(sizes, default=0),
    )
    yield from examine_memory(asked, free=free, device=config.device)


def examine_disk(needed: Mapping[Path, int]) -> list[Finding]:
    """Check that the bytes for each folder fit on its disk; folders may share a disk."""
    found, by_disk = [], dict[int, list[tuple[Path, int]]]()
    for folder, count in needed.items():
        place = existing_folder(folder)
        by_disk.setdefault(place.stat().st_dev, []).append((place, count))
    for entries in by_disk.values():
        place, total = entries[0][0], sum(count for _, count in entries)
        free = shutil.disk_usage(place).free
        sentence = (
            f"about {human_bytes(total)} will be written, {human_bytes(free)} are free at {place}"
        )
        if total > free:
            ways = (
                "free some space, set output or cache.folder to another disk, or store less "
                "(cache.views, cache.dtype: int8)"
            )
            found.append(wrong("disk", sentence, ways))
        else:
            found.append(fine("disk", sentence))
    return found


def examine_memory(asked: Memory, *, free: int | None, device: str) -> list[Finding]:
    """Check that a step fits into memory; ``free`` is None if it is not known."""
    parts = {
        "weights, gradients and moments": asked.weights,
        "activations": asked.activations,
        "corpus": asked.banks,
        "teacher": asked.teacher,
    }
    listed = ", ".join(f"{name} {human_bytes(count)}" for name, count in parts.items() if count)
    sentence = f"about {human_bytes(asked.total)} are needed ({listed})"
    if asked.embedding == asked.total:
        sentence = f"about {human_bytes(asked.total)} are needed (the teacher's weights)"
    if free is None:
        return [fine("memory", sentence)]
    sentence += f", {human_bytes(free)} are free on {device}"
    if asked.total > free:
        ways = (
            "set train.micro_batch_size, train.gradient_checkpointing, teacher.dtype: float16 or "
            "train.teacher: cached, or use a smaller model"
        )
        return [wrong("memory", sentence, ways)]
    return [fine("memory", sentence)]


def free_memory(device: str) -> int | None:
    """Return the bytes that are free on a device, None if that cannot be known.

    On a device other than CUDA it is the memory that the system reports as available, at most the
    limit of the container.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    lines = _read("/proc/meminfo").splitlines()
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.strip().isdecimal() and used.strip().isdecimal():
        stat = dict(line.split() for line in _read("/sys/fs/cgroup/memory.stat").splitlines())
        # The system drops cached files when it needs their memory.
        values.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return max(0, min(values)) if values else None


def activation_bytes(
    model: PreTrainedModel, pixels: Tensor | None, tokens: Mapping[str, Tensor] | None
) -> int:
    """Return the bytes that the activations of one pair take until the backward pass.

    ``pixels`` ``[N, 3, H, W]`` and ``tokens`` ``[N, L]`` are None if the student has no such tower.
    Everything that autograd saves is counted, except the weights.
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
            # Both are held to the end, so no memory is used twice.
            outputs = [
                *([] if pixels is None else [embed_images(model, pixels)]),
                *([] if tokens is None else [embed_texts(model, tokens)]),
            ]
    finally:
        model.train(was_training)
    total = sum(kept.values()) + sum(output.nbytes for output in outputs)
    return total // max(count, 1)


def _cache_bytes(
    project: ReadOnlyProject, teacher: Teacher, caches: Sequence[Cache], samples: Sequence[Drawn]
) -> int:
    """Return the bytes that the caches lack; the sample tells how many captions differ."""
    parts = project.teacher_parts
    pictures = sum(len(drawn.source) for drawn in samples) if "images" in parts else 0
    captions = sum(
        len(drawn.every_caption) * len(drawn.source) // len(drawn.samples) for drawn in samples
    )
    held = sum(len(cache.images) for cache in caches), sum(len(cache.captions) for cache in caches)
    return stored_bytes(
        max(0, pictures - held[0]),
        max(0, captions - held[1]) if "captions" in parts else 0,
        teacher.width,
        project.build_settings,
    )


def _activations(project: ReadOnlyProject, student: Student, samples: Sequence[Drawn]) -> int:
    """Return the bytes of the activations of all pairs that go through the towers together."""
    train, device = project.config.train, student.model.device
    preprocessing, pixels, tokens = student_preprocessing(student), None, None
    if preprocessing is not None:
        pixels = torch.zeros(_PAIRS, 3, *preprocessing.size, device=device)
    if student.tokenizer is not None:
        texts = [text for drawn in samples for text in drawn.every_caption] or ["a photo"]
        # A batch is padded to its longest text.
        encoded = tokenize(
            student.tokenizer,
            [max(texts, key=len)] * _PAIRS,
            context_length=student.context_length,
            padding=student.padding,
        )
        tokens = {name: ids.to(device) for name, ids in encoded.items()}
    rows = min(train.micro_batch_size or train.batch_size, train.batch_size)
    # Except in fp32, most saved tensors have two bytes a number instead of four.
    share = 1 if train.precision == "fp32" else 2
    return activation_bytes(student.model, pixels, tokens) * rows // share


def _banks(project: ReadOnlyProject, width: int) -> int:
    """Return the bytes of the corpus samples that a step compares with."""
    terms = project.config.terms
    samples = max(
        (term.options["samples"] for term in terms.values() if term.row.needs_corpus), default=0
    )
    return samples * width * 4 * len(corpus_parts(project.towers, terms))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
