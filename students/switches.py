"""Switches of the towers that change time and memory, and not what the towers compute."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.module_tracker import ModuleTracker
from transformers import PreTrainedModel

from students.messages import ERRORS, shorten
from students.parts import TOWERS, backbone_of


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Keep few activations of both towers, and compute the others again in the backward pass.

    The gradient stays the same, dropout included. Batch norms that run twice for it use the
    statistics of their batch both times, and add them to the running ones once.

    Raises:
        ValueError: A tower cannot do it; one line that names it.
    """
    for tower in TOWERS:
        backbone = backbone_of(model, tower)
        if backbone is None:
            continue
        try:
            _checkpointing_switch(backbone)()
        except ERRORS as error:
            raise ValueError(
                f"train.gradient_checkpointing: the {tower} tower, {type(backbone).__name__}, "
                f"cannot do it ({shorten(error)}); set it to false, or take another tower"
            ) from error
        for module in backbone.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                counting = _CountOnce()
                module.register_forward_pre_hook(counting.before)
                module.register_forward_hook(counting.after, always_call=True)


def compile_towers(model: PreTrainedModel, *, backend: str = "inductor") -> None:
    """Compile both towers in place with ``torch.compile``, when they first see an input.

    Names of parameters stay as they are, so that weights are saved and loaded as before. Inputs
    of another size, such as longer texts, compile once more, for any size from then on.
    """
    for tower in TOWERS:
        if (backbone := backbone_of(model, tower)) is not None:
            backbone.compile(backend=backend)


def choose_memory_format(
    model: PreTrainedModel, *, wanted: bool | None, device: torch.device
) -> torch.memory_format:
    """Lay out the weights of the image tower, and return the layout that its pictures should have.

    Args:
        model: A dual encoder.
        wanted: Whether channels come last; None: for convolutional towers on CUDA and CPUs.
        device: Where the tower runs.
    """
    backbone = backbone_of(model, "image")
    last = wanted
    if last is None:
        known = device.type in ("cuda", "cpu")
        last = known and backbone is not None and is_convolutional(backbone)
    chosen = torch.channels_last if last else torch.contiguous_format
    if backbone is not None:
        convert: Any = backbone.to
        convert(memory_format=chosen)
    return chosen


def is_convolutional(backbone: nn.Module) -> bool:
    """Whether a tower is built of convolutions, and has not just one that cuts patches."""
    return sum(_looks_around(module) for module in backbone.modules()) > 1


def _looks_around(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def _checkpointing_switch(backbone: nn.Module) -> Callable[[], Any]:
    if isinstance(backbone, PreTrainedModel):
        return lambda: _checkpoint_transformer(backbone)
    enable = getattr(backbone, "set_grad_checkpointing", None)
    if enable is None:
        raise ValueError("it has no set_grad_checkpointing")
    return lambda: enable(True)


def _checkpoint_transformer(backbone: PreTrainedModel) -> None:
    # Newer releases of transformers have a new name for it, and warn of the old one.
    name = "activation_checkpointing_enable"
    enable = getattr(backbone, name, None) or backbone.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # Only re-entrant checkpoints need it; a locked tower would be differentiated for nothing.
    backbone.disable_input_require_grads()


class _CountOnce:
    """Keeps a batch norm from adding a batch to its running statistics for the second time.

    It is told apart by where it happens: a forward call in the backward pass is one made again.
    """

    def __init__(self) -> None:
        self._momentum: float | None = None
        self._repeated = False

    def before(self, norm: nn.Module, _inputs: Any) -> None:
        self._repeated = _TRACKER.is_bw and norm.training
        if self._repeated and isinstance(norm, _BatchNorm):
            # With momentum 0 the running statistics are multiplied by one.
            self._momentum, norm.momentum = norm.momentum, 0.0

    def after(self, norm: nn.Module, _inputs: Any, _output: Any) -> None:
        if self._repeated and isinstance(norm, _BatchNorm):
            norm.momentum = self._momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
            self._repeated = False


_TRACKER = ModuleTracker()
