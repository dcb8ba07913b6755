"""Pure, unreduced losses: one value per example or token; the engine sums and divides."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    """-log softmax(logits)[target]: logits [B, C], class indices [B] -> [B]. Gradient to the logits."""
    return F.cross_entropy(logits_BC.float(), target_B, reduction="none")


def squared_error(logits_B1: Tensor, target_B: Tensor) -> Tensor:
    """(score - target)^2: logits [B, 1], scores [B] -> [B]. Gradient to the logits."""
    return (logits_B1.float().squeeze(-1) - target_B.float()).square()


def soft_targets(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)): logits [B, C] twice -> [B].

    The true KL divergence (zero at student = teacher), T^2 included, so that the gradient keeps its scale when T
    changes. Gradient to the student only. Hinton et al. 2015 (arXiv 1503.02531), section 2.
    """
    student = F.log_softmax(student_BC.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_BC.detach().float() / temperature, dim=-1)
    return temperature ** 2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def soft_score(student_B1: Tensor, teacher_B1: Tensor) -> Tensor:
    """(student - teacher)^2 for regression, the counterpart of soft_targets: scores [B, 1] twice -> [B].

    Gradient to the student only.
    """
    return (student_B1.float() - teacher_B1.detach().float()).squeeze(-1).square()


def sense_cross_entropy(scores_MK: Tensor, sense_M: Tensor) -> Tensor:
    """-log softmax(scores)[sense]: scores [M, K] of a token's senses (-inf where it has fewer), the teacher's choice
    [M] -> [M]. Gradient to the scores.

    arXiv 2504.06036; skd.md 3.2: L = 1/|T| sum_t CE(softmax_j <S_{w_t,j}, h_t>, y_t), no temperature, no 1/sqrt(d).
    Differs: slots beyond a type's senses are -inf, not 0.
    """
    return -torch.log_softmax(scores_MK.float(), dim=-1).gather(-1, sense_M.unsqueeze(-1)).squeeze(-1)
