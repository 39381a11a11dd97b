"""The terms' formulas, written out twice, and the arguments that each term is tested with.

``NAME`` is the formula in NumPy, one number at a time, in float64; ``torch_NAME`` is the formula in
plain torch, with whole matrices and torch's own losses.
"""

import math

import numpy as np

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    import torch.nn.functional as F

    from distill.losses.embeddings import Embeddings

GROUPS = [3, 5, 3, -1, 7, 5, 3]
ROWS = len(GROUPS)


def make(seed, *, rows=ROWS, width=6, scale=8.0, bias=None, dtype=None, grad=False):
    """Return random unit vectors and a scale, in float64 unless told otherwise."""
    dtype = dtype or torch.float64
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        torch.nn.functional.normalize(
            torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1
        ).to(dtype)
        for _ in range(2)
    )
    numbers = [torch.tensor(scale, dtype=dtype)]
    if bias is not None:
        numbers.append(torch.tensor(bias, dtype=dtype))
    for tensor in (image, text, *numbers):
        tensor.requires_grad_(grad)
    return Embeddings(image, text, *numbers)


def numbers(tensor):
    return tensor.detach().double().numpy()


def number(value):
    return float(value.detach()) if isinstance(value, torch.Tensor) else float(value)


def softmax(row):
    shifted = [value - max(row) for value in row]
    total = sum(math.exp(value) for value in shifted)
    return [math.exp(value) / total for value in shifted]


def log_softmax(row):
    shifted = [value - max(row) for value in row]
    total = math.log(sum(math.exp(value) for value in shifted))
    return [value - total for value in shifted]


def scores(rows, columns, scale, bias=0.0, temperature=1.0):
    a, b = numbers(rows), numbers(columns)
    matrix = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            matrix[i, j] = (number(scale) * float(a[i] @ b[j]) + bias) / temperature
    return matrix


def logits(model, temperature=1.0):
    bias = 0.0 if model.bias is None else number(model.bias)
    return scores(model.image, model.text, number(model.scale), bias, temperature)


def kl_of_rows(target, ours):
    total = 0.0
    for theirs, mine in zip(target, ours, strict=True):
        for p, q in zip(log_softmax(list(theirs)), log_softmax(list(mine)), strict=True):
            total += math.exp(p) * (p - q)
    return total / len(target)


def kl_divergence(student, teacher, temperature=1.0):
    ours, theirs = logits(student, temperature), logits(teacher, temperature)
    return temperature**2 * (kl_of_rows(theirs, ours) + kl_of_rows(theirs.T, ours.T)) / 2


def info_nce_of_rows(matrix, groups):
    groups = list(range(len(matrix))) if groups is None else list(groups)
    rows = [i for i, group in enumerate(groups) if group != -1]
    total = 0.0
    for i in rows:
        chances = log_softmax([matrix[i, j] for j in rows])
        partners = [n for n, j in enumerate(rows) if groups[j] == groups[i]]
        total -= sum(chances[n] for n in partners) / len(partners)
    return total / len(rows) if rows else 0.0


def contrastive(student, groups=None):
    matrix = logits(student)
    return (info_nce_of_rows(matrix, groups) + info_nce_of_rows(matrix.T, groups)) / 2


def interactive_contrastive(student, teacher, groups=None):
    bias = 0.0 if student.bias is None else number(student.bias)
    to_text = scores(student.image, teacher.text, number(student.scale), bias)
    to_image = scores(student.text, teacher.image, number(student.scale), bias)
    return (info_nce_of_rows(to_text, groups) + info_nce_of_rows(to_image, groups)) / 2


def embedding_alignment(student, teacher, kind="cosine"):
    towers = []
    for a, b in ((student.image, teacher.image), (student.text, teacher.text)):
        if a is None or b is None:
            continue
        rows = []
        for x, y in zip(numbers(a), numbers(b), strict=True):
            gaps = np.abs(x - y)
            if kind == "cosine":
                rows.append(1 - float(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)))
            elif kind == "mse":
                rows.append(sum(gap**2 for gap in gaps))
            else:
                rows.append(sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps))
        towers.append(sum(rows) / len(rows))
    return sum(towers) / len(towers)


def relational(student, teacher, temperature=1.0):
    towers = []
    for a, b in ((student.image, teacher.image), (student.text, teacher.text)):
        if a is None or b is None:
            continue
        ours = scores(a, a, number(student.scale), temperature=temperature)
        theirs = scores(b, b, number(teacher.scale), temperature=temperature)
        others = [
            [
                [matrix[i, j] for j in range(len(matrix)) if j != i]
                for i in range(len(matrix) if len(matrix) > 1 else 0)
            ]
            for matrix in (theirs, ours)
        ]
        towers.append(kl_of_rows(*others) if others[0] else 0.0)
    return temperature**2 * sum(towers) / len(towers)


def soft_target(student, temperature=1.0):
    scale = number(student.scale)
    alike = scores(student.image, student.image, scale) + scores(student.text, student.text, scale)
    matrix = logits(student)
    total = 0.0
    for i in range(len(matrix)):
        target = softmax(list(alike[i] / 2 / temperature))
        for row in (list(matrix[i]), list(matrix[:, i])):
            total -= sum(p * q for p, q in zip(target, log_softmax(row), strict=True))
    return total / (2 * len(matrix))


def sigmoid_contrastive(student, groups=None):
    matrix = logits(student)
    groups = list(range(len(matrix))) if groups is None else list(groups)
    rows = [i for i, group in enumerate(groups) if group != -1]
    total = 0.0
    for i in rows:
        for j in rows:
            value = matrix[i, j] if groups[i] == groups[j] else -matrix[i, j]
            # −log σ(x) = log(1 + e^−x), without overflow.
            total += max(-value, 0.0) + math.log1p(math.exp(-abs(value)))
    return total / len(rows) if rows else 0.0


def prompt_kl(student_image, teacher_image, bank, student_scale, teacher_scale, temperature=1.0):
    ours = scores(student_image, bank, student_scale, temperature=temperature)
    theirs = scores(teacher_image, bank, teacher_scale, temperature=temperature)
    return temperature**2 * kl_of_rows(theirs, ours)


def corpus_kl(student, teacher, corpus_image, corpus_text, temperature=1.0):
    towers = []
    for mine, theirs, bank in (
        (student.image, teacher.image, corpus_text),
        (student.text, teacher.text, corpus_image),
    ):
        if mine is not None:
            scales = (student.scale, teacher.scale)
            towers.append(prompt_kl(mine, theirs, bank, *scales, temperature))
    return sum(towers) / len(towers)


def corpus_relational(student, teacher, corpus_image, corpus_text, temperature=1.0):
    return corpus_kl(student, teacher, corpus_text, corpus_image, temperature)


def corpus_contrastive(student, corpus_image, corpus_text, image_partners, text_partners):
    towers = []
    for mine, bank, partners in (
        (student.image, corpus_text, image_partners),
        (student.text, corpus_image, text_partners),
    ):
        matrix, rows = scores(mine, bank, student.scale), []
        for row in sorted({row for row, _ in partners.tolist()}):
            chances = log_softmax(list(matrix[row]))
            own = [chances[column] for number, column in partners.tolist() if number == row]
            rows.append(-sum(own) / len(own))
        towers.append(sum(rows) / len(rows) if rows else 0.0)
    return sum(towers) / 2


# --- the same in plain torch


def row_kl(target, logits):
    return F.kl_div(
        logits.log_softmax(-1),
        target.detach().log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )


def torch_logits(model):
    return model.scale * model.image @ model.text.T


def torch_kl_divergence(student, teacher, temperature=1.0):
    ours, theirs = torch_logits(student) / temperature, torch_logits(teacher) / temperature
    return temperature**2 * (row_kl(theirs, ours) + row_kl(theirs.T, ours.T)) / 2


def torch_embedding_alignment(student, teacher, kind="cosine"):
    def distance(a, b):
        if kind == "cosine":
            return (1 - F.cosine_similarity(a, b.detach())).mean()
        function = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}[kind]
        return function(a, b.detach()) * a.shape[1]

    return (distance(student.image, teacher.image) + distance(student.text, teacher.text)) / 2


def torch_info_nce(matrix, groups):
    if groups is None:
        return F.cross_entropy(matrix, torch.arange(len(matrix)))
    kept = groups != -1
    same = (groups[kept][:, None] == groups[kept]).to(matrix)
    return F.cross_entropy(matrix[kept][:, kept], same / same.sum(dim=1, keepdim=True))


def torch_contrastive(student, groups=None):
    matrix = torch_logits(student)
    return (torch_info_nce(matrix, groups) + torch_info_nce(matrix.T, groups)) / 2


def torch_interactive_contrastive(student, teacher, groups=None):
    to_text = student.scale * student.image @ teacher.text.detach().T
    to_image = student.scale * student.text @ teacher.image.detach().T
    return (torch_info_nce(to_text, groups) + torch_info_nce(to_image, groups)) / 2


def torch_relational(student, teacher, temperature=1.0):
    def others(model, tower):
        matrix = model.scale * tower @ tower.T / temperature
        off = ~torch.eye(len(tower), dtype=torch.bool)
        return matrix[off].reshape(len(tower), -1)

    images = row_kl(others(teacher, teacher.image), others(student, student.image))
    texts = row_kl(others(teacher, teacher.text), others(student, student.text))
    return temperature**2 * (images + texts) / 2


def torch_soft_target(student, temperature=1.0):
    image, text = student.image, student.text
    alike = student.scale * (image @ image.T + text @ text.T) / 2 / temperature
    target, matrix = alike.detach().softmax(-1), torch_logits(student)
    return (F.cross_entropy(matrix, target) + F.cross_entropy(matrix.T, target)) / 2


def torch_sigmoid_contrastive(student, groups=None):
    matrix = torch_logits(student)
    groups = torch.arange(len(matrix)) if groups is None else groups
    kept = groups != -1
    sign = torch.where(groups[kept][:, None] == groups[kept], 1.0, -1.0).to(matrix)
    return -F.logsigmoid(sign * matrix[kept][:, kept]).sum(dim=1).mean()


def torch_prompt_kl(
    student_image, teacher_image, bank, student_scale, teacher_scale, temperature=1.0
):
    ours = student_scale * student_image @ bank.detach().T / temperature
    return temperature**2 * row_kl(teacher_scale * teacher_image @ bank.T / temperature, ours)


def torch_corpus_kl(student, teacher, corpus_image, corpus_text, temperature=1.0):
    scales = (student.scale, teacher.scale, temperature)
    images = torch_prompt_kl(student.image, teacher.image, corpus_text, *scales)
    return (images + torch_prompt_kl(student.text, teacher.text, corpus_image, *scales)) / 2


def torch_corpus_relational(student, teacher, corpus_image, corpus_text, temperature=1.0):
    return torch_corpus_kl(student, teacher, corpus_text, corpus_image, temperature)


def torch_corpus_contrastive(student, corpus_image, corpus_text, image_partners, text_partners):
    def one(rows, bank, partners):
        chances = (student.scale * rows @ bank.detach().T).log_softmax(-1)
        own = [
            chances[row, partners[partners[:, 0] == row, 1]].mean()
            for row in sorted(set(partners[:, 0].tolist()))
        ]
        return -torch.stack(own).mean() if own else 0 * chances.sum()

    images = one(student.image, corpus_text, image_partners)
    return (images + one(student.text, corpus_image, text_partners)) / 2


# --- what the terms are tested with

# Each term with each of these; a term that takes groups is tested with and without them.
ARGUMENTS = {
    "kl_divergence": [{}, {"temperature": 3.0}],
    "embedding_alignment": [{}, {"kind": "mse"}, {"kind": "smooth_l1"}],
    "contrastive": [{}],
    "interactive_contrastive": [{}],
    "relational": [{}, {"temperature": 0.5}],
    "soft_target": [{}, {"temperature": 2.0}],
    "sigmoid_contrastive": [{}],
    "prompt_kl": [{}, {"temperature": 2.0}],
    "corpus_kl": [{}, {"temperature": 2.0}],
    "corpus_contrastive": [{}],
    "corpus_relational": [{}, {"temperature": 2.0}],
}
# Those with a softmax over rows alone, or none: one pass over the tiles is enough.
ONE_PASS_TERMS = {
    "interactive_contrastive",
    "relational",
    "sigmoid_contrastive",
    "prompt_kl",
    "corpus_kl",
    "corpus_contrastive",
    "corpus_relational",
}
