"""A second small teacher for tests of ensembles."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tests.distill.teacher.cache.cache_pieces import CountingTeacher


class WideTeacher(CountingTeacher):
    """Embeds a picture by its colour at five places and a text by five letters."""

    name = "wide"
    width = 5
    logit_scale = 50.0
    logit_bias = -3.0
    parameters = 7
    preprocessing = replace(CountingTeacher.preprocessing, size=(12, 10), mean=(0.1, 0.2, 0.3))

    def __init__(self) -> None:
        super().__init__("wide")

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[1:] == (12, 10, 3)
        self.pictures += len(pixels)
        values = pixels.reshape(len(pixels), -1)[:, :5].float() + 1
        return torch.nn.functional.normalize(values, dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        letters = [[float(len(text)), *(text.count(one) + 0.5 for one in "abcd")] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(letters), dim=-1)
