"""Pure, unreduced losses: one value per example or token; the engine sums and divides."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


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


def span_cross_entropy(logits_BTC: Tensor, target_BC: Tensor) -> Tensor:
    """mean_c -log softmax_t(logits)[target]: of every sequence, logits of its tokens as start and as end of an answer [B, T, C], their
    positions [B, C] -> [B]. Gradient to the logits. Padding has PADDING_LOGIT and with it no share.

    Devlin et al. 2019 (arXiv 1810.04805), 4.2. Differs: the mean of start and end, as everybody's code has it, is their sum there.
    """
    return F.cross_entropy(logits_BTC.float(), target_BC, reduction="none").mean(-1)


def span_soft_targets(student_BTC: Tensor, teacher_BTC: Tensor, temperature: float) -> Tensor:
    """mean_c T^2 KL(softmax_t(teacher / T) || softmax_t(student / T)), soft_targets() over positions: [B, T, C] twice -> [B].

    T^2 included; gradient to the student only. The second distillation of DistilBERT (Sanh et al. 2019, arXiv 1910.01108), its
    published code. Differs: padding has no share.
    """
    return soft_targets(student_BTC.mT, teacher_BTC.mT, temperature).mean(-1)


def span_symmetric_kl(one_BTC: Tensor, other_BTC: Tensor) -> Tensor:
    """mean_c of symmetric_kl() over positions: [B, T, C] twice -> [B]. Gradient to both."""
    return symmetric_kl(one_BTC.mT, other_BTC.mT).mean(-1)


def probability_error(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """T^2 mean_c (softmax(student / T)_c - softmax(teacher / T)_c)^2: logits [B, C] twice -> [B]. Gradient to the student only.

    MPDistil's published code; its paper writes a KL divergence, which is soft_targets().
    """
    student, teacher = ((logits.float() / temperature).softmax(-1) for logits in (student_BC, teacher_BC.detach()))
    return temperature ** 2 * (student - teacher).square().mean(-1)


def doubt(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    """1 - softmax(logits)[target], the probability of all other classes: [B, C], class indices [B] -> [B]. Gradient to the logits.

    The competitive terms of MPDistil (Sengupta et al., ICLR 2024). Differs: 1 is added, so that it is never negative.
    """
    return 1 - logits_BC.float().softmax(-1).gather(-1, target_B.unsqueeze(-1)).squeeze(-1)


def absolute_error(logits_B1: Tensor, target_B: Tensor) -> Tensor:
    """|score - target|, the counterpart of doubt() for regression: [B, 1], [B] -> [B]. Gradient to the logits."""
    return (logits_B1.float().squeeze(-1) - target_B.float()).abs()


def sense_cross_entropy(scores_MK: Tensor, sense_M: Tensor) -> Tensor:
    """-log softmax(scores)[sense]: scores [M, K] of a token's senses (-inf where it has fewer), the teacher's choice
    [M] -> [M]. Gradient to the scores.

    arXiv 2504.06036 and its code: L = 1/|T| sum_t CE(softmax_j <S_{w_t,j}, h_t>, y_t), no temperature, no 1/sqrt(d).
    Differs: slots beyond a type's senses are -inf, not 0.
    """
    return -torch.log_softmax(scores_MK.float(), dim=-1).gather(-1, sense_M.unsqueeze(-1)).squeeze(-1)


def symmetric_kl(one_BC: Tensor, other_BC: Tensor) -> Tensor:
    """KL(p || q) + KL(q || p) of softmax(one) and softmax(other): logits [B, C] twice -> [B]. No temperature.

    Gradient to both; detach one for a teacher that does not move. Self-teaching's published code; its paper writes
    one direction only.
    """
    one, other = (F.log_softmax(logits.float(), dim=-1) for logits in (one_BC, other_BC))
    return ((one.exp() - other.exp()) * (one - other)).sum(-1)


def normalised_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """|| s / |s| - t / |t| ||^2: vectors [..., D] twice -> [...], from 0 to 4. Gradient to the student only.

    Patient distillation (Sun et al. 2019, arXiv 1908.09355), eq. 7. Differs: its code takes the mean over D and over the
    pairs of layers, so that a published beta is D times their number times this term's weight.
    """
    student, teacher = (F.normalize(vectors.float(), dim=-1) for vectors in (student_BD, teacher_BD.detach()))
    return (student - teacher).square().sum(-1)


def mean_squared_error(student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
    """Mean over the last dimension of (s - t)^2: [..., D] twice -> [...]. Gradient to the student only.

    TinyBERT (Jiao et al. 2020, arXiv 1909.10351), eq. 8 and 9.
    """
    return (student_BTD.float() - teacher_BTD.detach().float()).square().mean(-1)


def cosine_distance(student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
    """1 - <s, t> / (|s| |t|): vectors [..., D] twice -> [...], from 0 to 2. Gradient to the student only.

    DistilBERT (Sanh et al. 2019, arXiv 1910.01108), L_cos.
    """
    return 1 - F.cosine_similarity(student_BTD.float(), teacher_BTD.detach().float(), dim=-1)


def attention_error(student_QK: tuple[Tensor, Tensor], teacher_QK: tuple[Tensor, Tensor], mask: Tensor, heads: int) -> Tensor:
    """Squared differences of attention scores before the softmax, mean over the keys j, summed over the heads:

        sum_h mean_j (a^S_hij - a^T_hij)^2      a_hij = <q_hi, k_hj> / sqrt(d)

    queries and keys [B, T, D] of student and teacher (widths may differ, the number of heads may not), mask [B, T], 1 for
    real tokens, or [B, T, T], which keys a query sees -> [B, T], one value per query; those at padding mean nothing. Gradient
    to the student only.
    TinyBERT (arXiv 1909.10351), eq. 7. Differs: keys at padding are left out, there they add 0 to a mean over all; of
    DeBERTa's scores the content part alone.
    """
    student, teacher = (_scores(query, key, heads) for query, key in (student_QK, tuple(part.detach() for part in teacher_QK)))
    seen_BqT = _keys(mask).to(student.dtype)
    return ((student - teacher).square() * seen_BqT[:, None]).sum((1, 3)) / seen_BqT.sum(-1)


def relation_kl(student_BTD: Tensor, teacher_BTD: Tensor, mask: Tensor, heads: int, chunk: int = 0) -> Tensor:
    """KL between self-attention relations of the same vectors (all queries, all keys, or all values), summed over heads:

        sum_h KL(R^T_hi || R^S_hi)      R_h = softmax over j of <x_hi, x_hj> / sqrt(D / heads)

    vectors [B, T, D] of student and teacher, re-split into `heads` relation heads, which must divide both widths; mask
    [B, T], 1 for real tokens, or [B, T, T], which j an i sees (one at least) -> [B, T], one value per row i; those at padding
    mean nothing. Gradient to the student only.
    `chunk` examples at a time are held in memory, forward and backward (0: all); the value does not depend on it.
    MiniLMv2 (Wang et al. 2021, arXiv 2012.15828), eq. 4 to 7.
    """
    teacher_BTD, size = teacher_BTD.detach(), chunk or len(student_BTD)
    parts = zip(student_BTD.split(size), teacher_BTD.split(size), mask.split(size), strict=True)
    if size >= len(student_BTD):
        return _relation_kl(*next(parts), heads)
    return torch.cat([checkpoint(_relation_kl, *part, heads, use_reentrant=False, preserve_rng_state=False) for part in parts])


def _relation_kl(student_BTD: Tensor, teacher_BTD: Tensor, mask: Tensor, heads: int) -> Tensor:
    """sum_j p_j (log p_j - log q_j) = lse(b) - lse(a) + sum_j p_j (a_j - b_j) for p = softmax(a), q = softmax(b)."""
    hidden_B1qT = (_keys(mask) == 0)[:, None]
    student, teacher = _scores(student_BTD, student_BTD, heads), _scores(teacher_BTD, teacher_BTD, heads)
    student_total, teacher_total = (scores.masked_fill(hidden_B1qT, float("-inf")).logsumexp(-1, keepdim=True)
                                    for scores in (student, teacher))
    share_BHTT = (teacher - teacher_total).exp().masked_fill(hidden_B1qT, 0.0)
    return ((student_total - teacher_total).squeeze(-1) + (share_BHTT * (teacher - student)).sum(-1)).sum(1)


def _keys(mask: Tensor) -> Tensor:
    """Which keys each query sees, [B, 1 or T, T], of a mask [B, T] or [B, T, T]."""
    return mask[:, None] if mask.dim() == 2 else mask


def _scores(query_BTD: Tensor, key_BTD: Tensor, heads: int) -> Tensor:
    """<q_hi, k_hj> / sqrt(d) [B, H, T, T] in float32, D cut into `heads` of width d."""
    query, key = (vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2) for vectors in (query_BTD, key_BTD))
    with torch.autocast(query.device.type, enabled=False):  # it would multiply in half precision again
        return query @ key.mT / math.sqrt(query.shape[-1])
