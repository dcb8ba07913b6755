"""Masked language modelling: which tokens are to be guessed, and what stands in their place."""

import math
from collections.abc import Sequence

import numpy as np

IGNORED = -100  # the target where nothing is to be guessed
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the rest is kept


class Masking:
    """Of a batch's real tokens that are not special, ceil(probability x their number) are chosen, without replacement: alike, or where
    `counts` are given with weights max(count, 1)^-smoothing, so that rare tokens are learned too. Of the chosen, 80 % become `mask_id`, 10 %
    any ordinary token, 10 % stay.

    special_ids: never chosen, never put in another's place. counts int64 [vocabulary]: how often each token occurs in the corpus.
    Source: BERT (Devlin et al. 2019); smoothing and the draw over the whole batch: DistilBERT's code.
    """

    def __init__(self, special_ids: Sequence[int], mask_id: int, vocabulary: int, counts: np.ndarray | None = None, probability: float = 0.15,
                 smoothing: float = 0.7):
        if not 0 <= probability < 1:
            raise ValueError(f"{probability} of the tokens masked: expected a share below 1, such as 0.15; 0 masks nothing")
        if counts is not None and len(counts) != vocabulary:
            raise ValueError(f"counts of {len(counts)} tokens for a vocabulary of {vocabulary}: give those of the corpus that is masked")
        self.mask_id, self.probability = mask_id, probability
        self.special = np.zeros(vocabulary, bool)
        self.special[list(special_ids)] = True
        self.ordinary = np.flatnonzero(~self.special)
        self.log_weights = None if counts is None else -smoothing * np.log(np.maximum(counts, 1))

    def apply(self, ids: np.ndarray, real: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(input ids, target) [B, T] for ids int64 [B, T] and real bool [B, T]; target: the token that was there, or IGNORED."""
        places = np.flatnonzero(real & ~self.special[ids])
        chosen = places[self._choose(ids.reshape(-1)[places], generator)]
        fate = generator.random(len(chosen))
        strangers = self.ordinary[generator.integers(len(self.ordinary), size=len(chosen))]
        told = ids.reshape(-1)[chosen]
        shown, target = ids.copy(), np.full_like(ids, IGNORED)
        target.reshape(-1)[chosen] = told
        shown.reshape(-1)[chosen] = np.where(fate < MASKED_SHARE, self.mask_id, np.where(fate < MASKED_SHARE + RANDOM_SHARE, strangers, told))
        return shown, target

    def _choose(self, tokens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Which of `tokens`, rising: the largest of log weight + Gumbel noise are a draw without replacement by weight (Gumbel top-k)."""
        number = math.ceil(round(self.probability * len(tokens), 6))  # rounded: 0.15 x 140 is 21
        keys = generator.gumbel(size=len(tokens))
        if self.log_weights is not None:
            keys += self.log_weights[tokens]
        return np.sort(np.argpartition(-keys, number - 1)[:number]) if number else np.zeros(0, np.int64)
