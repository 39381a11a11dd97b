"""Which parts a dual encoder has: its towers, their backbones, and the projections above them."""

from typing import Literal

from torch import nn

from students.towers import ImageTower, TextTower

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, ...] = ("image", "text")
# How transformers calls the parts of its dual encoders.
_FIRST_WORDS: dict[TowerName, tuple[str, ...]] = {
    "image": ("image", "vision", "visual"),
    "text": ("text",),
}


def tower_of(name: str) -> TowerName | None:
    """Return the tower that a parameter or module of a dual encoder belongs to, by its name.

    A leading ``model.``, of what wraps the encoder in training, counts for nothing. The logit
    scale and whatever else is shared belongs to no tower.
    """
    first = _words(name)[0]
    for tower, words in _FIRST_WORDS.items():
        if first.startswith(words):
            return tower
    return None


def is_projection(name: str) -> bool:
    """Whether a parameter or module leads from a tower's own width to the embedding's."""
    first, *rest = _words(name)
    if tower_of(first) is None:
        return False
    return "proj" in first or (first.endswith("_tower") and rest[:1] == ["projection"])


def backbone_of(model: nn.Module, tower: TowerName) -> nn.Module | None:
    """Return a tower without its projection, or None where there is no such tower.

    The heads that some towers of transformers end in (SigLIP's pooling) are part of it.
    """
    own = getattr(model, f"{tower}_tower", None)
    if isinstance(own, ImageTower | TextTower):
        backbone: nn.Module = own.backbone if isinstance(own, ImageTower) else own.encoder
        return backbone
    for name, child in model.named_children():
        learned = any(True for _ in child.parameters())
        if learned and tower_of(name) == tower and not is_projection(name):
            return child
    return None


def _words(name: str) -> list[str]:
    return name.removeprefix("model.").split(".")
