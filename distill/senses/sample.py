"""An exact uniform sample of at most `cap` occurrences of every type, in one pass and bounded memory."""

from dataclasses import dataclass

import numpy as np

from data_utils.draws import splitmix64
from data_utils.encode import EncodedDataset

CHUNK_TOKENS = 1 << 20


@dataclass(frozen=True)
class Sample:
    """Sampled occurrences, sorted by place in the corpus.

    place int64 [S]    index into the corpus's ids
    row   int64 [S]    where the occurrence's vector goes: the rows of a type are consecutive
    offsets int64 [V + 1]  type w owns the rows offsets[w] : offsets[w + 1]
    """

    place: np.ndarray
    row: np.ndarray
    offsets: np.ndarray

    def held(self, corpus: EncodedDataset) -> np.ndarray:
        """How many of each sequence's occurrences are in the sample."""
        return np.diff(np.searchsorted(self.place, corpus.offsets))

    def of(self, sequences: np.ndarray, corpus: EncodedDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sampled occurrences in `sequences`: index into `sequences`, position in the sequence, row."""
        first = np.searchsorted(self.place, corpus.offsets[sequences])
        count = np.searchsorted(self.place, corpus.offsets[sequences + 1]) - first
        line = np.repeat(np.arange(len(sequences)), count)
        taken = first[line] + np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)
        return line, self.place[taken] - corpus.offsets[sequences][line], self.row[taken]


def priorities(sequence: np.ndarray, position: np.ndarray, seed: int) -> np.ndarray:
    """A uniform uint64 for each occurrence: a function of (seed, sequence, position) and of nothing else."""
    key = splitmix64(np.full(1, seed, np.uint64)) ^ (sequence.astype(np.uint64) << np.uint64(16) | position.astype(np.uint64))
    return splitmix64(key)


def sample_occurrences(corpus: EncodedDataset, counts: np.ndarray, cap: int, seed: int) -> Sample:
    """Bottom-k sampling: of each type, the `cap` occurrences of the smallest priority.

    Independent of the order of reading and of the number of processes. Memory: the sample and one chunk.
    """
    kept = np.minimum(counts, cap)
    limit = np.full(len(counts), np.iinfo(np.uint64).max, np.uint64)  # an occurrence above its type's limit is out
    pool = np.empty(0, np.int64), np.empty(0, np.uint64)
    for first, last in _chunks(corpus.offsets):
        start, end = corpus.offsets[first], corpus.offsets[last]
        lengths = np.diff(corpus.offsets[first:last + 1])
        sequence = np.repeat(np.arange(first, last), lengths)
        place = np.arange(start, end)
        priority = priorities(sequence, place - corpus.offsets[sequence], seed)
        inside = priority <= limit[corpus.ids[start:end]]
        pool = np.concatenate([pool[0], place[inside]]), np.concatenate([pool[1], priority[inside]])
        if len(pool[0]) > kept.sum() + CHUNK_TOKENS:
            pool = _prune(*pool, corpus.ids, cap, limit)
    place, _ = _prune(*pool, corpus.ids, cap, limit)
    place.sort()
    row = np.empty(len(place), np.int64)
    row[np.argsort(corpus.ids[place], kind="stable")] = np.arange(len(place))
    return Sample(place, row, np.concatenate([[0], np.cumsum(kept, dtype=np.int64)]))


def _chunks(offsets: np.ndarray):
    """Runs [first, last) of whole sequences with about CHUNK_TOKENS tokens."""
    first, sequences = 0, len(offsets) - 1
    while first < sequences:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + CHUNK_TOKENS, "right")) - 1)
        yield first, last
        first = last


def _prune(place: np.ndarray, priority: np.ndarray, ids: np.ndarray, cap: int, limit: np.ndarray):
    """Keep each type's `cap` smallest; lower `limit` (in place) of the types that are full."""
    types = ids[place]
    order = np.lexsort((priority, types))
    types, place, priority = types[order], place[order], priority[order]
    first = np.r_[True, types[1:] != types[:-1]]
    rank = np.arange(len(types)) - np.maximum.accumulate(np.where(first, np.arange(len(types)), 0))
    full = rank == cap - 1
    limit[types[full]] = priority[full]
    inside = rank < cap
    return place[inside], priority[inside]
