"""The terms' formulas written out in NumPy, one number at a time, in float64."""

import math

import numpy as np
import torch

from distill.losses.terms import Embeddings

GROUPS = [3, 5, 3, -1, 7, 5, 3]
ROWS = len(GROUPS)


def make(seed, *, rows=ROWS, width=6, scale=8.0, bias=None, dtype=torch.float64, grad=False):
    """Return random unit vectors and a scale."""
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
