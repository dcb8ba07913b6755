"""Disentangled attention (DeBERTa-v2/v3), exact and fast. Weights and their names stay transformers' own.

A score is content-to-content + content-to-position + position-to-content (He et al. 2021, arXiv 2006.03654, eq. 4):

    A_ij = (q_i . k_j  +  q_i . K[i - j]  +  k_j . Q[i - j]) / sqrt(3 d)      K, Q: projected embeddings of distances

transformers multiplies with all 512 embeddings, repeats them for every example and gathers the products. Here

- only the distances that L positions have are projected and multiplied; at evaluation they are projected once;
- the batch is folded into the rows of one product per head, and nothing is repeated;
- the products stand in the order of j - i, so that the scores are a skewed view of them and nothing is gathered:

        row 0     *  *  0  1  2  *         drop the first L - 1 numbers, read rows of 2L - 1:
        row 1     * -1  0  1  *  *   -->   j = 0 .. L - 1 stand in the first L columns
        row 2    -2 -1  0  *  *  *

- both sums are the additive mask of one scaled_dot_product_attention.

For all encoders dropout on a CPU is that of models/dropout.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2 import modeling_deberta_v2 as transformers_deberta

from models.dropout import attention, use_fast_dropout


def use_fast_attention(backbone: nn.Module) -> nn.Module:
    """`backbone` with fast attention where it has a DeBERTa-v2/v3 encoder, and with fast dropout. No weight is touched."""
    fast = {transformers_deberta.DisentangledSelfAttention: DisentangledAttention,
            transformers_deberta.DebertaV2Encoder: DisentangledEncoder}
    for module in backbone.modules():
        if type(module) in fast:
            module.__class__ = fast[type(module)]
            module.kept = {}
    return use_fast_dropout(backbone)


class Keeping:
    """Keeps what only depends on the weights, for evaluation, until train() or eval() is called or a weight changes.

    Not every change of a weight shows in its version: fused optimisers leave it as it is. Training calls train().
    """

    kept: dict[str, tuple]

    def train(self, mode: bool = True):
        self.kept.clear()
        return super().train(mode)

    def keep(self, name: str, sources: tuple[Tensor, ...], make: Callable[[], Tensor]) -> Tensor:
        """`make()`, or what it gave when `sources` were the same tensors as now."""
        stamp = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in sources)
        if self.kept.get(name, (None,))[0] != stamp:
            self.kept[name] = stamp, make(), sources  # the sources too: a freed address could come again
        return self.kept[name][1]

    @property
    def may_keep(self) -> bool:
        return not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())


class DisentangledEncoder(Keeping, transformers_deberta.DebertaV2Encoder):
    """transformers' stack of layers; gives them what DisentangledAttention wants to know of positions."""

    def get_rel_pos(self, hidden_states: Tensor, query_states=None, relative_pos=None) -> Tensor | None:
        """Rows of the embeddings [2 span, D] for the distances L - 1 .. -L and -(L - 1) .. L: [2, 2L]."""
        if not self.relative_attention:
            return None
        if query_states is not None or relative_pos is not None:
            raise ValueError("fast attention has no queries or positions of their own: give hidden states only")
        length, span = hidden_states.shape[1], len(self.rel_embeddings.weight) // 2
        distance = torch.arange(1 - length, length + 1, device=hidden_states.device)
        distance = torch.stack([-distance, distance])
        if self.position_buckets > 0:
            distance = transformers_deberta.make_log_bucket_position(
                distance, self.position_buckets, self.max_relative_positions).long()
        return (distance + span).clamp(0, 2 * span - 1)

    def get_rel_embedding(self) -> Tensor | None:
        """The embeddings of distances, normalised; at evaluation the same tensor until the weights change."""
        make = super().get_rel_embedding
        if not (self.may_keep and self.relative_attention):
            return make()
        norm = self.LayerNorm.parameters() if "layer_norm" in self.norm_rel_ebd else ()
        return self.keep("embeddings", (self.rel_embeddings.weight, *norm), make)


class DisentangledAttention(Keeping, transformers_deberta.DisentangledSelfAttention):
    """transformers' attention with another forward."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor, output_attentions: bool = False, query_states=None,
                relative_pos: Tensor | None = None, rel_embeddings: Tensor | None = None):
        """Context [B, L, D] of hidden_states [B, L, D], and the probabilities [B, H, L, L] where asked for, else None.

        attention_mask [B, 1, L, L]: 1 where i may look at j. relative_pos and rel_embeddings as DisentangledEncoder
        gives them.
        """
        query, key, value = (projection(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
                             for projection in (self.query_proj, self.key_proj, self.value_proj))  # each [B, H, L, d]
        scale = 1 / math.sqrt(query.shape[-1] * (1 + len({"c2p", "p2c"}.intersection(self.pos_att_type))))
        lowest = torch.finfo(query.dtype).min / 2  # half: a score below 0 may come on top
        bias_BHLL = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(attention_mask == 0, lowest)
        if self.relative_attention:
            falling, rising = relative_pos
            if "c2p" in self.pos_att_type:
                bias_BHLL = bias_BHLL + _skew(query, self._positions("key", rel_embeddings, falling) * scale)
            if "p2c" in self.pos_att_type:
                bias_BHLL = bias_BHLL + _skew(key, self._positions("query", rel_embeddings, rising) * scale).mT
        dropout = self.dropout.p if self.training else 0.0
        if output_attentions:
            probabilities_BHLL = self.dropout((query @ key.mT * scale + bias_BHLL).softmax(-1))
            return (probabilities_BHLL @ value).transpose(1, 2).flatten(2), probabilities_BHLL
        context = attention(query, key, value, bias_BHLL, dropout, scale)
        return context.transpose(1, 2).flatten(2), None

    def _positions(self, kind: str, rel_embeddings: Tensor, rows_R: Tensor) -> Tensor:
        """The chosen rows of the embeddings, projected as keys or queries: [R, H d]."""
        projection = getattr(self, f"{kind}_proj" if self.share_att_key else f"pos_{kind}_proj")
        if self.may_keep:
            sources = (rel_embeddings, *projection.parameters())
            return self.keep(kind, sources, lambda: projection(rel_embeddings)).index_select(0, rows_R)
        span, reach = len(rel_embeddings) // 2, len(rows_R) // 2
        first = max(span - reach, 0)  # a bucket is never farther than its distance
        near = self.pos_dropout(rel_embeddings[first:span + reach + 1])
        return projection(near).index_select(0, rows_R - first)


def _skew(states_BHLd: Tensor, rows_RD: Tensor) -> Tensor:
    """Products of each position i with the row for (i, j), R = 2L rows in the order of j - i: a view [B, H, L, L]."""
    batch, heads, length, width = states_BHLd.shape
    folded_HMd = states_BHLd.transpose(0, 1).flatten(1, 2)
    products_HMR = folded_HMd @ rows_RD.unflatten(-1, (heads, width)).permute(1, 2, 0)
    shape, strides = (heads, batch, length, length), (2 * batch * length**2, 2 * length**2, 2 * length - 1, 1)
    return products_HMR.as_strided(shape, strides, length - 1).transpose(0, 1)
