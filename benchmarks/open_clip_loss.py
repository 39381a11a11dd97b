"""open_clip's own distillation loss behind the interface of our losses."""

import argparse
from typing import Any

import open_clip
import torch
from torch import Tensor

from distill.losses.embeddings import Embeddings
from distill.losses.weighted import Term, WeightedLoss


class OpenClipLoss(WeightedLoss):
    """open_clip's distillation loss instead of ours; the sum of its two terms is one number."""

    def __init__(self) -> None:
        """Create the loss as open_clip's own training does."""
        # Its parts under our names, for callers that ask for the terms.
        super().__init__({"contrastive": Term(1.0), "kl_divergence": Term(1.0)})
        names = ("local_loss", "gather_with_grad", "horovod", "siglip")
        arguments = argparse.Namespace(**dict.fromkeys(names, False))
        arguments.distill, arguments.rank, arguments.world_size = True, 0, 1
        arguments.model = ""
        self._loss = open_clip.create_loss(arguments)

    def only(self, *_names: str) -> "OpenClipLoss":
        """Return self, because its two parts cannot be separated."""
        return self

    def __call__(
        self,
        student: Embeddings,
        teacher: Embeddings | None,
        **_others: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the contrastive and distillation parts, and each part."""
        if teacher is None:
            raise ValueError("open_clip's distillation loss needs a teacher")
        parts: dict[str, Tensor] = self._loss(
            image_features=student.image,
            text_features=student.text,
            logit_scale=student.scale,
            dist_image_features=teacher.image,
            dist_text_features=teacher.text,
            dist_logit_scale=teacher.scale,
            output_dict=True,
        )
        return torch.stack(list(parts.values())).sum(), {
            name: value.detach() for name, value in parts.items()
        }
