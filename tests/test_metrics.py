"""Metrics against hand-computed values and against scikit-learn and scipy themselves."""
import time
import warnings

import numpy as np
import pytest
from scipy import stats

from data_utils.answers import EXACT
from data_utils import metrics
from data_utils.metrics import accuracy, bootstrap_standard_error, compute_metrics, exact_match, f1, macro_f1, matthews, parity, pearson, selection_score, spearman


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_class_metrics_have_their_hand_computed_values():
    # true positives 2, false positives 1, false negatives 1, true negatives 2
    targets, predictions = [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]
    assert accuracy(predictions, targets) == pytest.approx(4 / 6)
    assert f1(predictions, targets) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert matthews(predictions, targets) == pytest.approx((2 * 2 - 1 * 1) / 9)


def test_f1_is_that_of_class_one_and_not_symmetric_in_the_classes():
    assert f1([1, 1, 1, 1], [1, 1, 1, 0]) == pytest.approx(6 / 7)
    assert f1([0, 0, 0, 0], [0, 0, 0, 1]) == 0.0


def test_correlations_have_their_hand_computed_values():
    # deviations (-1.5, -0.5, 0.5, 1.5) and (-1.5, 0.5, -0.5, 1.5): 4 / 5; ranks are the values themselves
    assert pearson([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 2, 3, 4], [1, 9, 4, 16]) == pytest.approx(0.8)
    assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)


def test_correlations_agree_with_scipy_where_values_are_tied():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 200), rng.integers(0, 6, 200) + rng.normal(size=200)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"])
def test_a_weight_of_two_is_the_row_given_twice_and_a_weight_of_zero_is_no_row(name):
    rng = np.random.default_rng(1)
    x, y, w = rng.integers(0, 2, 40), rng.integers(0, 2, 40), rng.integers(0, 4, 40)
    metric = metrics.OF_ROWS[name]
    assert metric(x, y, w) == pytest.approx(metric(np.repeat(x, w), np.repeat(y, w)), abs=1e-12)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize("predictions, targets", [([1, 1, 1], [0, 1, 0]), ([0, 1, 0], [1, 1, 1]), ([1], [1])])
def test_a_constant_correlates_with_nothing_and_raises_no_warning(name, predictions, targets):
    assert metrics.OF_ROWS[name](predictions, targets) == 0.0


def test_tiny_and_huge_scales_do_not_underflow():
    assert pearson([1e-200, 2e-200, 3e-200], [1e200, 2e200, 3e200]) == pytest.approx(1.0)


def test_the_selection_score_is_the_mean_of_the_metrics():
    values = compute_metrics(("f1", "accuracy"), [1, 1, 1, 1], [1, 1, 1, 0])
    assert values == {"f1": pytest.approx(6 / 7), "accuracy": 0.75} and list(values) == ["f1", "accuracy"]
    assert selection_score(values) == pytest.approx((6 / 7 + 0.75) / 2)
    with pytest.raises(ValueError, match="no metrics"):
        selection_score({})


@pytest.mark.parametrize("predictions, targets, message", [
    ([1, 0], [1], r"found \(2,\) and \(1,\)"), ([], [], "N > 0"), ([[1, 0]], [1], "expected predictions"),
    ([1.0, float("nan")], [1.0, 2.0], "prediction 1 is nan"), ([1, 0], [1, None], "target is None")])
def test_what_cannot_be_scored_is_refused(predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(("accuracy",), predictions, targets)


def test_an_unknown_metric_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match="'acuracy'; nearest: accuracy; metrics: accuracy, f1, macro_f1, matthews, pearson, spearman, exact_match"):
        compute_metrics(("acuracy",), [1], [1])


def test_the_standard_error_of_accuracy_is_the_binomial_one():
    targets = np.ones(400, dtype=int)
    predictions = (np.arange(400) >= 100).astype(int)      # 75 % right
    assert bootstrap_standard_error("accuracy", predictions, targets, resamples=1000) == pytest.approx(np.sqrt(0.75 * 0.25 / 400), rel=0.1)


@pytest.mark.parametrize("name", ["f1", "macro_f1", "matthews", "pearson", "spearman"])
def test_the_standard_error_is_that_of_resampling_the_rows_one_by_one(name):
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 2, 120)
    predictions = np.where(rng.random(120) < 0.8, targets, 1 - targets)
    if name in ("pearson", "spearman"):
        predictions, targets = predictions + rng.normal(size=120), np.round(targets + rng.normal(size=120), 1)
    draws = [rng.integers(0, 120, 120) for _ in range(500)]
    by_rows = np.std([metrics.OF_ROWS[name](predictions[draw], targets[draw]) for draw in draws])
    assert bootstrap_standard_error(name, predictions, targets, resamples=500) == pytest.approx(by_rows, rel=0.2)


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_class_metrics_of_many_samples_at_once_are_those_of_scikit_learn(name, classes):
    rng = np.random.default_rng(2)
    predictions, targets = np.repeat(np.arange(classes), classes), np.tile(np.arange(classes), classes)      # every cell once
    counts = rng.integers(0, 3, (50, classes**2)) + np.eye(50, classes**2, dtype=int)
    counts[-1] = predictions == 0      # constant predictions
    expected = [metrics.OF_ROWS[name](predictions, targets, row) for row in counts if row.sum()]
    assert metrics._class_metric_of_counts(name, predictions, targets, counts[counts.sum(1) > 0]) == pytest.approx(expected, abs=1e-12)


def test_the_standard_error_depends_on_the_seed_alone_and_touches_no_global_generator():
    x, y = np.arange(30.0), np.arange(30.0) ** 2
    state = np.random.get_state()[1].copy()
    first = bootstrap_standard_error("pearson", x, y, seed=3, resamples=50)
    assert (np.random.get_state()[1] == state).all()
    np.random.random(7)
    assert bootstrap_standard_error("pearson", x, y, seed=3, resamples=50) == first
    assert bootstrap_standard_error("pearson", x, y, seed=4, resamples=50) != first


def test_forty_thousand_rows_take_seconds():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 40_000)
    started = time.monotonic()
    bootstrap_standard_error("f1", np.where(rng.random(40_000) < 0.9, targets, 1 - targets), targets)
    assert time.monotonic() - started < 2      # a thousand calls of scikit-learn on 40 000 rows take over thirty


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"])
def test_a_metric_of_many_resamples_at_once_is_that_of_each(name):
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 3, 50)
    predictions = np.where(rng.random(50) < 0.6, targets, 2 - targets) + (0.1 * targets if name in ("pearson", "spearman") else 0)
    weights = np.concatenate([*metrics.draw_resamples(rng, 50, 20), 9.0 * np.eye(50)[:1]])      # the last one: a single row
    assert weights[:-1].sum(1) == pytest.approx(50)
    found = metrics.metric_of_resamples(name, predictions, targets)(weights)
    assert found == pytest.approx([metrics.OF_ROWS[name](predictions, targets, row) for row in weights], abs=1e-12)


def test_resamples_come_in_parts_that_fit_in_memory(monkeypatch):
    whole = np.concatenate(list(metrics.draw_resamples(np.random.default_rng(1), 7, 10)))
    monkeypatch.setattr(metrics, "RESAMPLED_ROWS", 21)
    parts = list(metrics.draw_resamples(np.random.default_rng(1), 7, 10))
    assert [len(part) for part in parts] == [3, 3, 3, 1] and (np.concatenate(parts) == whole).all()


# ---- groups of rows that are judged together

GROUPS = np.array([7, 7, 7, 2, 2, 9])
TARGETS = np.array([1, 0, 1, 1, 0, 1])
PREDICTIONS = np.array([1, 0, 1, 1, 1, 0])      # group 7 all right, 2 half, 9 wrong


def test_metrics_of_groups_have_their_hand_computed_values():
    assert exact_match(PREDICTIONS, TARGETS, GROUPS).tolist() == [0, 1, 0], "2, 7, 9"
    assert parity(PREDICTIONS, TARGETS, GROUPS).tolist() == [1, 0, 1]
    assert compute_metrics(("f1", "exact_match", "parity"), PREDICTIONS, TARGETS, GROUPS) == {
        "f1": pytest.approx(2 * 3 / (4 + 4)), "exact_match": pytest.approx(1 / 3), "parity": pytest.approx(2 / 3)}
    assert compute_metrics(("words_f1", "exact_match"), [EXACT, 0.5, 0.0, 1.0], [EXACT] * 4) == {"words_f1": 0.625, "exact_match": 0.25}
    # classes 0: 1 of 1 found, 2 predicted; 1: 2 of 3, 2 predicted; 2: 1 of 1, 1 predicted
    assert macro_f1([0, 0, 1, 1, 2], [0, 1, 1, 1, 2]) == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)


@pytest.mark.parametrize("name", ["f1", "accuracy", "exact_match", "parity"])
def test_whole_groups_are_resampled(name):
    rng = np.random.default_rng(6)
    groups = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 6, 60)))
    targets = rng.integers(0, 2, len(groups))
    predictions = np.where(rng.random(60)[groups] < 0.7, targets, 1 - targets)      # right or wrong together
    members = [np.flatnonzero(groups == group) for group in range(60)]

    def of(drawn) -> float:
        rows = np.concatenate([members[group] for group in drawn])
        number = np.repeat(np.arange(60), [len(members[group]) for group in drawn])      # a group drawn twice is two
        return metrics.compute_metric(name, predictions[rows], targets[rows], number)

    draws = [rng.integers(0, 60, 60) for _ in range(300)]
    expected = [of(drawn) for drawn in draws]
    weights = np.stack([np.bincount(drawn, minlength=60) for drawn in draws]).astype(float)
    assert metrics.metric_of_resamples(name, predictions, targets, groups)(weights) == pytest.approx(expected, abs=1e-12)
    assert bootstrap_standard_error(name, predictions, targets, groups) == pytest.approx(np.std(expected), rel=0.15)
    if name == "accuracy":
        assert bootstrap_standard_error(name, predictions, targets) < 0.8 * np.std(expected), "rows alone would seem surer"
