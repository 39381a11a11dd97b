"""Find the parts of a dual encoder: its towers, their backbones and their projections."""

from typing import Literal

from torch import nn

from students.towers import ImageTower, TextTower

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, ...] = ("image", "text")
# How the parts of the dual encoders of transformers are named.
_FIRST_WORDS: dict[TowerName, tuple[str, ...]] = {
    "image": ("image", "vision", "visual"),
    "text": ("text",),
}


def tower_of(name: str) -> TowerName | None:
    """Return the tower that a parameter or module of a dual encoder belongs to.

    Args:
        name: The name of the parameter or module. A leading ``model.``, which the wrapper in
            training adds, is ignored.

    Returns:
        The tower, or ``None`` for shared parts such as the logit scale.
    """
    first = _words(name)[0]
    for tower, words in _FIRST_WORDS.items():
        if first.startswith(words):
            return tower
    return None


def is_projection(name: str) -> bool:
    """Tell whether a parameter or module projects a tower's output to the embedding.

    Args:
        name: The name of the parameter or module, as for ``tower_of``.
    """
    first, *rest = _words(name)
    if tower_of(first) is None:
        return False
    return "proj" in first or (first.endswith("_tower") and rest[:1] == ["projection"])


def backbone_of(model: nn.Module, tower: TowerName) -> nn.Module | None:
    """Return a tower without its projection, or ``None`` if the model lacks the tower.

    Heads such as SigLIP's pooling belong to the backbone.

    Args:
        model: A dual encoder.
        tower: Which tower.
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
