"""What every model returns: one type for teachers and students."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """What one forward pass computed.

    logits     [B, C] float32; C = 1 for regression.
    hidden     depth + 1 tensors [B, T, D]: the embeddings, then each layer's output; the last one has passed the
               adaptor where the model has one. Empty where the states were not kept.
    attentions depth tensors [B, H, T, T], or empty.
    senses     [B, T] int64, the index of each token's sense within its type, -1 where the type has none; only from
               teachers that know a sense dictionary.
    """

    logits: Tensor | None
    hidden: tuple[Tensor, ...] = ()
    attentions: tuple[Tensor, ...] = ()
    senses: Tensor | None = None
