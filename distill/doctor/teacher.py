"""The doctor's visit to teachers and their caches."""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from distill.data.sample import Subset
from distill.doctor.cache import examine_cache
from distill.doctor.data import FEWEST
from distill.doctor.finding import Finding, attempt, fine
from distill.doctor.models import (
    examine_cut,
    examine_embeddings,
    examine_family,
    examine_padding,
    examine_pairs,
    examine_scale,
    examine_statistics,
)
from distill.doctor.sample import PICTURES, Examined, Look
from distill.evaluate.encoder import TeacherEncoder, Vectors
from distill.run.cache_stage import cache_folders
from distill.teacher.cache.build import open_cache
from distill.teacher.cache.cache import Cache
from distill.teacher.cache.rows import row_digests
from distill.teacher.protocol import Teacher
from export.runtime.errors import visible

# On a CPU a large teacher takes a second for a picture; fewer of them will do there.
LARGE, FEW_PICTURES, LEAST_PICTURES = 200_000_000, 32, 16


def examine_teacher(
    project: Examined,
    teacher: Teacher,
    looks: Sequence[Look],
    *,
    name: str,
) -> Iterator[Finding]:
    """Yield what is found about a teacher, asked about a batch of pictures and captions."""
    about = f"{name}'s mean and std"
    yield from examine_statistics(about, teacher.preprocessing)
    yield from examine_family(about, teacher.preprocessing, teacher.model_type)
    yield from examine_scale(f"{name}'s logit scale", teacher)
    encoder, cut = TeacherEncoder(teacher), teacher.truncated
    count = _batch(teacher, project.config.device, sources=len(looks))
    images = [encoder.encode_images(look.pictures[:count]) for look in looks]
    captions = [[sample.captions[0] for sample, _ in look.pairs[:count]] for look in looks]
    texts = [encoder.encode_texts(some) for some in captions]
    cut = teacher.truncated - cut
    for what, parts in (("pictures", images), ("captions", texts)):
        if rows := [part for part in parts if len(part)]:
            ways = "set teacher.dtype: float32, or take other weights"
            yield from examine_embeddings(f"{name}'s {what}", np.concatenate(rows), ways=ways)
    for look, image, text in zip(looks, images, texts, strict=True):
        where = f" of {visible(look.source.name)}" if len(looks) > 1 else ""
        yield from _match(f"{name}'s matching{where}", look, image, text)
    yield from examine_padding(f"{name}'s padding", encoder, text="a photo of a dog")
    if "captions" in project.teacher_parts:
        yield from examine_cut(
            f"{name}'s context",
            cut,
            sum(map(len, captions)),
            teacher.context_length,
            ways="it sees no more of them; shorten them, or take a teacher that reads more",
        )


def examine_caches(
    project: Examined, teachers: Sequence[Teacher], looks: Sequence[Look]
) -> Generator[Finding, None, list[list[Cache]]]:
    """Yield what is found about the caches of all sources; return each teacher's that open."""
    caches: list[list[Cache]] = [[] for _ in teachers]
    if project.config.train.teacher != "cached" or not teachers:
        return caches
    of_teachers = cache_folders(project, project.config.folder)
    for teacher, folders, found in zip(teachers, of_teachers, caches, strict=True):
        for folder, look in zip(folders, looks, strict=True):
            refused: list[Finding] = []
            cache = attempt("cache", partial(_open, project, teacher, folder), refused)
            yield from refused
            if cache is not None:
                found.append(cache)
                yield from examine_cache("cache", cache, Subset(look.source, look.rows))
    return caches


def _open(project: Examined, teacher: Teacher, folder: Path) -> Cache:
    return open_cache(folder, teacher, project.build_settings)


def _batch(teacher: Teacher, device: str, *, sources: int) -> int:
    """Return how many pictures of each source a teacher is asked about."""
    slow = device == "cpu" and teacher.parameters > LARGE
    return max((FEW_PICTURES if slow else PICTURES) // sources, LEAST_PICTURES)


def _match(about: str, look: Look, image: Vectors, text: Vectors) -> list[Finding]:
    """Match pictures with their captions; those that have one come first in a look."""
    count = len(text)
    if not count:
        return [fine(about, "no picture has a caption, so there is nothing to match")]
    if count < FEWEST:
        return [fine(about, f"{count} pictures have captions, too few to match them")]
    pairs = look.pairs[:count]
    keys = row_digests(sample.key for sample, _ in pairs)[:, 0].tolist()
    captions = row_digests(sample.captions[0] for sample, _ in pairs)[:, 0].tolist()
    return examine_pairs(about, image[:count], text, keys, captions)
