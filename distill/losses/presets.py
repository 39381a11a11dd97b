"""The presets of loss terms: published losses, and our own default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Preset:
    """A named set of terms with their fields; other fields have their defaults."""

    terms: Mapping[str, Mapping[str, Any]]
    source: str


_CLIP_KD = "Yang et al., CVPR 2024, https://arxiv.org/abs/2307.12732"

PRESETS: Mapping[str, _Preset] = {
    # At 0.45 times the teacher's scale, the student spreads its similarities further. Only
    # kl_divergence teaches the student's own scale.
    "default": _Preset(
        terms={
            "corpus_kl": {"weight": 0.5, "temperature": 1.0, "scale": 0.45},
            "corpus_contrastive": {"weight": 0.5, "scale": 0.45},
            "corpus_relational": {"weight": 1.0, "temperature": 1.0, "scale": 0.45},
            "kl_divergence": {"weight": 0.1, "temperature": 1.0},
        },
        source="our own, chosen by benchmarks/quality.py; needs a cached teacher",
    ),
    # CLIP-KD gives weight 2000 to the squared error, averaged over D and summed over both towers.
    # We sum over D and average over towers, so our weight is 2 · 2000 / D, with D = 512.
    "clip_kd": _Preset(
        terms={
            "contrastive": {"weight": 1.0},
            "embedding_alignment": {"weight": 7.8125, "kind": "mse"},
            "kl_divergence": {"weight": 1.0, "temperature": 1.0},
            "interactive_contrastive": {"weight": 1.0},
        },
        source=f"CLIP-KD's task, FD, CRD and ICL losses ({_CLIP_KD})",
    ),
    "tinyclip": _Preset(
        terms={"kl_divergence": {"weight": 1.0, "temperature": 1.0, "scale": "teacher"}},
        source="TinyCLIP's affinity mimicking (Wu et al., ICCV 2023, "
        "https://arxiv.org/abs/2309.12314), at the teacher's scale on both sides",
    ),
    "mobileclip": _Preset(
        terms={
            "contrastive": {"weight": 0.25},
            "kl_divergence": {"weight": 0.75, "temperature": 1.0},
        },
        source="MobileCLIP-B on DataCompDR-1B (Vasu et al., CVPR 2024, "
        "https://arxiv.org/abs/2311.17049)",
    ),
    # 0.7 and 0.3 are the defaults of its code; the user chooses the third weight.
    "dime": _Preset(
        terms={
            "kl_divergence": {"weight": 0.7, "temperature": 1.0},
            "prompt_kl": {"weight": 0.3, "temperature": 1.0},
            "relational": {"weight": 0.1, "temperature": 1.0},
        },
        source="DIME-FM (Sun et al., ICCV 2023, https://arxiv.org/abs/2303.18232), with a bank of "
        "prompts instead of its pseudo-captions; the weight of relational is our own",
    ),
}

# The terms in the default recipe of a student of pictures alone, and the term that labels add.
PICTURES_ALONE: Mapping[str, Any] = {
    "embedding_alignment": 5.0,
    "corpus_relational": {"weight": 1.0, "scale": 0.45},
}
ABOUT_LABELS: Mapping[str, Any] = {"prompt_kl": 1.0}
