"""Batches of masked text and the order in which they come: a pure function of (seed, position)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_utils.batching import Divisible, Shuffled, sequential_batches
from data_utils.corpus import Corpus
from data_utils.tasks import TEXT
from data_utils.text.masking import IGNORED, Masking
from data_utils.text.rows import Rows, RowTokens, lay_out

TRAINING, FIXED = 1, 2  # what a generator of masks is for; never 0, which a seed's end would swallow


@dataclass(frozen=True)
class TextBatch(Divisible):
    """B rows of text, padded on the right to the longest, T.

    uid [B] int64, the row's number in its layout; input_ids, attention_mask, token_type_ids [B, T] int64 (types all 0);
    target [B, T] int64: the token that was there where one is to be guessed, IGNORED elsewhere.
    Packed rows: position_ids [B, T] int64 restart at each piece, and pieces [B, T] int64 is the number of a token's piece in its row, from
    1 on, 0 in padding: a token attends to its own piece alone. Both are None in other layouts.
    """

    task: str
    uid: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    target: Tensor
    position_ids: Tensor | None = None
    pieces: Tensor | None = None

    @property
    def masked(self) -> int:
        """Positions with a label."""
        return int((self.target != IGNORED).sum())

    @property
    def visible(self) -> Tensor:
        """The tokens that each token sees: [B, T], the real ones; [B, T, T] in packed rows, those of its piece. Padding sees itself there:
        a softmax over nothing is not a number."""
        return self.attention_mask if self.pieces is None else self.pieces[:, :, None] == self.pieces[:, None]

    @property
    def pairs(self) -> int:
        """Pairs of real tokens of which one sees the other, in all rows."""
        if self.pieces is None:
            return int(self.attention_mask.sum(1).square().sum())
        numbered = self.pieces + torch.arange(len(self))[:, None] * self.pieces.shape[1]
        return int(numbered[self.pieces > 0].bincount().square().sum())

    @property
    def starts(self) -> Tensor:
        """Mask [B, T] of the [CLS] of every row, in packed rows of every piece."""
        position = torch.arange(self.input_ids.shape[1], device=self.input_ids.device) if self.position_ids is None else self.position_ids
        return (position == 0) & self.attention_mask.bool()

    @property
    def sizes(self) -> np.ndarray:
        """Real tokens of each row [B]."""
        return self.attention_mask.sum(1).numpy()

    def select(self, rows: Sequence[int] | np.ndarray) -> "TextBatch":
        index = torch.as_tensor(np.asarray(rows))
        width = int(self.attention_mask[index].sum(1).max())
        return TextBatch(self.task, self.uid[index], *(None if tensor is None else tensor[index, :width] for tensor in self._wide))

    def to(self, device) -> "TextBatch":
        """The same on `device`, but for the numbers of rows."""
        return TextBatch(self.task, self.uid, *(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self._wide))

    @property
    def _wide(self) -> tuple[Tensor | None, ...]:
        """Those of [B, T]."""
        return self.input_ids, self.attention_mask, self.token_type_ids, self.target, self.position_ids, self.pieces


def _batch(rows: np.ndarray, tokens: RowTokens, shown: np.ndarray, target: np.ndarray) -> TextBatch:
    real = torch.from_numpy(tokens.real.astype(np.int64))
    packed = [None if array is None else torch.from_numpy(array) for array in (tokens.positions, tokens.pieces)]
    return TextBatch(TEXT.name, torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(shown), real, torch.zeros_like(real),
                     torch.from_numpy(target), *packed)


def unmasked(tokens: RowTokens) -> TextBatch:
    """These rows as they are, nothing to be guessed."""
    return _batch(np.arange(len(tokens.ids)), tokens, tokens.ids, np.full_like(tokens.ids, IGNORED))


class TextStream(Shuffled):
    """Shuffled batches of rows of text. Masks are drawn anew each time, over the whole batch: a function of (seed, position), whatever ranks
    and micro-batches."""

    def __init__(self, corpus: Corpus, documents: np.ndarray, layout: str, length: int, batch_size: int, seed: int, masking: Masking):
        self.rows, self.masking = lay_out(corpus, documents, layout, length), masking
        super().__init__(self.rows.sizes, batch_size, seed)

    def read(self, position: int) -> TextBatch:
        generator = np.random.default_rng([self.seed, position, TRAINING])
        rows = self.rows_of(position)
        tokens = self.rows.read(rows)
        return _batch(rows, tokens, *self.masking.apply(tokens.ids, tokens.real, generator))


class FixedBatches:
    """Every row once, longest first, in batches of at most `max_tokens` padded tokens: a sequence of batches that are the same each
    time. A row's masks are a function of (seed, row) alone, so that scores depend on no batch size."""

    def __init__(self, rows: Rows, masking: Masking, seed: int, max_tokens: int):
        self.rows, self.masking, self.seed = rows, masking, seed
        self.batches = sequential_batches(rows.sizes, max_tokens)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> TextBatch:
        rows = self.batches[index]
        tokens = self.rows.read(rows)
        drawn = [self.masking.apply(tokens.ids[place:place + 1], tokens.real[place:place + 1], np.random.default_rng([self.seed, row, FIXED]))
                 for place, row in enumerate(rows)]
        return _batch(rows, tokens, *map(np.concatenate, zip(*drawn)))


def fixed_batches(corpus: Corpus, documents: np.ndarray, layout: str, length: int, masking: Masking, seed: int, max_tokens: int) -> FixedBatches:
    """The rows of `documents` to evaluate on."""
    return FixedBatches(lay_out(corpus, documents, layout, length), masking, seed, max_tokens)
