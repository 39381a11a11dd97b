"""The student: a timm image tower and a BERT text tower, with the interface of ``CLIPModel``."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput

from students.config import StudentConfig
from students.encoder import (
    MAX_LOGIT_SCALE,
    Student,
)
from students.loading import load_parts
from students.towers import ImageTower, ScaledLinear, TextTower


class StudentModel(PreTrainedModel):
    """A compact dual encoder: an image tower, a text tower, or both.

    It has the interface of ``transformers.CLIPModel``. Transformers' Auto classes and its
    zero-shot pipeline load it once this module is imported.

    Args:
        config: The towers, and the width ``D`` of the embeddings.

    Attributes:
        image_tower: The ``ImageTower``, or ``None``.
        text_tower: The ``TextTower``, or ``None``.
        logit_scale: Learned natural logarithm of the logit scale, a scalar.

    Raises:
        ValueError: The configuration has neither an image nor a text tower.

    Examples:
        >>> import torch
        >>> from students.config import StudentConfig
        >>> from students.model import StudentModel
        >>> config = StudentConfig(image={"backbone": "resnet18"}, projection_dim=256)
        >>> model = StudentModel(config).eval()
        >>> model.get_image_features(torch.zeros(2, 3, 224, 224)).pooler_output.shape
        torch.Size([2, 256])
    """

    config_class = StudentConfig
    base_model_prefix = "student"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    _supports_sdpa = True

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        if config.image is None and config.text is None:
            raise ValueError(
                "a student needs an image tower, a text tower or both; the config has neither"
            )
        width = config.projection_dim
        self.image_tower = None if config.image is None else ImageTower(config.image, width)
        self.text_tower = None if config.text is None else TextTower(config.text, width)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self._tied_weights_keys = self._find_shared()
        self._keep_timm_initialisation()
        self.post_init()

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """Embed pictures.

        Args:
            pixel_values: Preprocessed pictures ``[N, 3, H, W]``.

        Returns:
            ``pooler_output`` holds the embeddings ``[N, D]``, not normalised.

        Raises:
            ValueError: The student has no image tower.
        """
        if self.image_tower is None:
            raise ValueError("this student has no image tower, it embeds texts only")
        return BaseModelOutputWithPooling(pooler_output=self.image_tower(pixel_values))

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Embed texts.

        Args:
            input_ids: Token ids, int64 ``[N, L]``.
            attention_mask: 1 for tokens and 0 for padding, ``[N, L]``; ``None`` means no padding.
            position_ids: Positions ``[N, L]``; ``None`` counts from 0.
            token_type_ids: BERT's segments ``[N, L]``; ``None`` means all 0.

        Returns:
            ``pooler_output`` holds the embeddings ``[N, D]``, not normalised, and
            ``last_hidden_state`` the tower's output ``[N, L, H]``.

        Raises:
            ValueError: The student has no text tower.
        """
        if self.text_tower is None:
            raise ValueError("this student has no text tower, it embeds images only")
        hidden, pooled = self.text_tower(
            input_ids, attention_mask, token_type_ids=token_type_ids, position_ids=position_ids
        )
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_loss: bool = False,
    ) -> CLIPOutput:
        """Embed pictures, texts or both, and compare them if both are given.

        Args:
            input_ids: Token ids, int64 ``[M, L]``.
            pixel_values: Preprocessed pictures ``[N, 3, H, W]``.
            attention_mask: See ``get_text_features``.
            position_ids: See ``get_text_features``.
            token_type_ids: See ``get_text_features``.
            return_loss: Whether to compute CLIP's symmetric contrastive loss, which treats the
                picture and the text of each row as a pair (Radford et al. 2021,
                https://arxiv.org/abs/2103.00020).

        Returns:
            L2-normalised ``image_embeds`` ``[N, D]`` and ``text_embeds`` ``[M, D]``, the logits
            ``logits_per_image`` ``[N, M]`` and ``logits_per_text`` ``[M, N]``, and the scalar
            ``loss``. Fields that were not computed are ``None``.

        Raises:
            ValueError: The student lacks the tower for one of the inputs.
        """
        vision = text = image_embeds = text_embeds = None
        if pixel_values is not None:
            vision = self.get_image_features(pixel_values)
            image_embeds = F.normalize(vision.pooler_output, dim=-1)
        if input_ids is not None:
            text = self.get_text_features(input_ids, attention_mask, position_ids, token_type_ids)
            text_embeds = F.normalize(text.pooler_output, dim=-1)
        logits = loss = None
        if image_embeds is not None and text_embeds is not None:
            scale = self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
            logits = scale * text_embeds @ image_embeds.T
        if logits is not None and return_loss:
            pairs = torch.arange(len(logits), device=logits.device)
            loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        return CLIPOutput(
            loss=loss,
            logits_per_image=None if logits is None else logits.T,
            logits_per_text=logits,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=vision,
        )

    def _find_shared(self) -> dict[str, str]:
        # Some backbones use one layer in several places. Files store that layer once.
        first: dict[int, str] = {}
        named = self.named_parameters(remove_duplicate=False)
        owners = [(name, first.setdefault(id(parameter), name)) for name, parameter in named]
        return {name: owner for name, owner in owners if name != owner}

    def _keep_timm_initialisation(self) -> None:
        # Otherwise transformers redraws every weight from one normal distribution.
        if self.image_tower is None:
            return
        backbone = self.image_tower.backbone
        for tensor in (*backbone.parameters(), *backbone.buffers()):
            if tensor.device.type != "meta":
                tensor._is_hf_initialized = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, StudentModel):
            initialization.constant_(module.logit_scale, self.config.logit_scale_init_value)
        elif isinstance(module, ScaledLinear):
            initialization.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        elif callable(fill := getattr(module, "init_non_persistent_buffers", None)):
            # Loading starts on the meta device, which loses timm's values for these buffers.
            fill()


def load_student(folder: str | Path, *, device: str | torch.device = "cpu") -> Student:
    """Load a student, or any other dual encoder of transformers, from a local folder.

    Args:
        folder: The folder that ``Student.save`` or ``save_pretrained`` wrote.
        device: The model is moved to this device.

    Returns:
        The model with its tokenizer and image processor. Weights are float32, and the model is in
        evaluation mode.

    Raises:
        OSError: The folder or a file in it is missing or damaged. The message is one line that
            names it.
        ValueError: The folder does not hold a dual encoder, or its parts do not fit together. The
            message is one line.

    Examples:
        >>> from PIL import Image
        >>> from students.encoder import embed_images
        >>> from students.model import load_student
        >>> student = load_student("runs/mine/student")
        >>> picture = Image.open("photo.jpg").convert("RGB")
        >>> pixels = student.image_processor(picture, return_tensors="pt")["pixel_values"]
        >>> embed_images(student.model, pixels).shape == (1, student.width)
        True
    """
    if not Path(folder).is_dir():
        raise OSError(f"{folder}: no such folder; a student is a folder with a config.json")
    student = load_parts(Path(folder), name=str(folder))
    student.model.to(device)
    return student


AutoConfig.register(StudentConfig.model_type, StudentConfig, exist_ok=True)
AutoModel.register(StudentConfig, StudentModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(StudentConfig, StudentModel, exist_ok=True)
