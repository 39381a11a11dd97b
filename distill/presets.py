"""The terms of a loss and the presets that weigh them: data, shared by recipes and losses.

The functions themselves stand in distill/losses.py, the arguments' ranges in
distill/config_losses.py. Nothing is imported here that a loss would not want to wait for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Needs:
    """What a term cannot be computed without.

    ``teacher``: a teacher's embeddings. ``pairs``: captions that truly belong to their picture;
    rows with a borrowed caption are left out. ``texts``: captions at all, and a student that has
    both towers. ``equal_width``: a student as wide as the teacher.
    """

    teacher: bool = False
    pairs: bool = False
    texts: bool = False
    equal_width: bool = False


NEEDS: Mapping[str, Needs] = {
    "kl_divergence": Needs(teacher=True, texts=True),
    "embedding_alignment": Needs(teacher=True, equal_width=True),
    "contrastive": Needs(pairs=True, texts=True),
}


@dataclass(frozen=True)
class Preset:
    """A named set of terms; what a term leaves out has the value of the term's own default."""

    terms: Mapping[str, Mapping[str, Any]]
    source: str


PRESETS: Mapping[str, Preset] = {
    "default": Preset(
        terms={
            "kl_divergence": {"weight": 1.0},
            "embedding_alignment": {"weight": 5.0, "kind": "cosine"},
        },
        source="our own choice; the terms are CRD and FD of CLIP-KD (Yang et al., CVPR 2024)",
    ),
}
