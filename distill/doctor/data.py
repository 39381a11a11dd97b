"""What the doctor looks for in pictures and captions."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.data.folder import is_picture
from distill.doctor.finding import Finding, fine, note, wrong

# Fewer than so many say nothing about all of them.
FEWEST = 8
# A share of the sample from which something is taken for the rule and not for chance.
MOST = 0.5
# Pictures are compared at so many pixels a side.
THUMBNAIL = 16
# Levels of 255 by which a picture has to differ from one grey, or from another picture.
SAME = 2.0
# Neighbours in photographs correlate by 0.8 and more, in pure noise by 0; a corner will do to see.
NOISE, CORNER = 0.2, 256

CAPTIONS, PICTURES = "captions", "pictures"
_CODE = re.compile(r"[A-Za-z]{0,5}[-_ ]?[0-9][0-9a-fA-F_-]{2,}")


def examine_captions(captions: Sequence[str], keys: Sequence[str]) -> list[Finding]:
    """Look at a caption of each picture; ``keys`` are what the pictures are found by."""
    if not captions:
        return [note(CAPTIONS, "no picture of the sample has one", "give captions, if it should")]
    if len(captions) < FEWEST:
        return [fine(CAPTIONS, f"{len(captions)}, too few to say more")]
    text, count = Counter(captions).most_common(1)[0]
    if count == len(captions):
        return [
            wrong(
                CAPTIONS,
                f"all {count} that were looked at are {_short(text)}",
                "a student cannot tell pictures apart by them; name the column that holds the text",
            )
        ]
    named = sum(map(is_file_name, captions, keys))
    if named > MOST * len(captions):
        return [
            wrong(
                CAPTIONS,
                f"{named} of {len(captions)} are names of files, such as {_short(captions[0])}",
                "name the column that holds the text (caption_column)",
            )
        ]
    if count > MOST * len(captions):
        return [
            note(
                CAPTIONS,
                f"{count} of {len(captions)} are {_short(text)}",
                "see that the captions are what people wrote",
            )
        ]
    return [fine(CAPTIONS, f"{len(set(captions))} different ones in {len(captions)}")]


def is_file_name(caption: str, key: str) -> bool:
    """Tell whether a caption is the name of a file, its picture's or any, or a bare number."""
    text = caption.strip()
    place = PurePath(key)
    if text.casefold() in {key.casefold(), place.name.casefold(), place.stem.casefold()}:
        # A folder's pictures may well be called by what they show.
        return any(character.isdigit() for character in text) or text != text.replace("_", " ")
    return is_picture(text) or bool(_CODE.fullmatch(text))


def examine_pictures(pictures: Sequence[Image.Image]) -> list[Finding]:
    """Look whether pictures differ, from each other and from one colour, and are no noise."""
    if len(pictures) < FEWEST:
        return [fine(PICTURES, f"{len(pictures)}, too few to say more")]
    small = np.stack([_thumbnail(picture) for picture in pictures])
    flat = int(np.count_nonzero(small.std(axis=(1, 2)).max(axis=1) < SAME))
    if flat > MOST * len(small):
        return [
            wrong(
                PICTURES,
                f"{flat} of {len(small)} are of one colour",
                "see that the files are what they should be",
            )
        ]
    alike = most_alike(small)
    if alike > MOST * len(small):
        return [
            wrong(
                PICTURES,
                f"{alike} of {len(small)} are the same picture",
                "see that the table names the right files, and that no synthetic loader is on",
            )
        ]
    noisy = int(np.count_nonzero([likeness(np.asarray(one)) < NOISE for one in pictures]))
    if noisy > MOST * len(small):
        return [
            wrong(
                PICTURES,
                f"{noisy} of {len(small)} are noise: their neighbouring pixels have nothing in "
                "common",
                "see that no synthetic loader is on",
            )
        ]
    return [fine(PICTURES, f"{len(small)} that differ")]


def most_alike(small: NDArray[np.float64]) -> int:
    """Return how many of the thumbnails ``[N, H, W, 3]`` look like one of them, the most."""
    rows = small.reshape(len(small), -1)
    return max(int(np.count_nonzero(np.abs(rows - row).mean(axis=1) < SAME)) for row in rows)


def likeness(pixels: NDArray[np.uint8]) -> float:
    """Return the correlation of neighbouring pixels of a picture, 1 where it is of one colour."""
    grey = pixels[:CORNER, :CORNER].astype(np.float64).mean(axis=2)
    left, right = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if len(left) < 2 or left.std() == 0 or right.std() == 0:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])


def examine_batch(batch_size: int, terms: Sequence[str], *, least: int = 64) -> list[Finding]:
    """Look whether a batch has enough pairs to tell the true ones from."""
    told = [name for name in terms if name in CONTRASTIVE]
    if not told or batch_size >= least:
        return [fine("batch", f"{batch_size} pictures a step")]
    return [
        wrong(
            "batch",
            f"train.batch_size is {batch_size}, and {', '.join(told)} tells a pair from the "
            "others of its batch",
            f"set it to {least} or more, with train.micro_batch_size where memory is short",
        )
    ]


# What compares each pair with the others of its batch alone.
CONTRASTIVE = ("contrastive", "interactive_contrastive", "sigmoid_contrastive", "soft_target")


def _thumbnail(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
