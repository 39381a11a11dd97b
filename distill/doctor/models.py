"""What the doctor asks the models: teachers and student, on the same few pictures and captions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from distill.data.pairs import group_rows
from distill.doctor.data import FEWEST
from distill.doctor.finding import Finding, fine, note, wrong
from distill.evaluate.encoder import Encoder, Vectors
from distill.teacher.protocol import Teacher
from export.runtime.preprocess import Preprocessing

# How far from 1 the length of an embedding may be, and the cosine of two embeddings of one text;
# bfloat16 takes it off by 1e-4.
LENGTH, SAME = 1e-3, 2e-3
# Mean cosine between different pictures, or texts, from which they are told apart by nothing.
ALIKE = 0.999
# Where black and white may come to lie once a picture is normalised, and how far apart. Known
# models have -2.2 to 2.7, their own statistics of dark pictures 0 to 10.
BLACK, WHITE, RANGE = (-4.0, 0.5), (0.5, 20.0), (0.5, 20.0)
# How much a mean or deviation may differ from that of the weights.
OTHER_STATISTICS = 0.02
# The mean and deviation that the published models of a type were trained with.
_OPENAI = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
_HALF = (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)
_OFTEN = (_OPENAI, _HALF, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD), ([0.0] * 3, [1.0] * 3))
PUBLISHED = {
    "clip": _OPENAI,
    "chinese_clip": _OPENAI,
    "altclip": _OPENAI,
    "siglip": _HALF,
    "siglip2": _HALF,
}
# A share of captions that lose their end: worth knowing, and too many.
SOME_CUT, MANY_CUT = 0.01, 0.25
# CLIP begins at 14 and ends at 100, SigLIP ends at 118.
SCALES, POSSIBLE_SCALES = (2.0, 200.0), (1.0, 1000.0)
LONG = "a very long caption that goes on and on, as those of some pictures do, " * 2


@dataclass(frozen=True)
class Matching:
    """How often a picture's nearest caption of the batch is its own, and what chance would do.

    ``place`` is the mean place of the true caption among the others, 0 for the first and 1 for the
    last; ``groups`` is how many different true partners there are.
    """

    accuracy: float
    chance: float
    place: float
    groups: int

    @property
    def certain(self) -> float:
        """The place below which it is not by chance: two standard deviations under the middle.

        Without any relation, places are uniform, with the variance 1 / 12.
        """
        return 0.5 - 2 / math.sqrt(12 * self.groups) if self.groups >= FEWEST else 0.5


def match(image: Vectors, text: Vectors, groups: NDArray[np.int64]) -> Matching:
    """Match the pictures of a batch with its captions; rows of one group are true pairs alike."""
    similarities = image @ text.T
    own = groups[:, None] == groups[None, :]
    best = np.where(own, similarities, -np.inf).max(axis=1, keepdims=True)
    before = ((similarities > best) & ~own).sum(axis=1)
    level = ((similarities == best) & ~own).sum(axis=1)
    others = (~own).sum(axis=1)
    # Equals are before it or after it as often; where there are no others, there is no place.
    place = np.where(others > 0, (before + level / 2) / np.maximum(others, 1), 0.5)
    return Matching(
        accuracy=float(((before + level) == 0).mean()),
        chance=float(own.mean()),
        place=float(place.mean()),
        groups=len(np.unique(groups)),
    )


def examine_pairs(
    about: str, image: Vectors, text: Vectors, keys: Sequence[int], captions: Sequence[int]
) -> list[Finding]:
    """Look whether a model finds the pairs of a batch better than chance would.

    ``keys`` and ``captions`` are digests, by which equal ones are known.
    """
    found = match(image, text, group_rows(keys, captions))
    if found.groups == 1:
        return [fine(about, f"all {len(image)} pairs are the same, so there is nothing to match")]
    told = (
        f"the nearest caption is the picture's own in {found.accuracy:.1%} of {len(image)} pairs, "
        f"by chance in {found.chance:.1%}"
    )
    ways = (
        "see that captions belong to their pictures, and that the teacher is trained and reads "
        "their language"
    )
    if found.place >= found.certain:
        return [wrong(about, f"{told}; its order of the captions is no better than chance", ways)]
    if found.accuracy <= found.chance:
        return [note(about, f"{told}; it knows hardly more about them than chance", ways)]
    return [fine(about, told)]


def examine_embeddings(about: str, vectors: Vectors, *, ways: str) -> list[Finding]:
    """Look whether embeddings ``[N, D]`` of different things are finite, of length 1, different."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        return [wrong(about, "some embeddings are no finite numbers", ways)]
    if np.abs(lengths - 1).max() > LENGTH:
        return [
            wrong(
                about,
                f"embeddings are {lengths.min():.3g} to {lengths.max():.3g} long, must be 1",
                "normalise them, since cosines and logits are wrong otherwise",
            )
        ]
    count = len(vectors)
    if count >= FEWEST:
        cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
        mean = (cosines.sum() - np.trace(cosines)) / (count * (count - 1))
        if mean > ALIKE:
            told = f"{count} different ones are embedded alike, at a mean cosine of {mean:.5f}"
            return [wrong(about, told, "the model sees no difference; see that it is trained")]
    return [fine(about, f"{count} embeddings of {vectors.shape[1]} numbers, of length 1")]


def examine_scale(about: str, teacher: Teacher) -> list[Finding]:
    """Look whether a teacher's logit scale is one that a softmax can use."""
    scale = teacher.logit_scale
    if not POSSIBLE_SCALES[0] <= scale <= POSSIBLE_SCALES[1]:
        return [
            wrong(
                about,
                f"its logit scale is {scale:.4g}, that of a trained model is about 10 to 120",
                "see whether its checkpoint stores the scale, its logarithm or its inverse",
            )
        ]
    if not SCALES[0] <= scale <= SCALES[1]:
        return [note(about, f"its logit scale is {scale:.4g}", "that of a trained CLIP is 100")]
    return []


def examine_padding(about: str, encoder: Encoder, *, text: str) -> list[Finding]:
    """Look whether a text is embedded the same alone and beside a long one."""
    alone, beside = encoder.encode_texts([text]), encoder.encode_texts([text, LONG])
    if alone is None or beside is None:
        return []
    cosine = float(alone[0] @ beside[0])
    if cosine < 1 - SAME:
        return [
            wrong(
                about,
                f"a text is embedded otherwise beside a longer one (cosine {cosine:.3f}), since "
                "the model reads its padding or pools a fixed place, as SigLIP does",
                "pad its texts to the full length, as a model of type siglip is",
            )
        ]
    return [fine(about, "a text is embedded the same beside a longer one")]


def examine_statistics(about: str, look: Preprocessing) -> list[Finding]:
    """Look whether mean and standard deviation bring pixels to where any model wants them."""
    levels = np.array([[[[0] * 3], [[255] * 3]]], np.uint8)
    values = look.normalise(levels)[0].reshape(3, 2)
    black, white = (float(values[:, end].mean()) for end in (0, 1))
    told = f"black becomes {black:.2f} and white {white:.2f}"
    for value, (least, most) in ((black, BLACK), (white, WHITE), (white - black, RANGE)):
        if not least <= value <= most:
            return [
                wrong(
                    about,
                    f"{told}, which is no range that models see",
                    "give mean and std for pixels from 0 to 1 (rescale_factor 1/255)",
                )
            ]
    return [fine(about, told)]


def examine_difference(about: str, look: Preprocessing, own: Preprocessing) -> list[Finding]:
    """Look whether a model's mean and deviation are those that its weights were trained with."""
    if _statistics_are(look, own.mean, own.std):
        return []
    return [
        wrong(
            about,
            f"they are {_short(look.mean)} and {_short(look.std)}, those of its weights "
            f"{_short(own.mean)} and {_short(own.std)}",
            "give it the image processor that belongs to the weights",
        )
    ]


def examine_family(about: str, look: Preprocessing, model_type: str | None) -> list[Finding]:
    """Look whether a teacher's mean and deviation are those that models of another type have.

    A teacher that was trained on pictures of its own may have any others.
    """
    if model_type not in PUBLISHED:
        return []
    mean, std = PUBLISHED[model_type]
    near = [published for published in _OFTEN if _statistics_are(look, *published)]
    if not near or near[0] == PUBLISHED[model_type]:
        return []
    return [
        note(
            about,
            f"they are {_short(look.mean)} and {_short(look.std)}, those of published models of "
            f"type {model_type} {_short(mean)} and {_short(std)}",
            "unless it was trained so, give its folder the preprocessor_config.json of its weights",
        )
    ]


def examine_cut(about: str, cut: int, count: int, length: int, *, ways: str) -> list[Finding]:
    """Look how many captions, of ``count``, lose what stands after ``length`` tokens."""
    if not count:
        return []
    told = f"{cut:,} of {count:,} captions ({cut / count:.0%}) are longer than its {length} tokens"
    if cut > MANY_CUT * count:
        return [wrong(about, told, ways)]
    if cut > SOME_CUT * count:
        return [note(about, told, ways)]
    return [fine(about, told if cut else f"no caption is longer than its {length} tokens")]


def _statistics_are(look: Preprocessing, mean: Sequence[float], std: Sequence[float]) -> bool:
    gaps = np.abs(np.subtract([look.mean, look.std], [mean, std]))
    return bool(gaps.max() <= OTHER_STATISTICS)


def _short(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
