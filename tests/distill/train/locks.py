"""Part of several.py: trains with a locked tower, then without."""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from distill.train._freeze import locked_towers
from distill.train.step import gather_rows
from students.config import StudentConfig
from students.model import StudentModel

ROWS = 8
BERT = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


class Both(nn.Module):
    """Both towers in one forward pass."""

    def __init__(self, model: StudentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = self.model.get_image_features(pixels).pooler_output
        text = self.model.get_text_features(ids).pooler_output
        # A bare parameter among the outputs would look unused to the wrapper.
        return image, text, self.model.logit_scale.exp()


def weights_after_locking() -> dict[str, Tensor]:
    """Return the weights of a student whose towers were locked in some of the steps."""
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    accelerator = Accelerator(cpu=True, kwargs_handlers=handlers)
    torch.manual_seed(0)
    model = StudentModel(
        StudentConfig(
            image={"backbone": "test_vit", "arguments": {"img_size": 32}, "projection": "linear"},
            text={"config": BERT, "pooling": "mean", "projection": "linear", "context_length": 8},
            projection_dim=16,
        )
    )
    # Adam would turn the rounding of gradients that are zero into steps of full size.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    wrapped = accelerator.prepare(Both(model))
    rows = ROWS // accelerator.num_processes
    mine = slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        pixels = torch.randn(ROWS, 3, 32, 32, generator=generator)
        ids = torch.randint(5, 30, (ROWS, 6), generator=generator)
        model.train()
        with locked_towers(model, image=step < 3, text=step in (2, 4)):
            image, text, scale = wrapped(pixels[mine], ids[mine])
            logits = scale * gather_rows(image) @ gather_rows(text).T
            pairs = torch.arange(ROWS)
            loss = nn.functional.cross_entropy(logits, pairs)
            loss = loss + nn.functional.cross_entropy(logits.T, pairs)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict()
