"""Locking towers for a while: what is locked is neither trained nor moved in any other way."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from students.parts import TOWERS, backbone_of


@contextmanager
def locked_towers(model: nn.Module, *, image: bool, text: bool) -> Iterator[None]:
    """Lock the backbones of towers for a step: forward, backward and the optimizer's step.

    A locked backbone needs no gradient, so that no activation of it is kept and no backward pass
    goes through it; its gradients are None, which optimizers leave alone altogether: no weight
    decay, no momentum. It is in evaluation mode: batch norms keep their running statistics, and
    there is no dropout. The projection above it goes on learning (Zhai et al. 2022,
    https://arxiv.org/abs/2111.07991, lock the image tower so).

    With several processes the wrapper has to look for parameters that take no part
    (``find_unused_parameters``) and all processes lock the same towers in a step.

    Args:
        model: The dual encoder itself, in training mode, without wrappers.
        image: Whether the image tower is locked.
        text: Whether the text tower is locked.
    """
    wanted = {"image": image, "text": text}
    backbones = [
        backbone
        for tower in TOWERS
        if wanted[tower] and (backbone := backbone_of(model, tower)) is not None
    ]
    learning = [
        parameter
        for backbone in backbones
        for parameter in backbone.parameters()
        if parameter.requires_grad
    ]
    training = [
        module for backbone in backbones for module in backbone.modules() if module.training
    ]
    for parameter in learning:
        parameter.requires_grad_(False)
        parameter.grad = None
    for backbone in backbones:
        backbone.eval()
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True
