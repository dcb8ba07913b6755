"""Pooling, the classification head, and SenseLookup against a plain loop over tokens."""

import math

import pytest
import torch

from models.heads import POOLINGS, ClassificationHead, SenseLookup, check_pooling, pool

WIDTH = 5
SIZES = [3, 0, 1, 2, 0, 3]  # senses of type 0 ... 5


def table() -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {token: torch.randn(size, WIDTH, generator=generator) for token, size in enumerate(SIZES) if size}


@pytest.fixture
def lookup() -> SenseLookup:
    offsets = torch.tensor([0, *SIZES]).cumsum(0)
    return SenseLookup(torch.cat(list(table().values())), offsets)


def tokens(shape, only=range(8), seed=1):
    """Random hidden states and ids; 6 and 7 lie beyond the table."""
    generator = torch.Generator().manual_seed(seed)
    choice = torch.tensor(list(only))
    return (torch.randn(*shape, WIDTH, generator=generator),
            choice[torch.randint(len(choice), shape, generator=generator)])


def plain_choice(hidden: torch.Tensor, token: int) -> int:
    """The index of the best sense of one token by a plain loop, -1 where there is none."""
    best, found = -math.inf, -1
    for index, sense in enumerate(table().get(token, [])):
        product = sum(a * b for a, b in zip(hidden.tolist(), sense.tolist(), strict=True))
        if product > best:
            best, found = product, index
    return found


def test_squares_are_summed_a_part_of_the_table_at_a_time(monkeypatch):
    senses, square, sizes = torch.randn(10, 4), torch.Tensor.square, []
    monkeypatch.setattr("models.heads.SQUARED_ROWS", 4)
    monkeypatch.setattr(torch.Tensor, "square", lambda self: sizes.append(len(self)) or square(self))
    assert torch.equal(SenseLookup(senses, torch.tensor([0, 3, 10]), "distance").half_squares, square(senses).sum(-1) / 2)
    assert sizes == [4, 4, 2]


def test_by_distance_the_nearest_sense_is_chosen_however_long_another_is(lookup):
    by_distance = SenseLookup(lookup.centroids * torch.tensor([1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 9.0, 1.0, 1.0])[:, None], lookup.offsets,
                              "distance")
    hidden, ids = tokens((400,), only=[0, 2, 3, 5])
    senses = [by_distance.centroids[by_distance.offsets[token]:by_distance.offsets[token + 1]] for token in ids]
    nearest = torch.stack([(state - own).norm(dim=1).argmin() for state, own in zip(hidden, senses)])
    assert torch.equal(by_distance.nearest(hidden, ids), nearest)
    assert not torch.equal(SenseLookup(by_distance.centroids, by_distance.offsets).nearest(hidden, ids), nearest)
    expected = [(state.square().sum() - (state - own).square().sum(1)) / 2 for state, own in zip(hidden, senses)]
    for row, wanted in zip(by_distance.scores(hidden, ids), expected):
        torch.testing.assert_close(row[:len(wanted)], wanted, atol=1e-4, rtol=1e-4)


def test_an_unknown_similarity_is_answered_with_the_list(lookup):
    with pytest.raises(ValueError, match="'cosine'.*dot, distance"):
        SenseLookup(lookup.centroids, lookup.offsets, "cosine")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_ignores_padding(pooling):
    hidden = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    disturbed = hidden.clone()
    disturbed[1, 3] = 1e4
    assert torch.equal(pool(hidden, mask, pooling), pool(disturbed, mask, pooling))
    torch.testing.assert_close(pool(hidden, mask, pooling)[1], pool(hidden[1:, :3], mask[1:, :3], pooling)[0])


def test_the_mean_counts_its_tokens_in_float32():
    hidden = torch.ones(1, 301, 2, dtype=torch.bfloat16)
    assert pool(hidden, torch.ones(1, 301, dtype=torch.long), "mean").tolist() == [[1.0, 1.0]]


def test_each_pooling_reads_the_position_it_says():
    hidden = torch.arange(8.0).reshape(1, 4, 2)
    mask = torch.tensor([[1, 1, 1, 0]])
    assert [pool(hidden, mask, name).tolist() for name in POOLINGS] == [[[0, 1]], [[2, 3]], [[2, 3]]]
    assert pool(hidden, torch.ones(1, 4), "mean").tolist() == [[3, 4]]


def test_an_unknown_pooling_is_answered_with_the_list():
    with pytest.raises(ValueError, match="'max'.*cls, first_token, mean"):
        check_pooling("max")


def test_the_head_is_dense_activation_dropout_out_in_float32():
    head = ClassificationHead(WIDTH, 3, "tanh", 0.5).eval()
    pooled = torch.randn(4, WIDTH)
    expected = torch.tanh(pooled @ head.dense.weight.T + head.dense.bias) @ head.out.weight.T + head.out.bias
    torch.testing.assert_close(head(pooled), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(pooled), expected)
    assert not torch.equal(head.train()(pooled), head(pooled)), "dropout does nothing"


def test_scores_are_the_dot_products_with_the_senses_of_the_own_type(lookup):
    hidden, ids = tokens((40,), only=[0, 2, 3, 5])
    scores = lookup.scores(hidden, ids)
    assert scores.shape == (40, 3) and scores.dtype == torch.float32
    for row, (state, token) in enumerate(zip(hidden, ids.tolist(), strict=True)):
        for slot in range(3):
            expected = float(table()[token][slot] @ state) if slot < SIZES[token] else -math.inf
            assert scores[row, slot].item() == pytest.approx(expected, rel=1e-5)


def test_labels_are_those_of_a_plain_loop_and_minus_one_for_types_without_senses(lookup):
    hidden, ids = tokens((6, 11))
    expected = [[plain_choice(state, token) for state, token in zip(*row, strict=True)]
                for row in zip(hidden, ids.tolist(), strict=True)]
    assert lookup.labels(hidden, ids).tolist() == expected
    assert {-1, 0, 1, 2} == set(sum(expected, []))


def test_known_is_false_for_types_without_senses_and_beyond_the_table(lookup):
    assert lookup.known(torch.arange(8)).tolist() == [size > 0 for size in [*SIZES, 0, 0]]


def test_a_missing_slot_is_never_chosen_even_where_every_score_is_negative(lookup):
    ids = torch.tensor([0, 2, 3, 5])
    hidden = torch.stack([-10 * table()[token].sum(0) for token in ids.tolist()])
    scores = lookup.scores(hidden, ids)
    assert (scores[1:3].nan_to_num(neginf=-1e9) < 0).all(), "the case is not the one that matters"
    chosen = lookup.nearest(hidden, ids)
    assert (chosen < torch.tensor(SIZES)[ids]).all()
    assert chosen.tolist() == [plain_choice(state, token) for state, token in zip(hidden, ids.tolist(), strict=True)]


def test_replace_puts_the_chosen_sense_and_leaves_the_rest(lookup):
    hidden, ids = tokens((6, 11))
    replaced = lookup.replace(hidden, ids)
    for row in range(6):
        for place in range(11):
            token, state = int(ids[row, place]), hidden[row, place]
            expected = table()[token][plain_choice(state, token)] if token in table() else state
            torch.testing.assert_close(replaced[row, place], expected)


def test_replace_takes_one_vector_per_sequence_as_well(lookup):
    hidden, ids = tokens((9,))
    torch.testing.assert_close(lookup.replace(hidden, ids), lookup.replace(hidden[:, None], ids[:, None])[:, 0])


def test_the_gradient_passes_straight_through_a_replaced_state(lookup):
    hidden, ids = tokens((6, 11))
    weight = torch.randn(6, 11, WIDTH)
    hidden.requires_grad_()
    (lookup.replace(hidden, ids) * weight).sum().backward()
    torch.testing.assert_close(hidden.grad, weight)


def test_replacing_leaves_its_input_alone(lookup):
    hidden, ids = tokens((4, 4))
    before = hidden.clone()
    lookup.replace(hidden, ids)
    assert torch.equal(hidden, before)


def test_the_gradient_of_the_scores_goes_to_the_state_and_not_to_the_senses(lookup):
    hidden, ids = tokens((4,), only=[2])
    hidden.requires_grad_()
    lookup.scores(hidden, ids)[:, 0].sum().backward()
    torch.testing.assert_close(hidden.grad, table()[2].expand(4, -1))
    assert not any(True for _ in lookup.parameters()) and not lookup.state_dict(), "senses are no weights of a student"


def test_no_tokens_have_no_scores_and_a_gradient_all_the_same(lookup):
    hidden = torch.zeros(0, lookup.width, requires_grad=True)
    scores = lookup.scores(hidden, torch.zeros(0, dtype=torch.int64))
    scores.sum().backward()
    assert scores.shape == (0, lookup.max_senses) and hidden.grad.shape == hidden.shape


def test_half_precision_senses_are_scored_in_float32(lookup):
    half = SenseLookup(lookup.centroids.half(), lookup.offsets)
    rounded = SenseLookup(lookup.centroids.half().float(), lookup.offsets)
    hidden, ids = tokens((20,), only=[0, 5])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half.scores(hidden, ids), rounded.scores(hidden, ids))
