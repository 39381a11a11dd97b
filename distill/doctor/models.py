"""What the doctor asks the models: teacher and student, each on the same few pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.data.pairs import group_rows
from distill.doctor.finding import Finding, fine, note, wrong
from distill.evaluate.encoder import Encoder, Vectors
from export.runtime.preprocess import Preprocessing

# How far from 1 the length of an embedding may be, and how far two embeddings of one text apart.
LENGTH, SAME = 1e-3, 1e-2
# Normalised pixels of a batch of pictures: how far their mean may be from 0, and their spread.
MEAN, LEAST_SPREAD, MOST_SPREAD = 1.5, 0.25, 4.0
# A share of captions that lose their end, from which a student misses much.
CUT = 0.1
LONG = "a very long caption that goes on and on, as those of some pictures do, " * 2


@dataclass(frozen=True)
class Matching:
    """How often a picture's nearest caption of the batch is its own, and what chance would do.

    ``place`` is the mean place of the true caption among all, 0 for the first and 1 for the last.
    """

    accuracy: float
    chance: float
    place: float


def match(image: Vectors, text: Vectors, groups: NDArray[np.int64]) -> Matching:
    """Match the pictures of a batch with its captions; rows of one group are true pairs alike."""
    similarities = image @ text.T
    own = groups[:, None] == groups[None, :]
    best = np.where(own, similarities, -np.inf).max(axis=1)
    before = ((similarities > best[:, None]) & ~own).sum(axis=1)
    others = np.maximum((~own).sum(axis=1), 1)
    return Matching(
        accuracy=float((before == 0).mean()),
        chance=float(own.mean()),
        place=float((before / others).mean()),
    )


def examine_pairs(
    name: str, image: Vectors, text: Vectors, keys: Sequence[int], captions: Sequence[int]
) -> list[Finding]:
    """Look whether a model finds the pairs of a batch better than chance would."""
    found = match(image, text, group_rows(keys, captions))
    about = f"{name}'s matching"
    told = f"{found.accuracy:.1%} of {len(image)} pairs, where chance has {found.chance:.1%}"
    if found.accuracy <= found.chance or found.place >= 0.5:
        return [
            wrong(
                about,
                f"{told}: it does no better than chance",
                "see that captions belong to their pictures, that the teacher is trained, and "
                "that it reads their language",
            )
        ]
    return [fine(about, told)]


def examine_lengths(name: str, vectors: Vectors, *, what: str) -> list[Finding]:
    """Look whether embeddings are of length 1."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    about = f"{name}'s {what}"
    if not np.isfinite(lengths).all():
        return [wrong(about, "some embeddings are no finite numbers", "set teacher.dtype: float32")]
    if np.abs(lengths - 1).max() > LENGTH:
        return [
            wrong(
                about,
                f"embeddings are {lengths.min():.3g} to {lengths.max():.3g} long, must be 1",
                "normalise them; cosines and logits are wrong otherwise",
            )
        ]
    return [fine(about, f"normalised, {vectors.shape[1]} numbers")]


def examine_padding(name: str, encoder: Encoder, *, text: str) -> list[Finding]:
    """Look whether a text is embedded the same alone and beside a long one."""
    alone, beside = encoder.encode_texts([text]), encoder.encode_texts([text, LONG])
    if alone is None or beside is None:
        return []
    gap = float(np.abs(alone[0] - beside[0]).max())
    about = f"{name}'s padding"
    if gap > SAME:
        return [
            wrong(
                about,
                f"a text is embedded otherwise beside a longer one (by {gap:.2g}): the model pools "
                "a fixed place, as SigLIP does",
                "its tokenizer must pad to the full length (padding: max_length)",
            )
        ]
    return [fine(about, "a text is embedded the same whatever stands beside it")]


def examine_statistics(
    name: str, look: Preprocessing, pictures: Sequence[Image.Image]
) -> list[Finding]:
    """Look whether a model's mean and standard deviation fit the pictures at all."""
    values = np.concatenate([look.normalise(look.pixels(one)[None]) for one in pictures])
    mean, spread = float(values.mean()), float(values.std())
    about = f"{name}'s mean and std"
    if abs(mean) > MEAN or not LEAST_SPREAD < spread < MOST_SPREAD:
        return [
            wrong(
                about,
                f"they bring the pictures to a mean of {mean:.2g} and a deviation of "
                f"{spread:.2g}, should be about 0 and 1",
                "give the model the mean and std that it was trained with",
            )
        ]
    return [fine(about, f"they bring the pictures to {mean:.2f} ± {spread:.2f}")]


def examine_difference(teacher: Preprocessing, student: Preprocessing) -> list[Finding]:
    """Look whether teacher and student take pictures of so different a range that one errs."""
    scales = [np.asarray(look.std, np.float64).mean() for look in (teacher, student)]
    if not 0.25 < scales[0] / scales[1] < 4:
        return [
            note(
                "mean and std",
                f"the teacher divides by {scales[0]:.3g} and the student by {scales[1]:.3g}",
                "see that both are meant for pixels in 0 to 1",
            )
        ]
    return []


def examine_cut(name: str, cut: int, count: int, context_length: int) -> list[Finding]:
    """Look how many captions lose their end, of ``count``."""
    about = f"{name}'s context"
    told = f"{cut:,} of {count:,} captions are longer than its {context_length} tokens"
    if count and cut > CUT * count:
        field = "student.text.context_length" if name == "student" else "another teacher"
        return [wrong(about, told, f"shorten them, or take {field} that reads more")]
    return [fine(about, told if cut else f"no caption is longer than its {context_length} tokens")]


