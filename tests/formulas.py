"""The papers' formulas, example by example and head by head, in float64: what losses, terms and gradients are held against.

Real tokens only, so that padding is no question here. Sums and means are those of the terms, their count divided out.
"""

import math

import torch
from torch import Tensor

from models.encoder import Encoder
from models.outputs import Outputs

QUERY_KEY_VALUE = {"bert": ("query", "key", "value"), "deberta-v2": ("query_proj", "key_proj", "value_proj")}


def heads_of(vectors_TD: Tensor, heads: int) -> list[Tensor]:
    """[T, D] as `heads` matrices [T, D / heads]."""
    return [part.double() for part in vectors_TD.split(vectors_TD.shape[-1] // heads, dim=-1)]


def scores(query_TD: Tensor, key_TD: Tensor, heads: int) -> list[Tensor]:
    """Attention scores before the softmax, [T, T] for each head."""
    return [query @ key.T / math.sqrt(query.shape[-1])
            for query, key in zip(heads_of(query_TD, heads), heads_of(key_TD, heads), strict=True)]


def relation_kl(student_TD: Tensor, teacher_TD: Tensor, heads: int) -> Tensor:
    """KL of one example's relations at each position, summed over the heads: [T]."""
    total = 0.0
    for student, teacher in zip(scores(student_TD, student_TD, heads), scores(teacher_TD, teacher_TD, heads), strict=True):
        p, q = teacher.softmax(-1), student.softmax(-1)
        total = total + (p * (p.log() - q.log())).sum(-1)
    return total


def attention_error(student_QK, teacher_QK, heads: int) -> Tensor:
    """Squared differences of one example's attention scores at each query, mean over keys, summed over heads: [T]."""
    pairs = zip(scores(*student_QK, heads), scores(*teacher_QK, heads), strict=True)
    return sum((student - teacher).square().mean(-1) for student, teacher in pairs)


def real(batch) -> list[tuple[int, int]]:
    """Row and number of tokens of each example."""
    return list(enumerate(batch.attention_mask.sum(1).tolist()))


def projected(encoder: Encoder, found: Outputs, layer: int) -> list[Tensor]:
    """Queries, keys and values of a layer from what goes into it, by its linear maps."""
    attention = encoder.backbone.encoder.layer[layer - 1].attention.self
    return [getattr(attention, name)(found.hidden[layer - 1]) for name in QUERY_KEY_VALUE[encoder.config.model_type]]


def cross_entropy(found: Outputs, batch) -> Tensor:
    """Mean over the examples; squared error of scores."""
    logits = found.logits.double()
    if batch.target.is_floating_point():
        return (logits[:, 0] - batch.target).square().mean()
    return -logits.log_softmax(-1)[torch.arange(len(batch)), batch.target].mean()


def soft_targets(found: Outputs, target: Outputs, temperature: float, regression: bool) -> Tensor:
    """Mean over the examples."""
    if regression:
        return (found.logits.double() - target.logits).square().mean()
    p, q = ((outputs.logits.double() / temperature).softmax(-1) for outputs in (target, found))
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


def cls_states(found: Outputs, target: Outputs, pairs) -> Tensor:
    """Patient distillation's third term, mean over the examples."""
    total = 0.0
    for one, other in pairs:
        for student, teacher in zip(found.hidden[one][:, 0].double(), target.hidden[other][:, 0].double(), strict=True):
            total = total + (student / student.norm() - teacher / teacher.norm()).square().sum()
    return total / len(found.logits)


def hidden_states(found: Outputs, target: Outputs, batch, pairs, project) -> Tensor:
    """TinyBERT's hidden and embedding terms, mean over the tokens; `project(states, width)` is its W."""
    total = 0.0
    for one, other in pairs:
        for row, length in real(batch):
            teacher = target.hidden[other][row, :length].double()
            student = project(found.hidden[one][row, :length], teacher.shape[-1]).double()
            total = total + (student - teacher).square().mean(-1).sum()
    return total / batch.tokens


def attention_scores(student: Encoder, teacher: Encoder, found: Outputs, target: Outputs, batch, pairs, heads: int) -> Tensor:
    """TinyBERT's attention term, mean over tokens and heads."""
    total = 0.0
    for one, other in pairs:
        ours, theirs = projected(student, found, one)[:2], projected(teacher, target, other)[:2]
        for row, length in real(batch):
            total = total + attention_error([part[row, :length] for part in ours], [part[row, :length] for part in theirs], heads).sum()
    return total / (batch.tokens * heads)


def relations(student: Encoder, teacher: Encoder, found: Outputs, target: Outputs, batch, pair, heads: int) -> Tensor:
    """MiniLMv2's loss over queries, keys and values, mean over tokens and relation heads."""
    total = 0.0
    for one, other in zip(projected(student, found, pair[0]), projected(teacher, target, pair[1]), strict=True):
        for row, length in real(batch):
            total = total + relation_kl(one[row, :length], other[row, :length], heads).sum()
    return total / (batch.tokens * heads)
