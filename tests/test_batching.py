"""Batches: padding, the token budget, the order of the examples, sharing out over ranks."""

import numpy as np
import pytest
import torch

from data_utils.batching import InTurn, TrainStream, collate, sequential_batches, token_budget
from data_utils.encode import EncodedDataset

PAD = 9


def dataset(lengths: list[int], uid_from: int = 100) -> EncodedDataset:
    """Sequences of these lengths; every token's id names its example and its place; a second segment from token 2."""
    ids = [1000 * row + place for row, length in enumerate(lengths) for place in range(length)]
    return EncodedDataset(uid=np.arange(len(lengths)) + uid_from, ids=np.array(ids, np.int32),
                          offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                          second=np.minimum(2, lengths).astype(np.int32), target=np.arange(len(lengths)))


def stream(count=103, batch_size=8, seed=1) -> TrainStream:
    lengths = np.random.default_rng(0).integers(3, 30, count).tolist()
    return TrainStream(dataset(lengths), "task", PAD, batch_size, seed)


def examples(batch) -> dict[int, tuple]:
    """What a batch holds, by uid, padding cut off."""
    return {int(uid): (ids[mask.bool()].tolist(), types[mask.bool()].tolist(), int(target))
            for uid, ids, mask, types, target in zip(batch.uid, batch.input_ids, batch.attention_mask,
                                                     batch.token_type_ids, batch.target, strict=True)}


def test_collate_pads_on_the_right_to_the_longest_example():
    batch = collate(dataset([3, 1, 4]), np.array([2, 1]), "task", PAD)
    assert batch.input_ids.tolist() == [[2000, 2001, 2002, 2003], [1000, PAD, PAD, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert batch.uid.tolist() == [102, 101] and batch.target.tolist() == [2, 1]
    assert batch.tokens == 5 and len(batch) == 2


def test_a_batch_moves_to_a_device_without_its_uids_which_are_looked_up_here():
    batch = collate(dataset([3, 1, 4]), np.array([2, 1]), "task", PAD)
    moved = batch.to("meta")
    assert moved.uid is batch.uid
    assert {tensor.device.type for tensor in (moved.input_ids, moved.attention_mask, moved.token_type_ids, moved.target)} == {"meta"}


@pytest.mark.parametrize("max_tokens", [1, 20, 64, 10_000])
def test_micro_batches_keep_the_token_budget_and_lose_no_example(max_tokens):
    whole = stream(batch_size=40).next()
    parts = whole.split(max_tokens)
    for part in parts:
        assert part.input_ids.numel() <= max_tokens or len(part) == 1
        assert part.input_ids.shape[1] == int(part.attention_mask.sum(1).max()), "padded beyond its longest example"
    assert sum(len(part) for part in parts) == len(whole)
    assert {uid: found for part in parts for uid, found in examples(part).items()} == examples(whole)


def test_micro_batches_are_as_full_as_the_token_budget_allows():
    batch = collate(dataset([5] * 12), np.arange(12), "task", PAD)
    assert [len(part) for part in batch.split(20)] == [4, 4, 4]
    assert [len(part) for part in batch.split(24)] == [4, 4, 4]
    assert [len(part) for part in batch.split(25)] == [5, 5, 2]


def test_token_budget_cuts_an_order_into_consecutive_runs():
    lengths = np.array([2, 9, 3, 3, 3])
    runs = list(token_budget(np.array([4, 1, 0, 2, 3]), lengths, 9))
    assert [run.tolist() for run in runs] == [[4], [1], [0, 2, 3]]
    assert list(token_budget(np.array([], int), lengths, 9)) == []


def test_sequential_batches_read_everything_once_longest_first():
    lengths = np.random.default_rng(3).integers(1, 50, 200)
    batches = sequential_batches(lengths, 128)
    assert sorted(np.concatenate(batches)) == list(range(200))
    in_order = lengths[np.concatenate(batches)]
    assert (np.diff(in_order) <= 0).all()
    assert all(len(rows) * lengths[rows].max() <= 128 for rows in batches)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_a_batch_out_exactly_and_evenly(world):
    whole = stream(batch_size=31).next()
    shares = [whole.shard(rank, world) for rank in range(world)]
    assert {uid: found for share in shares for uid, found in examples(share).items()} == examples(whole)
    assert sum(len(share) for share in shares) == len(whole)
    tokens = [share.tokens for share in shares]
    assert max(tokens) - min(tokens) <= int(whole.attention_mask.sum(1).max()), "work is not shared out by length"


def test_a_rank_without_an_example_gets_none():
    two = stream(batch_size=2).next()
    assert [two.shard(rank, 3) is None for rank in range(3)] == [False, False, True]


def test_rank_0_has_the_most_micro_batches():
    source = stream(batch_size=40)
    counts = [[len(whole.shard(rank, world).split(max_tokens)) for rank in range(world)]
              for whole in (source.next(), source.next()) for world in (2, 3, 7) for max_tokens in (1, 30, 47, 64, 90)]
    assert all(found[0] == max(found) for found in counts) and any(min(found) < max(found) for found in counts)


@pytest.mark.parametrize("count, batch_size", [(103, 8), (8, 8), (5, 8), (600, 4)])
def test_an_epoch_holds_every_example_once(count, batch_size):
    source = stream(count, batch_size)
    assert source.steps_per_epoch == -(-count // batch_size)
    for _ in range(2):
        batches = [source.next() for _ in range(source.steps_per_epoch)]
        assert sorted(int(uid) for batch in batches for uid in batch.uid) == [100 + row for row in range(count)]
        assert all(len(batch) <= batch_size for batch in batches)


def test_the_order_is_a_function_of_seed_and_epoch_and_of_no_global_generator():
    def orders(source, epochs):
        return [np.concatenate(source.epoch_order(epoch)).tolist() for epoch in epochs]

    first = orders(stream(seed=1), [0, 1, 2])
    np.random.seed(5), torch.manual_seed(5)
    assert orders(stream(seed=1), [2, 1, 0]) == first[::-1]
    assert first[0] != first[1] and orders(stream(seed=2), [0]) != first[:1]
    read = stream(seed=1)
    read_uids = [uid for _ in range(2 * read.steps_per_epoch) for uid in read.next().uid.tolist()]
    assert read_uids == [100 + row for row in first[0] + first[1]]


def test_batches_hold_similar_lengths_in_random_order():
    source = stream(count=256, batch_size=8)
    batches = [source.next() for _ in range(source.steps_per_epoch)]
    padded = sum(batch.input_ids.numel() for batch in batches)
    assert padded < 1.1 * sum(batch.tokens for batch in batches)
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths != sorted(widths) and widths != sorted(widths, reverse=True)


def test_a_saved_position_goes_on_in_the_middle_of_an_epoch():
    source, other = stream(), stream()
    for _ in range(source.steps_per_epoch + 5):
        source.next()
    other.load_state_dict(source.state_dict())
    for _ in range(source.steps_per_epoch):
        assert torch.equal(source.next().input_ids, other.next().input_ids)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_batch_that_is_made_ahead_is_the_one_that_comes_and_is_no_part_of_the_state(streams):
    """Also where the state is set in between."""
    plain, ahead, other = (InTurn([stream(batch_size=3 + number) for number in range(streams)]) for _ in range(3))
    for _ in range(2 * plain.steps_per_epoch):
        ahead.prepare()
        assert ahead.state_dict() == plain.state_dict()
        assert torch.equal(ahead.next().uid, plain.next().uid)
    other.prepare()
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.next().uid, plain.next().uid)


def test_selected_examples_lose_the_padding_that_others_needed():
    batch = collate(dataset([3, 1, 4]), np.arange(3), "task", PAD)
    part = batch.select([1, 0])
    assert part.input_ids.tolist() == [[1000, PAD, PAD], [0, 1, 2]]
    assert part.uid.tolist() == [101, 100] and part.task == "task"
