"""The section of a recipe on WebDataset shards."""

from typing import Literal

from distill.recipe.base import Positive, Section, Text


class ShardsSource(Section):
    """WebDataset tars: pictures with txt, json or cls members of the same name."""

    kind: Literal["shards"] = "shards"
    """WebDataset tars."""
    path: Text
    """A tar, a folder of tars, or a pattern ({000..099}, *); local, or an address of fsspec."""
    weight: Positive | None = None
    """Share of the samples drawn from this source, relative to the others; null: its size."""
    caption_key: Text | None = None
    """Key of a json member with a caption or a list; null: captions, else txt, else caption."""
    classnames: Text | None = None
    """File with a class a line, for the numbers of cls members; null: classnames.txt near them."""
