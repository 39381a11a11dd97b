"""Switches that trade time for memory without changing what the towers compute."""

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
    """Keep only a few activations of both towers, and recompute the rest in the backward pass.

    Gradients stay the same, dropout included. A batch norm that runs twice uses the statistics of
    its batch both times, but adds them to its running statistics once.

    Args:
        model: A dual encoder.

    Raises:
        ValueError: A tower does not support this. The message is one line that names the tower.
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
                f"does not support it ({shorten(error)}); set it to false, or choose another tower"
            ) from error
        for module in backbone.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                counting = _CountOnce()
                module.register_forward_pre_hook(counting.before)
                module.register_forward_hook(counting.after, always_call=True)


def compile_towers(model: PreTrainedModel, *, backend: str = "inductor") -> None:
    """Compile both towers in place with ``torch.compile``.

    A tower compiles when it sees its first input. If a later input has another size, such as a
    longer text, the tower compiles once more, this time for all sizes. Parameters keep their
    names, so weights are saved and loaded as before.

    Args:
        model: A dual encoder.
        backend: The backend of ``torch.compile``.
    """
    for tower in TOWERS:
        if (backbone := backbone_of(model, tower)) is not None:
            backbone.compile(backend=backend)


def choose_memory_format(
    model: PreTrainedModel, *, wanted: bool | None, device: torch.device
) -> torch.memory_format:
    """Choose the memory format of the image tower, and convert its weights to it.

    Args:
        model: A dual encoder.
        wanted: Whether channels come last; ``None`` means they do for convolutional towers on
            CUDA and on CPUs.
        device: The device that the tower runs on.

    Returns:
        The memory format that the pictures should have.
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
    """Tell whether a tower is convolutional, not a transformer with one patch convolution."""
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
    # Newer releases of transformers rename this method and warn about the old name.
    name = "activation_checkpointing_enable"
    enable = getattr(backbone, name, None) or backbone.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # Only re-entrant checkpoints need input gradients. A frozen tower would compute them in vain.
    backbone.disable_input_require_grads()


class _CountOnce:
    """Keep a batch norm from adding a batch to its running statistics twice.

    A forward call during the backward pass is a repeated one.
    """

    def __init__(self) -> None:
        self._momentum: float | None = None
        self._repeated = False

    def before(self, norm: nn.Module, _inputs: Any) -> None:
        self._repeated = _TRACKER.is_bw and norm.training
        if self._repeated and isinstance(norm, _BatchNorm):
            # With momentum 0 the running statistics do not change.
            self._momentum, norm.momentum = norm.momentum, 0.0

    def after(self, norm: nn.Module, _inputs: Any, _output: Any) -> None:
        if self._repeated and isinstance(norm, _BatchNorm):
            norm.momentum = self._momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
            self._repeated = False


_TRACKER = ModuleTracker()
