"""Lock towers for some steps, in which nothing changes them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from students.parts import TOWERS, backbone_of


@contextmanager
def locked_towers(model: nn.Module, *, image: bool, text: bool) -> Iterator[None]:
    """Lock the backbones of towers for a step: forward, backward and the optimizer's step.

    A locked backbone needs no gradient, so its activations are not kept and no backward pass goes
    through it. Its gradients are None, and optimizers skip such parameters: no weight decay, no
    momentum. It is in evaluation mode: batch norms keep their running statistics, and there is no
    dropout. The projection above it keeps learning.

    With several processes, the wrapper must look for unused parameters
    (``find_unused_parameters``), and all processes must lock the same towers in a step.

    Source: Zhai et al. 2022 lock the image tower in this way, https://arxiv.org/abs/2111.07991.

    Args:
        model: The dual encoder, in training mode, without wrappers.
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
