"""What the doctor examines in teachers and students alike."""

from collections.abc import Sequence

import numpy as np

from distill.doctor._samples import FEWEST
from distill.doctor.finding import Finding, fine, note, wrong
from distill.evaluate.encoder import Encoder, Vectors
from export.runtime.preprocess import Preprocessing

# How far the length of an embedding may be from 1, and how far the cosine of two embeddings of
# one text. bfloat16 is off by 1e-4.
_LENGTH, _SAME = 1e-3, 2e-3
# From this mean cosine on, different pictures or texts get the same embedding.
_ALIKE = 0.999
# The ranges of black and white after normalisation, and of the distance between them. Known
# models have -2.2 to 2.7; the statistics of dark pictures alone give 0 to 10.
_BLACK, _WHITE, _RANGE = (-4.0, 0.5), (0.5, 20.0), (0.5, 20.0)
# How much a mean or deviation may differ from that of the weights.
_OTHER_STATISTICS = 0.02
# The share of truncated captions that is worth a note, and the share that is too large.
_SOME_CUT, _MANY_CUT = 0.01, 0.25
_LONG = "a very long caption that goes on and on, as those of some pictures do, " * 2


def examine_embeddings(about: str, vectors: Vectors, *, ways: str) -> list[Finding]:
    """Check that embeddings ``[N, D]`` of different things are finite, of length 1 and differ."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        return [wrong(about, "some embeddings are not finite numbers", ways)]
    if np.abs(lengths - 1).max() > _LENGTH:
        return [
            wrong(
                about,
                f"the lengths of embeddings are {lengths.min():.3g} to {lengths.max():.3g}, "
                "must be 1",
                "normalise them; otherwise cosines and logits are wrong",
            )
        ]
    count = len(vectors)
    if count >= FEWEST:
        cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
        mean = (cosines.sum() - np.trace(cosines)) / (count * (count - 1))
        if mean > _ALIKE:
            sentence = f"{count} different inputs get the same embedding (mean cosine {mean:.5f})"
            return [
                wrong(about, sentence, "the model sees no difference; check that it is trained")
            ]
    return [fine(about, f"{count} embeddings of {vectors.shape[1]} numbers, all of length 1")]


def examine_padding(about: str, encoder: Encoder, *, text: str) -> list[Finding]:
    """Check that the embedding of a text stays the same in a batch with a longer text."""
    alone, together = encoder.encode_texts([text]), encoder.encode_texts([text, _LONG])
    if alone is None or together is None:
        return []
    cosine = float(alone[0] @ together[0])
    if cosine < 1 - _SAME:
        return [
            wrong(
                about,
                "the embedding of a text changes in a batch with a longer text (cosine "
                f"{cosine:.3f}): the model reads its padding or pools a fixed position, as "
                "SigLIP does",
                "pad texts to the full length, as models of type siglip do",
            )
        ]
    return [fine(about, "the embedding of a text stays the same in a batch with a longer text")]


def examine_statistics(about: str, preprocessing: Preprocessing) -> list[Finding]:
    """Check that mean and standard deviation bring pixels into the range that models see."""
    levels = np.array([[[[0] * 3], [[255] * 3]]], np.uint8)
    values = preprocessing.normalise(levels)[0].reshape(3, 2)
    black, white = (float(values[:, end].mean()) for end in (0, 1))
    sentence = f"black becomes {black:.2f} and white {white:.2f}"
    for value, (least, most) in ((black, _BLACK), (white, _WHITE), (white - black, _RANGE)):
        if not least <= value <= most:
            return [
                wrong(
                    about,
                    f"{sentence}, which is outside the range that models see",
                    "give mean and std for pixels from 0 to 1 (rescale_factor 1/255)",
                )
            ]
    return [fine(about, sentence)]


def statistics_are(
    preprocessing: Preprocessing, mean: Sequence[float], std: Sequence[float]
) -> bool:
    """Tell whether a mean and standard deviation equal the given ones up to rounding."""
    gaps = np.abs(np.subtract([preprocessing.mean, preprocessing.std], [mean, std]))
    return bool(gaps.max() <= _OTHER_STATISTICS)


def slashed(values: Sequence[float]) -> str:
    """Return the numbers of the three channels for a message."""
    return "/".join(f"{value:.3g}" for value in values)


def examine_cut(about: str, cut: int, count: int, length: int, *, ways: str) -> list[Finding]:
    """Check that few of ``count`` captions are truncated after ``length`` tokens."""
    if not count:
        return []
    sentence = f"{cut:,} of {count:,} captions ({cut / count:.0%}) are longer than {length} tokens"
    if cut > _MANY_CUT * count:
        return [wrong(about, sentence, ways)]
    if cut > _SOME_CUT * count:
        return [note(about, sentence, ways)]
    return [fine(about, sentence if cut else f"no caption is longer than {length} tokens")]
