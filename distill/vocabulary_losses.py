"""Losses over the scores of a whole vocabulary, a chunk of positions at a time.

N positions x V words of scores are never held: a chunk is multiplied out, judged, and turned into gradients at once, which
backward then only scales. The value and the gradients do not depend on the chunks, of `numbers` scores each (0: as suits the device).

    features [N, E]  --chunk-->  scores [m, V]  -->  sum of the loss, its slope [m, V]  -->  d features, d weight, d bias
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

NUMBERS = {"cpu": 1 << 24, "cuda": 1 << 26}  # scores that are held at a time: 64 and 256 MiB in float32

Judge = Callable[[Tensor, slice], tuple[Tensor, Tensor]]  # scores [m, V], which rows they are -> sum, its slope [m, V]


def word_cross_entropy(features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor, target_N: Tensor, numbers: int = 0) -> Tensor:
    """sum_n -log softmax(scores_n)[target_n]: a number. Gradient to features, weight and bias. Devlin et al. 2019, masked LM."""

    def judge(scores_mV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_share = scores_mV.log_softmax(-1)
        wanted_m1 = target_N[rows, None]
        total = -log_share.gather(-1, wanted_m1).sum()
        return total, log_share.exp_().scatter_add_(-1, wanted_m1, log_share.new_full(wanted_m1.shape, -1.0))

    return _in_chunks(features_NE, weight_VE, bias_V, judge, numbers)


def soft_words(features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor, teacher: tuple[Tensor, Tensor, Tensor], temperature: float,
               numbers: int = 0) -> Tensor:
    """sum_n T^2 KL(softmax(teacher_n / T) || softmax(scores_n / T)): a number, soft_targets() over a vocabulary.

    `teacher`: its features [N, E'], weight [V', E'] and bias [V']. Words are the rows that both tables have: what one has more only pads
    it to a round number. T^2 included, zero at student = teacher. Gradient to the student's features, weight and bias. Hinton et al. 2015 (arXiv 1503.02531); DistilBERT (arXiv 1910.01108), L_ce.
    """
    theirs_NE, their_weight, their_bias = (part.detach() for part in teacher)
    common = min(len(weight_VE), len(their_weight))
    their_weight, their_bias = their_weight[:common].to(_product_dtype(features_NE)), their_bias[:common]

    def judge(scores_mV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        own = (scores_mV / temperature).log_softmax(-1)
        wanted = (_scores(theirs_NE[rows], their_weight, their_bias) / temperature).log_softmax(-1)
        total = F.kl_div(own, wanted, reduction="sum", log_target=True)
        return temperature ** 2 * total, temperature * (own.exp_() - wanted.exp_())

    return _in_chunks(features_NE, weight_VE[:common], bias_V[:common], judge, numbers)


def word_scores(features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor, numbers: int = 0) -> Iterator[Tensor]:
    """The scores [m, V] of all words, m positions after m positions."""
    weight_VE = weight_VE.to(_product_dtype(features_NE))
    for part in features_NE.split(_rows(weight_VE, numbers)):
        yield _scores(part, weight_VE, bias_V)


@torch.no_grad()
def best_words(features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor, numbers: int = 0) -> Tensor:
    """The word with the highest score at each position [N]."""
    parts = [scores_mV.argmax(-1) for scores_mV in word_scores(features_NE, weight_VE, bias_V, numbers)]
    return torch.cat(parts) if parts else features_NE.new_zeros(0, dtype=torch.long)


def _in_chunks(features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor, judge: Judge, numbers: int) -> Tensor:
    return _Chunks.apply(features_NE, weight_VE, bias_V, judge, numbers, torch.is_grad_enabled())


def _rows(weight_VE: Tensor, numbers: int) -> int:
    return max(1, (numbers or NUMBERS[weight_VE.device.type]) // len(weight_VE))


def _product_dtype(features: Tensor) -> torch.dtype:
    """What scores are multiplied in: autocast's type where it is on."""
    kind = features.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype


def _scores(features_mE: Tensor, weight_VE: Tensor, bias_V: Tensor) -> Tensor:
    """features weight^T + bias in float32, multiplied in the weight's type."""
    return (features_mE.to(weight_VE.dtype) @ weight_VE.T).float() + bias_V.float()


class _Chunks(torch.autograd.Function):
    """The sum of `judge` over all positions; gradients are made in forward, where the scores are."""

    @staticmethod
    def forward(ctx, features_NE, weight_VE, bias_V, judge: Judge, numbers: int, learning: bool):
        wanted = [learning and needed for needed in ctx.needs_input_grad[:3]]
        low = weight_VE.to(_product_dtype(features_NE))
        steep = weight_VE if low.dtype == torch.float16 else low  # slopes of 1 / V, not yet scaled, would vanish in fp16
        d_features, d_weight, d_bias = (torch.zeros_like(part, dtype=torch.float32) if needed else None
                                        for part, needed in zip((features_NE, weight_VE, bias_V), wanted))
        total = features_NE.new_zeros((), dtype=torch.float32)
        with torch.autocast(features_NE.device.type, enabled=False):  # types are as they say
            for start in range(0, len(features_NE), _rows(weight_VE, numbers)):
                rows = slice(start, start + _rows(weight_VE, numbers))
                part, slope = judge(_scores(features_NE[rows], low, bias_V), rows)
                total += part
                short = slope.to(steep.dtype)
                if d_features is not None:
                    d_features[rows] = short @ steep
                if d_weight is not None:
                    d_weight += short.T @ features_NE[rows].to(steep.dtype)
                if d_bias is not None:
                    d_bias += slope.sum(0)
        ctx.gradients = [None if part is None else part.to(source.dtype)
                         for part, source in zip((d_features, d_weight, d_bias), (features_NE, weight_VE, bias_V))]
        return total

    @staticmethod
    def backward(ctx, slope):
        return (*(None if part is None else part * slope for part in ctx.gradients), None, None, None)
