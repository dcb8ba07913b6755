"""What every model returns: one type for teachers and students."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Words:
    """Scores of the whole vocabulary at every position, not multiplied out: B x T x V numbers are for nobody's memory.

    The score of word v at a position with hidden state h is <head(h), weight_v> + head.bias_v; states [B, T, D], weight [V, E].
    """

    head: nn.Module
    states: Tensor
    weight: Tensor

    @property
    def bias(self) -> Tensor:
        """[V]."""
        return self.head.bias

    def features(self, where_BT: Tensor) -> Tensor:
        """head(h) [N, E] at the positions of the mask [B, T], row by row."""
        return self.head(self.states[where_BT])


PADDING_LOGIT = -1e4  # no weight in any softmax, and finite: differences and products of it are no nan


@dataclass(frozen=True)
class Outputs:
    """What one forward pass computed.

    logits      [B, C] float32; C = 1 for regression. Of answers in a text [B, T, C], what each token is to the answer: its start,
                its end; PADDING_LOGIT at padding.
    hidden      depth + 1 tensors [B, T, D]: H[0] the embeddings, H[n] the output of layer n; the last one has passed the
                adaptor where the model has one. From a cache: None where H[n] was not kept, [B, 1, D] where only [CLS] was.
    projections layer n -> its queries, keys and values, each [B, T, D] with the heads side by side; for the layers that
                Encoder.keep_projections() named.
    senses      [B, T] int64, the index of each token's sense within its type, -1 where the type has none; only from
                teachers that know a sense dictionary.
    pooled      [B, D], what the head read of every sequence, [B, T, D] of answers in a text; only from encoders with one head for
                a task.
    exits       layer n -> its logits [B, C] float32, of a network that answers after several layers (models/exits.py);
                `logits` is one of them.
    words       what scores the vocabulary, of masked language models; encoders of text have no `logits`.
    """

    logits: Tensor | None
    hidden: tuple[Tensor | None, ...] = ()
    projections: Mapping[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    senses: Tensor | None = None
    pooled: Tensor | None = None
    exits: Mapping[int, Tensor] = field(default_factory=dict)
    words: Words | None = None

    @property
    def nothing(self) -> Tensor:
        """0, as a function of every parameter that was read: so that each has a gradient in every step, which ranks wait for."""
        if self.words is not None:
            return 0.0 * (self.words.head(self.words.states[:1, :1]).sum() + self.words.bias.sum())
        return 0.0 * (self.hidden[-1][:1, :1] if self.logits is None else self.logits).sum()
