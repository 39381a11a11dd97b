"""The two towers of a student and the projections that end them."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

_PROJECTIONS = ("linear", "mlp")
_POOLINGS = ("mean", "cls")


class ScaledLinear(nn.Linear):
    """A linear layer whose new weights keep the variance of what it is given."""


class Projection(nn.Module):
    """From a tower's width to the width of the embeddings: one linear layer, or two with a GELU.

    Args:
        kind: ``"linear"`` or ``"mlp"``.
        inputs: Width of the tower.
        outputs: Width of the embeddings.

    Raises:
        ValueError: ``kind`` is neither of the two.
    """

    def __init__(self, kind: str, inputs: int, outputs: int) -> None:
        super().__init__()
        _check("projection", kind, _PROJECTIONS)
        last = ScaledLinear(inputs, outputs, bias=False)
        hidden = [ScaledLinear(inputs, inputs), nn.GELU()] if kind == "mlp" else []
        self.layers = nn.Sequential(*hidden, last)

    def forward(self, pooled: Tensor) -> Tensor:
        """Turn ``[N, inputs]`` into ``[N, outputs]``."""
        projected: Tensor = self.layers(pooled)
        return projected


class ImageTower(nn.Module):
    """A timm backbone without its classifier, and a projection.

    The backbone starts as timm initialises it; pretrained weights are put in from outside.

    Args:
        image: The entry ``image`` of a ``StudentConfig``.
        width: Width of the embeddings.
    """

    def __init__(self, image: Mapping[str, Any], width: int) -> None:
        super().__init__()
        arguments = dict(image.get("arguments") or {})
        self.backbone = timm.create_model(
            image["backbone"], pretrained=False, num_classes=0, **arguments
        )
        self.width = int(self.backbone.head_hidden_size)
        self.projection = Projection(image.get("projection", "linear"), self.width, width)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed pictures ``[N, 3, H, W]``, scaled and normalised, as ``[N, D]``."""
        embedded: Tensor = self.projection(self.backbone(pixel_values))
        return embedded


class TextTower(nn.Module):
    """A BERT, its tokens pooled to one vector, and a projection.

    Args:
        text: The entry ``text`` of a ``StudentConfig``.
        width: Width of the embeddings.

    Raises:
        ValueError: The pooling is neither ``"mean"`` nor ``"cls"``.
    """

    def __init__(self, text: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.pooling = text.get("pooling", "mean")
        _check("pooling", self.pooling, _POOLINGS)
        config = BertConfig(**text["config"])
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.projection = Projection(text.get("projection", "linear"), config.hidden_size, width)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed tokens ``[N, L]``: hidden states ``[N, L, H]`` and embeddings ``[N, D]``.

        Where ``attention_mask`` is 0, a token is neither attended to nor pooled.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden: Tensor = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            use_cache=False,
        ).last_hidden_state
        return hidden, self.projection(pool(hidden, attention_mask, self.pooling))


def pool(hidden: Tensor, attention_mask: Tensor, kind: str) -> Tensor:
    """Pool hidden states ``[N, L, H]`` to ``[N, H]`` under a mask ``[N, L]`` of zeros and ones.

    ``"mean"`` averages the tokens that the mask leaves, ``"cls"`` takes the first of them.
    """
    mask = attention_mask.to(hidden.dtype)
    if kind == "cls":
        first = attention_mask.to(torch.int32).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), first]
    total = torch.einsum("nlh,nl->nh", hidden, mask)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def _check(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} does not exist; allowed are {', '.join(allowed)}")
