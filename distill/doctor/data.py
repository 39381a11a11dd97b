"""The doctor's visit to the data: what it examines in pictures, captions and classes."""

import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.basis.words import shorten
from distill.data.pictures import is_picture
from distill.doctor._samples import FEWEST, Drawn, ReadOnlyProject, draw_samples
from distill.doctor.finding import Finding, attempt, fine, note, wrong
from distill.doctor.recipe import examine_length
from distill.evaluate.compare import check_set
from export.runtime.errors import visible

# The shares of the sample above which a fault counts as common, and as affecting everything.
_MOST, _ALL = 0.5, 0.98
# The sides in pixels at which pictures are compared.
_THUMBNAIL = 16
# Two pictures, or a picture and one colour, are the same if they differ by less than this, of 255.
_SAME = 1.0
# Neighbouring pixels of photographs correlate by 0.8 and more, those of pure noise by 0. The
# middle of a picture is enough. If it has nearly one colour, only the sensor's noise is left.
_NOISE, _PART, _LOUD = 0.2, 256, 20.0

_NUMBERED = re.compile(r"[A-Za-z]{0,5}[-_ ]?[0-9][0-9a-fA-F_-]{2,}")


def examine_data(project: ReadOnlyProject) -> Generator[Finding, None, list[Drawn] | None]:
    """Yield the findings about the data; return a sample of each source, None if one is refused."""
    refused: list[Finding] = []
    sources = attempt("data", lambda: project.sources, refused)
    if sources is None:
        yield from refused
        return None
    samples = [
        draw_samples(source, seed=project.config.seed, number=number)
        for number, source in enumerate(sources)
    ]
    for drawn in samples:
        name = f" of {visible(drawn.source.name)}" if len(samples) > 1 else ""
        yield from _examine_source(drawn, name=name)
    if project.skips:
        first = project.skips[0]
        yield note(
            "data",
            f"{len(project.skips):,} rows or pictures are left out; the first is "
            f"{visible(first.where)}: {first.reason}",
            "a run lists all of them in its skipped.jsonl",
        )
    labels = attempt("labels", lambda: project.labels, refused)
    yield from examine_labels("labels", labels.names if labels is not None else ())
    total = sum(len(source) for source in sources)
    steps = attempt("length", partial(_steps, project), refused)
    sets = attempt("evaluate", lambda: project.evaluation_sets, refused)
    for entry in sets or ():
        attempt(f"evaluate {entry.name}", partial(check_set, entry), refused)
    yield from refused
    if steps is not None:
        yield from examine_length(project.config, steps=steps, pictures=total)
    return samples


def _steps(project: ReadOnlyProject) -> int:
    # Building the order of the samples checks that a batch fits.
    _ = project.position
    return project.steps


def _examine_source(drawn: Drawn, *, name: str) -> Iterator[Finding]:
    tried = len(drawn.pictures) + len(drawn.unreadable)
    yield from examine_readable(f"pictures{name}", drawn.unreadable, tried)
    yield from examine_pictures(f"pictures{name}", drawn.pictures)
    if drawn.captions:
        yield from examine_captions(f"captions{name}", drawn.captions, drawn.keys)
    labels = [sample.label for sample in drawn.samples if sample.label is not None]
    yield from examine_labels(f"classes{name}", labels)


def examine_captions(about: str, captions: Sequence[str], keys: Sequence[str]) -> list[Finding]:
    """Check the first caption of each picture; ``keys`` are the keys of the pictures."""
    if len(captions) < FEWEST:
        return [fine(about, f"{len(captions)} in the sample, too few to judge")]
    text, count = Counter(captions).most_common(1)[0]
    if count > _ALL * len(captions):
        return [
            wrong(
                about,
                f"{count} of {len(captions)} in the sample are {shorten(text)}",
                "such captions do not tell pictures apart; name the column that holds the text "
                "(caption_column), or leave captions out",
            )
        ]
    named = list(map(_is_file_name, captions, keys))
    if sum(named) > _MOST * len(captions):
        example = captions[named.index(True)]
        return [
            wrong(
                about,
                f"{sum(named)} of {len(captions)} are file names or numbers, such as "
                f"{shorten(example)}",
                "name the column that holds the text (caption_column)",
            )
        ]
    if count > _MOST * len(captions):
        return [
            note(
                about,
                f"{count} of {len(captions)} are {shorten(text)}",
                "check that this is what people wrote",
            )
        ]
    return [fine(about, f"{len(set(captions))} different ones in a sample of {len(captions)}")]


def _is_file_name(caption: str, key: str) -> bool:
    """Tell whether a caption is a bare number, or the name of its picture or of any file."""
    text = caption.strip()
    place = PurePath(key)
    if text.casefold() in {key.casefold(), place.name.casefold(), place.stem.casefold()}:
        # A picture may be named after what it shows: bonsai.jpg, red car.jpg.
        return any(character.isdigit() or character in "_./\\" for character in text)
    return is_picture(text) or "://" in text or bool(_NUMBERED.fullmatch(text))


def examine_labels(about: str, labels: Sequence[str]) -> list[Finding]:
    """Check that classes have names that a text tower understands."""
    numbered = [label for label in dict.fromkeys(labels) if _NUMBERED.fullmatch(label)]
    if not labels or len(numbered) <= _MOST * len(set(labels)):
        return []
    return [
        wrong(
            about,
            f"{len(numbered)} of {len(set(labels))} are codes, such as {shorten(numbered[0])}",
            "captions are made of class names, and a text tower does not know codes; give readable "
            "names (classes)",
        )
    ]


def examine_pictures(about: str, pictures: Sequence[Image.Image]) -> list[Finding]:
    """Check that pictures differ from each other, have several colours and are not noise."""
    count = len(pictures)
    if count < FEWEST:
        return [fine(about, f"{count} in the sample, too few to judge")]
    small = np.stack([_thumbnail(picture) for picture in pictures])
    flat = int(np.count_nonzero(small.std(axis=(1, 2)).max(axis=1) < _SAME))
    if flat > _MOST * count:
        return [
            wrong(
                about,
                f"{flat} of {count} are of one colour",
                "check that these are the right files, and that no synthetic loader is in use",
            )
        ]
    alike = _most_alike(small)
    if alike > _MOST * count:
        return [
            wrong(
                about,
                f"{alike} of {count} are the same picture",
                "check that these are the right files, and that no synthetic loader is in use",
            )
        ]
    noisy = sum(_is_noise(np.asarray(picture)) for picture in pictures)
    if noisy > _MOST * count:
        return [
            wrong(
                about,
                f"{noisy} of {count} are noise: neighbouring pixels are unrelated",
                "check that no synthetic loader is in use",
            )
        ]
    return [fine(about, f"{count} that differ from each other")]


def _most_alike(small: NDArray[np.float64]) -> int:
    """Return the size of the largest group of like thumbnails ``[N, H, W, 3]``."""
    rows = small.reshape(len(small), -1)
    return max(int(np.count_nonzero(np.abs(rows - row).mean(axis=1) < _SAME)) for row in rows)


def _is_noise(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether neighbours in the middle of a picture ``[H, W, 3]`` vary and are unrelated."""
    top, left = (max(0, (side - _PART) // 2) for side in pixels.shape[:2])
    part = pixels[top : top + _PART, left : left + _PART]
    grey = part.astype(np.float64).mean(axis=2)
    one, other = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if len(one) < _THUMBNAIL or min(one.std(), other.std()) < _LOUD:
        return False
    return float(np.corrcoef(one, other)[0, 1]) < _NOISE


def examine_readable(about: str, unreadable: Sequence[str], count: int) -> list[Finding]:
    """Check how many of ``count`` pictures cannot be read; ``unreadable`` are the reasons."""
    if not unreadable:
        return []
    sentence = f"{len(unreadable)} of {count} cannot be read: {unreadable[0]}"
    if len(unreadable) > _MOST * count:
        return [wrong(about, sentence, "repair these files, or leave them out")]
    return [
        note(about, sentence, "a run skips unreadable pictures, but stops above data.max_skipped")
    ]


def _thumbnail(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.float64)
