"""The terms of pre-training distillation that score words, or compare the direction of hidden states."""

from torch import Tensor

from data_utils.text.batches import TextBatch
from data_utils.text.masking import IGNORED
from distill.losses import cosine_distance
from distill.teacher import Wanted
from distill.terms import HiddenStates, Pairs, Term
from distill.vocabulary_losses import soft_words, word_cross_entropy
from models.trunk import Trunk

PLACES = ("masked", "tokens")  # where soft targets are read: at masked positions, or at all real ones


def chosen(batch: TextBatch, place: str) -> Tensor:
    """Mask [B, T] of the positions that `place` names."""
    return batch.target != IGNORED if place == "masked" else batch.attention_mask.bool()


class MaskedWords(Term):
    """The words that were masked, per masked token."""

    name = "mlm"

    def count(self, batch):
        return batch.masked

    def forward(self, student, teacher, batch):
        where, words = chosen(batch, "masked"), student.words
        return word_cross_entropy(words.features(where), words.weight, words.bias, batch.target[where])


class SoftWords(Term):
    """The teacher's distribution over the vocabulary at a temperature, per masked or per real token."""

    name = "kl"
    wanted = Wanted(words=True)

    def __init__(self, place: str, temperature: float):
        super().__init__()
        self.place, self.temperature = place, temperature

    def count(self, batch):
        return batch.masked if self.place == "masked" else batch.tokens

    def forward(self, student, teacher, batch):
        where = chosen(batch, self.place)
        own, taught = ((words.features(where), words.weight, words.bias) for words in (student.words, teacher.words))
        return soft_words(*own, taught, self.temperature)


class Directions(HiddenStates):
    """1 - cosine of the hidden states, summed over pairs of layers; per real token, or at [CLS] alone, per row or packed piece."""

    name = "cos"
    distance = staticmethod(cosine_distance)

    def __init__(self, pairs: Pairs, student: Trunk, teacher: Trunk, at_cls: bool):
        super().__init__(pairs, student, teacher)
        self.at_cls = at_cls

    def places(self, batch) -> Tensor:
        return batch.starts if self.at_cls else super().places(batch)

    def count(self, batch):
        return int(self.places(batch).sum())
