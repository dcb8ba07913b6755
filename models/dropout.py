"""Dropout on a CPU, and attention with it. torch draws a 32-bit number for each element there (but on Intel's processors); here one
64-bit number serves four, and attention stays in the type it was given, where torch's widens it to float32 as soon as there is dropout.

On other devices, and without dropout, everything is torch's own.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "dropping"  # of attend_dropping() among transformers' attention functions
LEVELS = 1 << 16   # of a share of dropped elements


def dropout(states: Tensor, share: float, training: bool = True) -> Tensor:
    """`states` with each element 0 with probability `share` (in steps of 1 / LEVELS), the others divided by 1 - share."""
    if not training or share == 0 or states.device.type != "cpu":
        return F.dropout(states, share, training)
    return _Dropout.apply(states, round(share * LEVELS))


class _Dropout(torch.autograd.Function):
    """Drops `level` of LEVELS elements; the gradient is dropped alike."""

    @staticmethod
    def forward(ctx, states, level: int):
        count = states.numel()
        drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-1 << 63, None).view(torch.int16)
        kept = (drawn[:count] >= level - LEVELS // 2).view(states.shape)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - level)
        return torch.where(kept, states, 0.0).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, slope):
        (kept,) = ctx.saved_tensors
        return torch.where(kept, slope, 0.0).mul_(ctx.scale), None


class Dropout(nn.Dropout):
    """nn.Dropout with dropout()."""

    def forward(self, states: Tensor) -> Tensor:
        return dropout(states, self.p, self.training)


def attention(query_BHLd: Tensor, key_BHLd: Tensor, value_BHLd: Tensor, mask: Tensor | None, share: float, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T + mask) v [B, H, L, d] with dropout of the probabilities; `mask` broadcasts to [B, H, L, L]: False where a key
    is not seen, or what is added."""
    if share == 0 or query_BHLd.device.type != "cpu":
        return F.scaled_dot_product_attention(query_BHLd, key_BHLd, value_BHLd, mask, share, scale=scale)
    scores_BHLL = (query_BHLd * (scale or 1 / math.sqrt(query_BHLd.shape[-1]))) @ key_BHLd.mT
    if mask is not None and mask.dtype == torch.bool:
        scores_BHLL = scores_BHLL.masked_fill(~mask, torch.finfo(scores_BHLL.dtype).min)
    elif mask is not None:
        scores_BHLL = scores_BHLL + mask
    return dropout(scores_BHLL.softmax(-1).to(value_BHLd.dtype), share) @ value_BHLd


def attend_dropping(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
                    scaling: float | None = None, **others) -> tuple[Tensor, None]:
    """attention() as transformers calls it: context [B, L, H, d], and no probabilities. Of several query heads that share one of keys
    and values, each gets its own."""
    if (shared := getattr(module, "num_key_value_groups", 1)) > 1:
        key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    return attention(query, key, value, attention_mask, dropout, scaling).transpose(1, 2).contiguous(), None


def use_fast_dropout(backbone: nn.Module) -> nn.Module:
    """`backbone`, a transformers encoder, with this dropout and, where it has torch's attention, this attention. No weight is touched."""
    for module in backbone.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
    if backbone.config._attn_implementation == "sdpa":
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend_dropping)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
        backbone.config._attn_implementation = NAME
    return backbone
