"""The doctor's visit to a teacher."""

from collections.abc import Generator, Iterator, Sequence

import numpy as np
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from distill.doctor._matching import examine_pairs
from distill.doctor._models import (
    examine_cut,
    examine_embeddings,
    examine_padding,
    examine_statistics,
    slashed,
    statistics_are,
)
from distill.doctor._samples import FEWEST, PICTURES, Drawn, ReadOnlyProject
from distill.doctor.finding import Finding, attempt, fine, note, wrong
from distill.evaluate.encoder import TeacherEncoder, Vectors
from distill.teacher.cache.rows import row_digests
from distill.teacher.protocol import Teacher
from export.runtime.errors import visible
from export.runtime.preprocess import Preprocessing

# On a CPU a large teacher takes a second for each picture, so it is asked about fewer of them.
_LARGE, _FEW_PICTURES, _LEAST_PICTURES = 200_000_000, 32, 16
# A trained CLIP has 14 to 100, a SigLIP up to 118.
_SCALES, _POSSIBLE_SCALES = (2.0, 200.0), (1.0, 1000.0)
# The mean and deviation that published models of each type were trained with.
_OPENAI = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
_HALF = (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)
_IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
_COMMON = (_OPENAI, _HALF, _IMAGENET, ([0.0] * 3, [1.0] * 3))
_PUBLISHED = {
    "clip": _OPENAI,
    "chinese_clip": _OPENAI,
    "altclip": _OPENAI,
    "siglip": _HALF,
    "siglip2": _HALF,
}


def open_teachers(project: ReadOnlyProject) -> Generator[Finding, None, list[Teacher] | None]:
    """Return the recipe's teachers: an empty list without any, None if one cannot be loaded."""
    refused: list[Finding] = []
    teacher = attempt("teacher", lambda: project.teacher, refused)
    yield from refused
    if refused:
        return None
    return [] if teacher is None else list(teacher.members)


def examine_teacher(
    project: ReadOnlyProject, teacher: Teacher, samples: Sequence[Drawn], *, name: str
) -> Iterator[Finding]:
    """Yield the findings about a teacher, from a batch of pictures and captions of each source."""
    about = f"{name}'s mean and std"
    yield from examine_statistics(about, teacher.preprocessing)
    yield from examine_family(about, teacher.preprocessing, teacher.model_type)
    yield from examine_scale(f"{name}'s logit scale", teacher)
    encoder, cut = TeacherEncoder(teacher), teacher.truncated
    count = _batch(teacher, project.config.device, sources=len(samples))
    images = [encoder.encode_images(drawn.pictures[:count]) for drawn in samples]
    captions = [[sample.captions[0] for sample, _ in drawn.pairs[:count]] for drawn in samples]
    texts = [encoder.encode_texts(of_source) for of_source in captions]
    cut = teacher.truncated - cut
    for what, parts in (("pictures", images), ("captions", texts)):
        if rows := [part for part in parts if len(part)]:
            ways = "set teacher.dtype: float32, or use other weights"
            yield from examine_embeddings(f"{name}'s {what}", np.concatenate(rows), ways=ways)
    for drawn, image, text in zip(samples, images, texts, strict=True):
        where = f" of {visible(drawn.source.name)}" if len(samples) > 1 else ""
        yield from _match(f"{name}'s matching{where}", drawn, image, text)
    yield from examine_padding(f"{name}'s padding", encoder, text="a photo of a dog")
    if "captions" in project.teacher_parts:
        yield from examine_cut(
            f"{name}'s context",
            cut,
            sum(map(len, captions)),
            teacher.context_length,
            ways="the teacher does not see the rest; shorten them, or use a teacher that reads "
            "longer texts",
        )


def examine_scale(about: str, teacher: Teacher) -> list[Finding]:
    """Check that a softmax can use a teacher's logit scale."""
    scale = teacher.logit_scale
    if not _POSSIBLE_SCALES[0] <= scale <= _POSSIBLE_SCALES[1]:
        return [
            wrong(
                about,
                f"the logit scale is {scale:.4g}; a trained model has about 10 to 120",
                "check whether the checkpoint stores the scale, its logarithm or its inverse",
            )
        ]
    if not _SCALES[0] <= scale <= _SCALES[1]:
        return [note(about, f"the logit scale is {scale:.4g}", "a trained CLIP has 100")]
    return []


def examine_family(
    about: str, preprocessing: Preprocessing, model_type: str | None
) -> list[Finding]:
    """Check that mean and deviation are not those of published models of another type.

    A teacher that was trained on special pictures may have any others.
    """
    if model_type not in _PUBLISHED:
        return []
    mean, std = _PUBLISHED[model_type]
    near = [published for published in _COMMON if statistics_are(preprocessing, *published)]
    if not near or near[0] == _PUBLISHED[model_type]:
        return []
    return [
        note(
            about,
            f"they are {slashed(preprocessing.mean)} and {slashed(preprocessing.std)}, but "
            f"published models of type {model_type} have {slashed(mean)} and {slashed(std)}",
            "unless the teacher was trained this way, put the preprocessor_config.json of its "
            "weights into its folder",
        )
    ]


def _batch(teacher: Teacher, device: str, *, sources: int) -> int:
    """Return how many pictures of each source a teacher embeds."""
    slow = device == "cpu" and teacher.parameters > _LARGE
    return max((_FEW_PICTURES if slow else PICTURES) // sources, _LEAST_PICTURES)


def _match(about: str, drawn: Drawn, image: Vectors, text: Vectors) -> list[Finding]:
    """Match pictures with their captions; those that have one come first in the sample."""
    count = len(text)
    if not count:
        return [fine(about, "no picture has a caption, so there is nothing to match")]
    if count < FEWEST:
        return [fine(about, f"{count} pictures have captions, too few to match")]
    pairs = drawn.pairs[:count]
    keys = row_digests(sample.key for sample, _ in pairs)[:, 0].tolist()
    captions = row_digests(sample.captions[0] for sample, _ in pairs)[:, 0].tolist()
    return examine_pairs(about, image[:count], text, keys, captions)
