"""The configuration that is saved with a student's weights."""

from typing import Any

from transformers import PreTrainedConfig


class StudentConfig(PreTrainedConfig):
    """The towers of a ``StudentModel`` and the width of its embeddings.

    One of the towers may be ``None``. Transformers saves the fields in ``config.json``.

    Attributes:
        image: The image tower: ``backbone`` (a timm name), ``arguments`` (keyword arguments for
            ``timm.create_model``) and ``projection`` (``"linear"`` or ``"mlp"``).
        text: The text tower: ``config`` (the fields of a ``BertConfig``), ``pooling``
            (``"mean"`` or ``"cls"``), ``projection`` (``"linear"`` or ``"mlp"``) and
            ``context_length`` (the largest number of tokens in a text).
        projection_dim: Width of the embeddings.
        logit_scale_init_value: Natural logarithm of the initial logit scale.
        initializer_range: Standard deviation of new weights that neither timm nor transformers
            initialises.
        tie_word_embeddings: Whether tensors that a backbone shares among layers stay shared
            when transformers loads them.

    Examples:
        >>> from students.config import StudentConfig
        >>> config = StudentConfig(
        ...     image={"backbone": "mobilenetv4_conv_small", "projection": "linear"},
        ...     projection_dim=256,
        ... )
        >>> config.text is None
        True
    """

    model_type = "clip-distill-student"

    image: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
