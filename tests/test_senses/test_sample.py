"""The bounded sample: exact, uniform, and a function of (seed, sequence, position) alone."""

import numpy as np
import pytest

from data_utils.encode import EncodedDataset
from distill.senses import sample as sampling
from distill.senses.sample import priorities, sample_occurrences


def synthetic(lengths: list[int], ids: np.ndarray) -> EncodedDataset:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return EncodedDataset(np.arange(len(lengths)), ids.astype(np.int32), offsets, np.asarray(lengths), np.full(len(lengths), -1))


def random_corpus(sequences: int, types: int, seed: int = 0) -> tuple[EncodedDataset, np.ndarray]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 30, sequences)
    ids = (types * draw.random(lengths.sum()) ** 3).astype(np.int64)  # some types are frequent
    return synthetic(lengths, ids), np.bincount(ids, minlength=types + 5)


@pytest.mark.parametrize("chunk", [1, 7, 100, 5000])
def test_the_sample_does_not_depend_on_how_the_corpus_is_cut_for_reading(chunk, monkeypatch):
    corpus, counts = random_corpus(400, 40)
    expected = sample_occurrences(corpus, counts, cap=20, seed=3)
    monkeypatch.setattr(sampling, "CHUNK_TOKENS", chunk)
    found = sample_occurrences(corpus, counts, cap=20, seed=3)
    for name in ("place", "row", "offsets"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_the_sample_holds_each_types_smallest_priorities_and_no_more_than_cap():
    corpus, counts = random_corpus(300, 30)
    found = sample_occurrences(corpus, counts, cap=15, seed=9)
    sequence = np.repeat(np.arange(len(corpus)), corpus.lengths)
    key = priorities(sequence, np.arange(len(corpus.ids)) - corpus.offsets[sequence], 9)
    for token in range(len(counts)):
        places = np.flatnonzero(corpus.ids == token)
        smallest = np.sort(places[np.argsort(key[places])][:15])
        own = found.place[corpus.ids[found.place] == token]
        assert np.array_equal(own, smallest)
        rows = found.row[corpus.ids[found.place] == token]
        assert np.array_equal(np.sort(rows), np.arange(found.offsets[token], found.offsets[token + 1]))
    assert np.all(np.diff(found.place) > 0)


def test_a_priority_is_a_function_of_seed_sequence_and_position_alone():
    sequence, position = np.array([5, 0, 123456, 5]), np.array([2, 0, 511, 3])
    alone = [int(priorities(sequence[i:i + 1], position[i:i + 1], 42)[0]) for i in range(4)]
    assert priorities(sequence, position, 42).tolist() == alone and len(set(alone)) == 4
    assert priorities(sequence, position, 43).tolist() != alone


def test_the_sample_is_uniform_over_sequences_and_positions():
    sequences, length, cap, seeds = 100, 20, 200, 200
    corpus = synthetic([length] * sequences, np.zeros(sequences * length))
    taken = np.zeros(sequences * length)
    for seed in range(seeds):
        taken[sample_occurrences(corpus, np.array([sequences * length]), cap, seed).place] += 1
    assert taken.sum() == cap * seeds
    share = cap / (sequences * length)
    for observed in (taken.reshape(sequences, length).sum(0), taken.reshape(sequences, length).sum(1), taken):
        expected = observed.sum() / len(observed)
        statistic = ((observed - expected) ** 2).sum() / (expected * (1 - share))  # chi-square, len - 1 degrees of freedom
        freedom = len(observed) - 1
        assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5
