"""What pre-training adds to distillation: operations that are counted, documents that are held out."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data_utils.corpus import Corpus
from data_utils.draws import HELD_OUT
from data_utils.text.batches import TextBatch, fixed_batches
from data_utils.text.masking import IGNORED, Masking
from distill import workers
from distill.config import digest
from distill.distillation import Distillation, WeightedTerm
from distill.precision import autocast
from distill.progress import bar
from distill.scores import Scores
from distill.sharding import is_sharded
from distill.teacher import Teacher
from distill.vocabulary_losses import best_words
from models.layers import layer_stack
from models.masked_lm import MaskedLM
from models.outputs import Words
from models.text_encoder import TextEncoder

VALIDATION_SEED = 0
JUDGED = 2**21  # tokens held out: 300,000 masked ones, whose share found is known to a tenth of a per cent
WORD_TERMS = {"mlm", "kl"}  # those that read scores of words
logger = logging.getLogger(__name__)


class Pretraining(Distillation):
    """The terms of pre-training, and the operations of their matrix products.

    A layer of n tokens costs 2 n times its weights, and 4 D for each pair of tokens of which one sees the other; a scored word 2 E;
    backward as much again, twice. The products of relations and scores, a few per cent, are left out.
    """

    def __init__(self, teacher: Teacher | None, terms: Sequence[WeightedTerm], student: TextEncoder, source: MaskedLM | None):
        super().__init__(teacher, terms)
        reads = self.wanted
        passes = [(student, 3 if next(student.backbone.parameters()).requires_grad else 1, student.depth)]
        if reads.words or reads.layers:
            passes.append((source, 1, source.depth if reads.words else reads.layers))
        self.layer_costs = [(times * 2.0 * _layer_weights(model, depth), times * 4.0 * depth * model.config.hidden_size)
                            for model, times, depth in passes]  # for a token, for a pair
        own, other = (2.0 * model.backbone.get_input_embeddings().weight.numel() if model else 0.0 for model in (student, source))
        self.word_costs = {"mlm": 3 * own, "kl": 3 * own + other}

    def flops(self, batch: TextBatch) -> float:
        tokens, pairs = batch.tokens, batch.pairs
        layers = sum(of_token * tokens + of_pair * pairs for of_token, of_pair in self.layer_costs)
        return layers + sum(cost * self.terms[name].count(batch) for name, cost in self.word_costs.items() if name in self.terms)


def freeze_unread(objective: Pretraining, student: TextEncoder, batch: TextBatch, cfg) -> None:
    """No parameter of `student` is trained that no term reads, which `batch` tells: relations do not read the last layer's output. Its
    gradient would be zero, and weight decay would shrink it (over MiniLMv2's 400,000 steps to a third)."""
    device = workers.device()
    student.to(device).eval()
    objective.to(device)
    batch = batch.to(device)
    with autocast(cfg, device):
        sums = objective.bare_sums(student(batch), objective.teacher(batch), batch, objective.weights(1.0))
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(sum(sums.values()), trained, allow_unused=True), strict=True):
        parameter.requires_grad_(gradient is not None)


def _layer_weights(model: TextEncoder, depth: int) -> int:
    owner, name = layer_stack(model.backbone)
    return sum(parameter.numel() for layer in getattr(owner, name)[:depth] for parameter in layer.parameters() if parameter.dim() > 1)


def judged_on(corpus: Corpus, layout: str, max_length: int) -> str:
    """Digest of what the held-out words and their masks are a function of: runs that share it compare."""
    return digest({"corpus": corpus.fingerprint, "layout": layout, "max_length": max_length})


def judged_batches(corpus: Corpus, layout: str, max_length: int, masking: Masking) -> Sequence[TextBatch]:
    """Held-out documents, the same and masked alike in every run: about JUDGED tokens at most, in minutes, however large the corpus."""
    held = corpus.split()[1]
    every = math.ceil(int(np.diff(corpus.offsets)[held].sum()) / JUDGED)
    return fixed_batches(corpus, held[::max(1, every)], layout, max_length, masking, VALIDATION_SEED, workers.batch_tokens())


@dataclass(frozen=True)
class Judged:
    """What a batch gave: sums and counts of the terms, how many words were masked, how many the student found, and the teacher where
    its words are read."""

    sums: dict[str, float]
    counts: dict[str, int]
    masked: int
    found: int
    by_teacher: int


class Validation:
    """Scores a student on batches that stay the same: each term of its loss, and the share of masked words that it finds, where they
    are learned; the teacher's share is said once. What selects is the weighted sum of the terms, the lower the better.
    """

    def __init__(self, objective: Pretraining, batches: Sequence[TextBatch], cfg):
        self.objective, self.batches, self.cfg = objective, batches, cfg
        self.compares = objective.wanted.words  # until the teacher's share is said

    def __call__(self, student: TextEncoder, to_beat: float = -math.inf) -> Scores:
        self.objective.eval()
        mine = workers.share(list(range(len(self.batches))))
        judged: dict[int, list[Judged]] = {}
        with bar(len(mine), "evaluate", "batch") as progress_bar:
            for index in mine:
                batch = self.batches[index]
                found = workers.where_it_fits(lambda rows: self._judge(student, batch.select(rows)), np.arange(len(batch)), is_sharded(student))
                judged[index] = [part for _, part in found]
                progress_bar.update()
        by_index = {index: found for rank in workers.gather(judged) for index, found in rank.items()}
        parts = [part for index in sorted(by_index) for part in by_index[index]]
        terms = {name: sum(part.sums[name] for part in parts) / max(sum(part.counts[name] for part in parts), 1) for name in parts[0].sums}
        weights = self.objective.weights(1.0)
        loss = sum(weights[name] * value for name, value in terms.items())
        if not WORD_TERMS & terms.keys():
            return Scores({}, -loss, selected_on=HELD_OUT, terms=terms)
        masked = sum(part.masked for part in parts)
        share, name = sum(part.found for part in parts) / masked, f"{HELD_OUT}/accuracy"
        if self.compares:
            logger.info("of the held-out masked words the teacher finds %.1f %%, the student %.1f %% so far",
                        100 * sum(part.by_teacher for part in parts) / masked, 100 * share)
            self.compares = False
        error = (share * (1 - share) / masked) ** 0.5
        return Scores({name: share}, -loss, {name: error}, {name: masked}, HELD_OUT, terms=terms)

    def _judge(self, student: TextEncoder, batch: TextBatch) -> Judged:
        counts, batch = self.objective.counts(batch), batch.to(workers.device())
        where = batch.target != IGNORED

        def right(words: Words) -> int:
            return int((best_words(words.features(where), words.weight, words.bias) == batch.target[where]).sum())

        with autocast(self.cfg, workers.device()):
            outputs, taught = student(batch), self.objective.teacher(batch)
            sums = self.objective.sums(outputs, taught, batch, self.objective.weights(1.0))
            by_teacher = right(taught.words) if self.compares else 0
            return Judged({name: float(value) for name, value in sums.items()}, counts, int(where.sum()), right(outputs.words) if outputs.words else 0, by_teacher)
