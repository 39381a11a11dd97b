"""The doctor's reckoning of what a run asks of disk and memory."""

from collections.abc import Iterator, Sequence

import torch

from distill.doctor.finding import Finding
from distill.doctor.machine import (
    AVERAGE_BYTES,
    BYTES_PER_WEIGHT,
    BYTES_PER_WEIGHT_SAVED,
    Memory,
    activation_bytes,
    examine_disk,
    examine_memory,
)
from distill.doctor.sample import Examined, Look
from distill.run.cache_stage import cache_folders
from distill.run.estimate import stored_bytes
from distill.run.student import student_preprocessing
from distill.teacher.cache.cache import Cache
from distill.teacher.protocol import Teacher
from distill.train.towers import corpus_parts
from students.encoder import Student, tokenize

PAIRS = 2
_TEACHER_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def examine_room(
    project: Examined,
    student: Student,
    teachers: Sequence[Teacher],
    caches: Sequence[Sequence[Cache]],
    looks: Sequence[Look],
    *,
    free: int | None,
) -> Iterator[Finding]:
    """Yield whether disk and memory are large enough; ``free`` memory is that without models."""
    config = project.config
    weights = sum(weight.numel() for weight in student.model.parameters())
    average = 0 if config.train.ema_decay is None else AVERAGE_BYTES * weights
    needed = {config.folder: BYTES_PER_WEIGHT_SAVED * weights + 2 * average}
    if any(caches):
        folder = cache_folders(project, config.folder)[0][0]
        needed[folder] = sum(
            _cache_bytes(project, teacher, of_teacher, looks)
            for teacher, of_teacher in zip(teachers, caches, strict=True)
        )
    yield from examine_disk(needed)
    sizes = [
        teacher.parameters * _TEACHER_BYTES[entry.dtype]
        for teacher, entry in zip(teachers, config.teachers, strict=True)
    ]
    asked = Memory(
        weights=BYTES_PER_WEIGHT * weights + average,
        activations=_activations(project, student, looks),
        banks=_banks(project, student.width) if teachers else 0,
        teacher=sum(sizes) if config.train.teacher == "live" else 0,
        embedding=max(sizes, default=0),
    )
    yield from examine_memory(asked, free=free, device=config.device)


def _cache_bytes(
    project: Examined, teacher: Teacher, caches: Sequence[Cache], looks: Sequence[Look]
) -> int:
    """Return the bytes of what the caches lack; how many captions differ is told by the sample."""
    parts = project.teacher_parts
    pictures = sum(len(look.source) for look in looks) if "images" in parts else 0
    captions = sum(
        len(look.every_caption) * len(look.source) // len(look.samples) for look in looks
    )
    held = sum(len(cache.images) for cache in caches), sum(len(cache.captions) for cache in caches)
    return stored_bytes(
        max(0, pictures - held[0]),
        max(0, captions - held[1]) if "captions" in parts else 0,
        teacher.width,
        project.build_settings,
    )


def _activations(project: Examined, student: Student, looks: Sequence[Look]) -> int:
    """Return the bytes of the activations of all pairs that go through the towers together."""
    train, device = project.config.train, student.model.device
    look, pixels, tokens = student_preprocessing(student), None, None
    if look is not None:
        pixels = torch.zeros(PAIRS, 3, *look.size, device=device)
    if student.tokenizer is not None:
        texts = [text for some in looks for text in some.every_caption] or ["a photo"]
        # A batch is padded to its longest text.
        encoded = tokenize(
            student.tokenizer,
            [max(texts, key=len)] * PAIRS,
            context_length=student.context_length,
            padding=student.padding,
        )
        tokens = {name: ids.to(device) for name, ids in encoded.items()}
    rows = min(train.micro_batch_size or train.batch_size, train.batch_size)
    # Beside fp32, most of what is kept has two bytes instead of four.
    share = 1 if train.precision == "fp32" else 2
    return activation_bytes(student.model, pixels, tokens) * rows // share


def _banks(project: Examined, width: int) -> int:
    """Return the bytes of the corpus that a step compares with."""
    terms = project.config.terms
    samples = max(
        (term.options["samples"] for term in terms.values() if term.needs.corpus), default=0
    )
    return samples * width * 4 * len(corpus_parts(project.towers, terms))
