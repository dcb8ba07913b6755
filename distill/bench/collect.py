"""Keeping sampled states, the host's side: against the published loop over tokens into lists; and the memory that it takes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_utils.batching import sequential_batches
from data_utils.encode import EncodedDataset
from data_utils.tasks import get_task
from distill.bench.corpus import encoder_for, sentences
from distill.bench.memory import peak_growth
from distill.bench.timing import Comparison, timed
from distill.senses.build import keep_sampled
from distill.senses.sample import CHUNK_TOKENS, sample_occurrences
from distill.senses.states import MappedStates

PASS_TOKENS = 8192  # padded tokens of a batch
ALL = 1 << 30  # no cap: both sides keep every occurrence
TIMES_THE_SAMPLE = 10  # so large is the corpus on which memory is measured
INDEX_BYTES = 128  # per token of the chunk that is sampled at a time


def comparisons(cfg) -> Iterator[Comparison]:
    """Per token, on states that the encoder is spared: random ones, of its width, on the CPU."""
    task = get_task(cfg.task)
    encoder = encoder_for(cfg, task)
    corpus = sentences(cfg, encoder, task, cfg.tokens // 4)
    batches = sequential_batches(corpus.lengths, PASS_TOKENS)
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(len(rows), int(corpus.lengths[rows].max()), encoder.width, generator=draw) for rows in batches]
    with tempfile.TemporaryDirectory() as folder:
        keeping = Keeping(corpus, batches, states, Path(folder) / "vectors")
        yield Comparison("keeping states, host side", "a Python loop over tokens into lists, as published", "tokens",
                         timed(keeping.ours, len(corpus.ids)), timed(keeping.theirs, len(corpus.ids)),
                         lambda: f"{keeping.check()}; {memory_of_a_sample(sentences(cfg, encoder, task, cfg.tokens), encoder.width)}")


def memory_of_a_sample(corpus: EncodedDataset, width: int) -> str:
    """Sample and keep of a corpus TIMES_THE_SAMPLE larger than the sample; ValueError where memory follows the corpus."""
    counts = np.bincount(corpus.ids)
    cap = max(cap for cap in range(1, 1000) if cap == 1 or TIMES_THE_SAMPLE * counts.clip(max=cap).sum() <= counts.sum())
    batches, size = sequential_batches(corpus.lengths, PASS_TOKENS), 2 * width * int(counts.clip(max=cap).sum())
    states = torch.randn(PASS_TOKENS * width)

    def keep_all() -> None:
        sample = sample_occurrences(corpus, counts, cap, seed=0)
        kept = MappedStates(Path(folder) / "vectors", (len(sample.row), width))
        for rows in batches:
            length = int(corpus.lengths[rows].max())
            keep_sampled(states[:len(rows) * length * width].view(len(rows), length, width), rows, corpus, sample, kept)

    with tempfile.TemporaryDirectory() as folder:
        grown = peak_growth(keep_all)
    allowed = 2 * (size + 2 * width * PASS_TOKENS) + INDEX_BYTES * min(len(corpus.ids), CHUNK_TOKENS)
    if grown > allowed:
        raise ValueError(f"keeping {size / 2**20:.1f} MiB of states took {grown / 2**20:.1f} MiB: expected at most "
                         f"{allowed / 2**20:.1f} MiB")
    return (f"{grown / 2**20:.0f} MiB of memory for a sample of {size / 2**20:.0f} MiB of "
            f"{2 * width * len(corpus.ids) / 2**20:.0f} MiB of states")


class Keeping:
    """States of every token by type, our way into a mapped file, and token by token into a dict of lists."""

    def __init__(self, corpus: EncodedDataset, batches: list[np.ndarray], states: list[Tensor], file: Path):
        self.corpus, self.batches, self.states = corpus, batches, states
        self.ids = [[torch.from_numpy(corpus.ids[slice(*corpus.offsets[row:row + 2])]) for row in rows] for rows in batches]
        self.kept = MappedStates(file, (len(corpus.ids), states[0].shape[2]))

    def ours(self) -> None:
        self.sample = sample_occurrences(self.corpus, np.bincount(self.corpus.ids), ALL, seed=0)  # which row is whose: theirs finds it as it goes
        for rows, hidden_BTD in zip(self.batches, self.states):
            keep_sampled(hidden_BTD, rows, self.corpus, self.sample, self.kept)

    def theirs(self) -> dict[int, list[Tensor]]:
        """As published: a dict of lists, each id read out of its tensor."""
        kept: dict[int, list[Tensor]] = {}
        for ids, hidden_BTD in zip(self.ids, self.states):
            for line, of_line in enumerate(ids):
                for column, token in enumerate(of_line):
                    kept.setdefault(token.item(), []).append(hidden_BTD[line, column].half())
        return kept

    def check(self) -> str:
        self.ours()
        kept, offsets = self.theirs(), self.sample.offsets
        for token, states in kept.items():
            ours_ND = np.asarray(self.kept.rows(offsets[token], offsets[token + 1]))
            theirs_ND = torch.stack(states).numpy()
            if not np.array_equal(*(values[np.lexsort(values.T[:4])] for values in (ours_ND, theirs_ND))):
                raise ValueError(f"the states kept for type {token} are not those of the loop")
        return f"the same states of {len(kept)} types"
