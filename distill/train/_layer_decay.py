"""Layer-wise decay of learning rates: each parameter belongs to a layer of its tower."""

from collections.abc import Iterator

from timm.models import group_parameters
from timm.optim import auto_group_layers
from torch import nn

from students.parts import TOWERS, TowerName, is_projection, tower_of
from students.towers import ImageTower

_LOWEST, _LAYERS, _PROJECTION = range(3)


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Return ``decay ** d`` by parameter name, d being the number of layers below the highest.

    The projection is the highest layer of its tower. The layers of a timm backbone are those that
    timm groups. In any other tower, a parameter's layer is the number of the outermost repeated
    layer in its name. Embeddings are the lowest layer. Anything after the last repeated layer
    counts as part of it. Each tower counts its own layers.

    Source: BEiT, https://arxiv.org/abs/2106.08254, as implemented in timm.
    """
    factors: dict[str, float] = {}
    known = dict(_timm_layers(model))
    for tower in TOWERS:
        places = _places(model, tower, known)
        order = {place: number for number, place in enumerate(sorted(set(places.values())))}
        factors |= {
            name: decay ** (len(order) - 1 - order[place]) for name, place in places.items()
        }
    return factors


def _timm_layers(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the parameters of timm backbones with their layers, counted from 0."""
    for path, module in model.named_modules():
        if not isinstance(module, ImageTower):
            continue
        backbone = module.backbone
        if hasattr(backbone, "group_matcher"):
            matcher = backbone.group_matcher(coarse=False)
            layers = group_parameters(backbone, matcher, reverse=True)
        else:
            layers = auto_group_layers(backbone)
        prefix = f"{path}.backbone." if path else "backbone."
        for name, layer in layers.items():
            yield prefix + name, layer


def _places(
    model: nn.Module, tower: TowerName, known: dict[str, int]
) -> dict[str, tuple[int, int]]:
    """Return each parameter's place; places sort from the lowest layer to the projection."""
    places: dict[str, tuple[int, int]] = {}
    last = (_LOWEST, 0)
    for name, _ in model.named_parameters():
        if tower_of(name) != tower:
            continue
        numbers = [int(word) for word in name.split(".") if word.isdigit()]
        if is_projection(name):
            places[name] = (_PROJECTION, 0)
        elif name in known:
            places[name] = (_LAYERS, known[name])
        else:
            # Modules are registered from bottom to top. A parameter without a number is below the
            # first layer, or belongs to the layer before it.
            last = (_LAYERS, numbers[0]) if numbers else last
            places[name] = last
    return places
