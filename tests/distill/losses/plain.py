"""The terms in plain torch, with whole matrices and torch's own losses."""

import torch
import torch.nn.functional as F


def row_kl(target, logits):
    return F.kl_div(
        logits.log_softmax(-1),
        target.detach().log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )


def logits(model):
    return model.scale * model.image @ model.text.T


def kl_divergence(student, teacher, temperature=1.0):
    ours, theirs = logits(student) / temperature, logits(teacher) / temperature
    return temperature**2 * (row_kl(theirs, ours) + row_kl(theirs.T, ours.T)) / 2


def embedding_alignment(student, teacher, kind="cosine"):
    def distance(a, b):
        if kind == "cosine":
            return (1 - F.cosine_similarity(a, b.detach())).mean()
        function = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}[kind]
        return function(a, b.detach()) * a.shape[1]

    return (distance(student.image, teacher.image) + distance(student.text, teacher.text)) / 2


def info_nce(matrix, groups):
    if groups is None:
        return F.cross_entropy(matrix, torch.arange(len(matrix)))
    kept = groups != -1
    same = (groups[kept][:, None] == groups[kept]).to(matrix)
    return F.cross_entropy(matrix[kept][:, kept], same / same.sum(dim=1, keepdim=True))


def contrastive(student, groups=None):
    matrix = logits(student)
    return (info_nce(matrix, groups) + info_nce(matrix.T, groups)) / 2


def interactive_contrastive(student, teacher, groups=None):
    to_text = student.scale * student.image @ teacher.text.detach().T
    to_image = student.scale * student.text @ teacher.image.detach().T
    return (info_nce(to_text, groups) + info_nce(to_image, groups)) / 2


def relational(student, teacher, temperature=1.0):
    def others(model, tower):
        matrix = model.scale * tower @ tower.T / temperature
        off = ~torch.eye(len(tower), dtype=torch.bool)
        return matrix[off].reshape(len(tower), -1)

    images = row_kl(others(teacher, teacher.image), others(student, student.image))
    texts = row_kl(others(teacher, teacher.text), others(student, student.text))
    return temperature**2 * (images + texts) / 2


def soft_target(student, temperature=1.0):
    image, text = student.image, student.text
    alike = student.scale * (image @ image.T + text @ text.T) / 2 / temperature
    target, matrix = alike.detach().softmax(-1), logits(student)
    return (F.cross_entropy(matrix, target) + F.cross_entropy(matrix.T, target)) / 2


def sigmoid_contrastive(student, groups=None):
    matrix = logits(student)
    groups = torch.arange(len(matrix)) if groups is None else groups
    kept = groups != -1
    sign = torch.where(groups[kept][:, None] == groups[kept], 1.0, -1.0).to(matrix)
    return -F.logsigmoid(sign * matrix[kept][:, kept]).sum(dim=1).mean()


def prompt_kl(student_image, teacher_image, bank, student_scale, teacher_scale, temperature=1.0):
    ours = student_scale * student_image @ bank.detach().T / temperature
    return temperature**2 * row_kl(teacher_scale * teacher_image @ bank.T / temperature, ours)


def corpus_kl(student, teacher, corpus_image, corpus_text, temperature=1.0):
    scales = (student.scale, teacher.scale, temperature)
    images = prompt_kl(student.image, teacher.image, corpus_text, *scales)
    return (images + prompt_kl(student.text, teacher.text, corpus_image, *scales)) / 2


def corpus_relational(student, teacher, corpus_image, corpus_text, temperature=1.0):
    return corpus_kl(student, teacher, corpus_text, corpus_image, temperature)
