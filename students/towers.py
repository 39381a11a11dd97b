"""The two towers of a student, each of which ends in a projection."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

_PROJECTIONS = ("linear", "mlp")
_POOLINGS = ("mean", "cls")


class ScaledLinear(nn.Linear):
    """A linear layer whose initial weights preserve the variance of its input."""


class Projection(nn.Module):
    """Project a tower's output to the width of the embeddings.

    Args:
        kind: ``"linear"`` is one linear layer, ``"mlp"`` two with a GELU between them.
        inputs: Width of the tower.
        outputs: Width of the embeddings.

    Raises:
        ValueError: ``kind`` is neither ``"linear"`` nor ``"mlp"``.
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
    """A timm backbone without its classifier, followed by a projection.

    The backbone has timm's initial weights. ``students.backbone.load_backbone`` loads pretrained
    ones.

    Args:
        image: The entry ``image`` of a ``StudentConfig``.
        width: Width ``D`` of the embeddings.

    Attributes:
        backbone: The timm model.
        width: Width of the backbone's features.
        projection: The ``Projection`` from the features to the embeddings.
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
        """Embed preprocessed pictures ``[N, 3, H, W]`` as ``[N, D]``, not normalised."""
        embedded: Tensor = self.projection(self.backbone(pixel_values))
        return embedded


class TextTower(nn.Module):
    """A BERT whose tokens are pooled to one vector, followed by a projection.

    Args:
        text: The entry ``text`` of a ``StudentConfig``.
        width: Width ``D`` of the embeddings.

    Attributes:
        encoder: The ``BertModel``, of width ``H``.
        pooling: ``"mean"`` or ``"cls"``; see ``pool``.
        projection: The ``Projection`` from the pooled vector to the embeddings.

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
        """Embed tokens.

        Args:
            input_ids: Token ids, int64 ``[N, L]``.
            attention_mask: ``[N, L]``; a token with 0 is neither attended to nor pooled.
            token_type_ids: BERT's segments ``[N, L]``.
            position_ids: Positions ``[N, L]``.

        Returns:
            Hidden states ``[N, L, H]`` and embeddings ``[N, D]``, not normalised.
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
    """Pool hidden states to one vector per text.

    Args:
        hidden: Hidden states ``[N, L, H]``.
        attention_mask: ``[N, L]``; tokens with 0 are left out.
        kind: ``"mean"`` averages the remaining tokens, ``"cls"`` takes the first of them.

    Returns:
        Pooled vectors ``[N, H]``.
    """
    mask = attention_mask.to(hidden.dtype)
    if kind == "cls":
        first = attention_mask.to(torch.int32).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), first]
    total = torch.einsum("nlh,nl->nh", hidden, mask)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def _check(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: found {value!r}; allowed are {', '.join(allowed)}")
