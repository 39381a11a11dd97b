"""Checks of the inputs of losses."""

import math

from torch import Tensor

from distill.losses.embeddings import Embeddings


def both_towers(term: str, model: str, embeddings: Embeddings) -> tuple[Tensor, Tensor]:
    """Return the image and text embeddings of the same pairs.

    Raises:
        ValueError: A tower is missing, or the embeddings are not both ``[B, D]``.
    """
    if embeddings.image is None or embeddings.text is None:
        missing = "image" if embeddings.image is None else "text"
        raise ValueError(f"{term}: needs both towers, but the {model} has no {missing} tower")
    image_BD, text_BD = embeddings.image, embeddings.text
    if image_BD.shape != text_BD.shape or image_BD.ndim != 2:
        raise ValueError(
            f"{term}: the {model}'s images are {list(image_BD.shape)} and its texts "
            f"{list(text_BD.shape)}; both must be [B, D] of the same pairs"
        )
    return image_BD, text_BD


def common_towers(
    term: str, student: Embeddings, teacher: Embeddings
) -> list[tuple[str, Tensor, Tensor]]:
    """Return the name and both models' embeddings of each tower that both have.

    Raises:
        ValueError: The models have no tower in common, or the batches of a tower differ.
    """
    towers = [
        (tower, ours, theirs)
        for tower, ours, theirs in (
            ("image", student.image, teacher.image),
            ("text", student.text, teacher.text),
        )
        if ours is not None and theirs is not None
    ]
    if not towers:
        raise ValueError(
            f"{term}: student and teacher have no tower in common; "
            "give the images of both or the texts of both"
        )
    for tower, ours, theirs in towers:
        check_same_batch(term, ours, theirs, what=f"{tower} rows")
    return towers


def check_same_batch(term: str, ours: Tensor, theirs: Tensor, *, what: str = "rows") -> None:
    """Raise a ValueError unless student and teacher have the same number of rows."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"{term}: the student has {len(ours)} {what}, but the teacher has {len(theirs)}; "
            "both must embed the same batch"
        )


def check_same_width(term: str, ours: Tensor, theirs: Tensor, *, tower: str = "") -> None:
    """Raise a ValueError unless student and teacher have the same width."""
    if ours.shape[-1] != theirs.shape[-1]:
        tower = f"{tower} " if tower else ""
        raise ValueError(
            f"{term}: the student's {tower}width is {ours.shape[-1]}, but the "
            f"teacher's is {theirs.shape[-1]}; they must be equal"
        )


def check_temperature(term: str, temperature: float) -> None:
    """Raise a ValueError unless a temperature is a finite number above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"{term}: temperature is {temperature}; it must be above 0")


def check_groups(term: str, groups: Tensor | None, rows: Tensor) -> Tensor | None:
    """Return the group ids on the device of the rows.

    Raises:
        ValueError: The groups are not one id for each row.
    """
    if groups is None:
        return None
    if groups.shape != rows.shape[:1]:
        raise ValueError(
            f"{term}: groups is {list(groups.shape)}; it must be [{len(rows)}], one id for each row"
        )
    return groups.to(rows.device)
