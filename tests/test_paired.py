"""Paired tests between methods: known cases, the error against the analytic one, and what cannot be compared."""

import math
import time

import numpy as np
import pytest

from distill.report.paired import Difference, difference_by_seed, paired_difference
from distill.scores import Predictions

METRICS = ["accuracy", "f1", "matthews", "pearson", "spearman"]


def runs(seeds, examples: int, right, generator: int = 0) -> dict[int, Predictions]:
    """Binary answers; `right(seed)` [N] says which are right."""
    target = np.random.default_rng(generator).integers(0, 2, examples)
    return {seed: Predictions(np.arange(examples), np.where(right(seed), target, 1 - target), target) for seed in seeds}


def noisy(share: float, start: int):
    """Answers right with probability `share`, independently for every seed and example."""
    return lambda seed: np.random.default_rng([start, seed]).random(400) < share


@pytest.mark.parametrize("metric", METRICS)
def test_identical_methods_differ_by_zero_without_error(metric):
    same = runs(range(5), 400, noisy(0.8, 1))
    assert paired_difference(metric, same, same, draws=100) == Difference(0.0, 0.0, 5)


@pytest.mark.parametrize("metric", METRICS)
def test_the_difference_is_the_mean_over_the_shared_seeds(metric):
    ours, theirs = runs([1, 2, 3], 400, noisy(0.9, 1)), runs([2, 3, 4], 400, noisy(0.7, 2))
    found = paired_difference(metric, ours, theirs, draws=50)
    only = paired_difference(metric, {2: ours[2], 3: ours[3]}, {2: theirs[2], 3: theirs[3]}, draws=50)
    assert found == only and found.seeds == 2 and found.value > 0.1


def test_the_error_of_one_seed_is_that_of_the_paired_examples():
    # ours is right wherever theirs is, and on 40 of 400 examples more; then theirs fails elsewhere: +1 on 80, -1 on 40
    ours, theirs = (runs([1], 400, lambda seed, last=last: np.arange(400) < last) for last in (360, 320))
    found = paired_difference("accuracy", ours, theirs)
    assert found.value == pytest.approx(0.1) and found.stderr == pytest.approx((0.1 * 0.9 / 400) ** 0.5, rel=0.1) and found.freedom == math.inf
    apart = paired_difference("accuracy", ours, runs([1], 400, lambda seed: np.arange(400) >= 80))
    assert apart.value == pytest.approx(0.1) and apart.stderr == pytest.approx((0.3 - 0.01) ** 0.5 / 20, rel=0.1)


def test_the_error_of_seeds_that_move_all_examples_is_that_over_seeds():
    right = {1: 300, 2: 330, 3: 350, 4: 310}
    ours, theirs = runs(right, 400, lambda seed: np.arange(400) < right[seed]), runs(right, 400, lambda seed: np.arange(400) < 200)
    many = {seed: Predictions(*(np.tile(part, 50) for part in (run.uid, run.predicted, run.target))) for seed, run in ours.items()}
    them = {seed: Predictions(*(np.tile(part, 50) for part in (run.uid, run.predicted, run.target))) for seed, run in theirs.items()}
    by_seed = difference_by_seed({seed: count / 400 for seed, count in right.items()}, dict.fromkeys(right, 0.5))
    found = paired_difference("accuracy", many, them, draws=400)  # so many examples that their own error is nothing
    assert found.value == pytest.approx(by_seed.value) and found.stderr == pytest.approx(by_seed.stderr, rel=0.09)
    assert by_seed.freedom == 3 <= found.freedom < 4.5


def test_the_error_of_noise_in_every_pair_is_counted_at_most_three_times():
    ours, theirs = runs(range(8), 400, noisy(0.8, 1)), runs(range(8), 400, noisy(0.8, 2))
    analytic = (2 * 0.8 * 0.2 / 400 / 8) ** 0.5
    found = paired_difference("accuracy", ours, theirs)
    assert analytic < found.stderr < 1.2 * 3 ** 0.5 * analytic and found.freedom > 2 * 7, "more than from the seeds alone"


def test_what_is_called_a_gain_by_chance_is_rare():
    found = [paired_difference("accuracy", runs(range(5), 400, noisy(0.8, 2 * trial)), runs(range(5), 400, noisy(0.8, 2 * trial + 1)),
                               draws=100).is_gain for trial in range(40)]
    assert sum(found) <= 2


def test_a_gain_exceeds_two_standard_errors_and_was_seen_with_three_seeds():
    assert Difference(0.021, 0.01, 3).is_gain
    assert not Difference(0.019, 0.01, 3).is_gain and not Difference(0.021, 0.01, 2).is_gain
    assert not Difference(-0.021, 0.01, 3).is_gain and not Difference(0.021, None, 1).is_gain


def test_few_seeds_need_more_standard_errors_and_some_spread():
    assert Difference(0.046, 0.01, 3, 2).is_gain and not Difference(0.045, 0.01, 3, 2).is_gain
    assert Difference(0.0287, 0.01, 5, 4).is_gain and not Difference(0.0286, 0.01, 5, 4).is_gain
    draw = np.random.default_rng(0)
    gains = [difference_by_seed(dict(enumerate(draw.normal(size=3))), dict(enumerate(draw.normal(size=3)))).is_gain for _ in range(2000)]
    assert 0.012 < np.mean(gains) < 0.035, "2.3 % of two equal methods, as beyond two errors that are known"
    alike = difference_by_seed({1: 0.8025, 2: 0.8125, 3: 0.8225}, {1: 0.8, 2: 0.81, 3: 0.82})  # one example more of 400, each time
    assert alike.stderr < 1e-9 and not alike.is_gain


def test_what_was_not_trained_stands_beside_every_seed():
    assert difference_by_seed({1: 0.8, 2: 0.9, 3: 1.0}, {None: 0.6}) == difference_by_seed({1: 0.8, 2: 0.9, 3: 1.0}, dict.fromkeys((1, 2, 3), 0.6))
    assert difference_by_seed({None: 0.6}, {4: 0.8}) == Difference(pytest.approx(-0.2), None, 1, 0)
    ours = runs([1, 2, 3], 400, noisy(0.9, 1))
    constant = Predictions(np.arange(400), np.ones(400, int), ours[1].target)
    assert paired_difference("accuracy", ours, {None: constant}) == paired_difference("accuracy", ours, dict.fromkeys((1, 2, 3), constant))


def test_the_order_of_the_examples_does_not_matter_and_draws_are_the_same_every_time():
    ours, theirs = runs([1, 2, 3], 400, noisy(0.9, 1)), runs([1, 2, 3], 400, noisy(0.8, 2))
    shuffled = {}
    for seed, run in theirs.items():
        order = np.random.default_rng(seed).permutation(400)
        shuffled[seed] = Predictions(run.uid[order], run.predicted[order], run.target[order])
    assert paired_difference("matthews", ours, shuffled) == paired_difference("matthews", ours, theirs)
    assert paired_difference("matthews", ours, theirs, seed=1) != paired_difference("matthews", ours, theirs)


def test_other_examples_other_labels_and_no_shared_seed_are_refused():
    ours = runs([1, 2], 400, noisy(0.9, 1))
    fewer = {seed: Predictions(run.uid[:-1], run.predicted[:-1], run.target[:-1]) for seed, run in ours.items()}
    other_uid = {seed: Predictions(run.uid + 1, run.predicted, run.target) for seed, run in ours.items()}
    for theirs in (fewer, other_uid, runs([1, 2], 400, noisy(0.9, 1), generator=5), {1: ours[1], 2: fewer[2]}):
        with pytest.raises(ValueError, match="other examples"):
            paired_difference("accuracy", ours, theirs)
    with pytest.raises(ValueError, match="no seed is shared: seeds 1, 2 against seeds 3"):
        paired_difference("accuracy", ours, {3: ours[1]})


def test_the_difference_by_seed_pairs_what_seeds_share():
    found = difference_by_seed({1: 0.8, 2: 0.9, 3: 1.0, 4: 0.0}, {1: 0.7, 2: 0.7, 3: 0.7, 5: 1.0})
    assert found.value == pytest.approx(0.2) and found.stderr == pytest.approx(0.1 / 3 ** 0.5) and found.seeds == 3
    assert difference_by_seed({1: 0.5}, {2: 0.5}) is None
    assert difference_by_seed({1: 0.5}, {1: 0.25}) == Difference(0.25, None, 1, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_thousand_examples_and_five_seeds_take_two_seconds(metric):
    draw = np.random.default_rng(0)
    target = draw.integers(0, 2, 1000)
    ours, theirs = ({seed: Predictions(np.arange(1000), np.round(target + draw.normal(size=1000)).clip(0, 1), target)
                     for seed in range(5)} for _ in range(2))
    started = time.process_time()
    paired_difference(metric, ours, theirs)
    assert time.process_time() - started < 2
