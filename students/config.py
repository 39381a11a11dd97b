"""The configuration that is saved beside a student's weights."""

from typing import Any

from transformers import PreTrainedConfig


class StudentConfig(PreTrainedConfig):
    """What a ``StudentModel`` is made of; one of the towers may be ``None``.

    ``image`` holds ``backbone`` (a timm name), ``arguments`` (keyword arguments for
    ``timm.create_model``) and ``projection`` (``"linear"`` or ``"mlp"``).

    ``text`` holds ``config`` (the fields of a ``BertConfig``), ``pooling`` (``"mean"`` or
    ``"cls"``), ``projection`` and ``context_length`` (the most tokens that a text may have).

    ``projection_dim`` is the width of the embeddings, ``logit_scale_init_value`` the natural
    logarithm of the scale that similarities start with, and ``initializer_range`` the standard
    deviation of weights that neither timm nor transformers initialises. ``tie_word_embeddings``
    has transformers keep tensors that a backbone shares among its layers one tensor.
    """

    model_type = "clip-distill-student"

    image: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
