"""Metrics: scikit-learn and scipy behind one function per metric, and bootstrap standard errors.

Each metric takes predictions [N] and targets [N] (class indices, or scores for the correlations) and optionally weights [N]: a row
of weight w counts like w equal rows. Values are fractions in [0, 1] or correlations in [-1, 1], never percentages. A correlation of
something constant is 0.0, the value of a predictor that knows nothing.

Rows may come in groups [N] (the answers to a question, say), which some metrics judge as a whole. Then groups are what is resampled:
rows of one group are right or wrong together.
"""
import difflib
import functools
from typing import Callable, Iterator

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

from data_utils.answers import EXACT

RESAMPLED_ROWS = 1 << 20      # rows of all resamples that are in memory at once


def accuracy(predictions, targets, weights=None) -> float:
    """Fraction of rows predicted right."""
    return float(sklearn_metrics.accuracy_score(targets, predictions, sample_weight=weights))


def f1(predictions, targets, weights=None) -> float:
    """F1 of class 1, as GLUE scores MRPC and QQP; 0.0 where class 1 is neither predicted nor there."""
    return float(sklearn_metrics.f1_score(targets, predictions, labels=[1], average="macro", zero_division=0.0, sample_weight=weights))


def macro_f1(predictions, targets, weights=None) -> float:
    """The mean of the F1 of every class that is predicted or there (CB)."""
    used = slice(None) if weights is None else np.asarray(weights) > 0
    classes = np.union1d(np.asarray(predictions)[used], np.asarray(targets)[used])
    return float(sklearn_metrics.f1_score(targets, predictions, labels=classes, average="macro", zero_division=0.0, sample_weight=weights))


def matthews(predictions, targets, weights=None) -> float:
    """Matthews correlation coefficient (CoLA, AX); 0.0 where predictions or targets are constant."""
    used = slice(None) if weights is None else np.asarray(weights) > 0
    if _is_constant(np.asarray(predictions)[used]) or _is_constant(np.asarray(targets)[used]):
        return 0.0
    return float(sklearn_metrics.matthews_corrcoef(targets, predictions, sample_weight=weights))


def pearson(predictions, targets, weights=None) -> float:
    """Pearson correlation; 0.0 where predictions or targets are constant."""
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    return float(_correlation(x, y, np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)))


def spearman(predictions, targets, weights=None) -> float:
    """Spearman rank correlation, ties given their mean rank; 0.0 where predictions or targets are constant."""
    weights = np.ones(len(predictions)) if weights is None else np.asarray(weights, dtype=np.float64)
    return float(_rank_correlation(_dense(predictions), _dense(targets), weights))


def exact_match(predictions, targets, groups=None) -> np.ndarray:
    """Per group, whether every row of it is predicted right: [G] of 0 and 1 (MultiRC: all answers to a question; ReCoRD: what was chosen
    has the credit of an exact match)."""
    wrong = np.asarray(predictions) != np.asarray(targets)
    return 1.0 - np.minimum(np.bincount(_unit_of(groups, len(wrong)), wrong), 1)


def words_f1(predictions, targets, groups=None) -> np.ndarray:
    """Per question, the F1 of the chosen words with those of the best answer, [N] (ReCoRD); predictions are credits (answers.py)."""
    return np.minimum(np.asarray(predictions, dtype=np.float64), 1.0)


def squad_em(predictions, targets, groups=None) -> np.ndarray:
    """Per question, whether its answer equals a gold one, [N] of 0 and 1; predictions are credits (answers.py)."""
    return (np.asarray(predictions, dtype=np.float64) == EXACT).astype(np.float64)


def squad_f1(predictions, targets, groups=None) -> np.ndarray:
    """words_f1() of answers that are parts of a text."""
    return words_f1(predictions, targets, groups)


def parity(predictions, targets, groups=None) -> np.ndarray:
    """Per group, whether all rows of it get the same prediction, right or wrong: [G] of 0 and 1 (AX-g: her and his)."""
    unit, predictions = _unit_of(groups, len(predictions)), np.asarray(predictions)
    _, first = np.unique(unit, return_index=True)
    return 1.0 - np.minimum(np.bincount(unit, predictions != predictions[first][unit]), 1)


OF_ROWS = {function.__name__: function for function in (accuracy, f1, macro_f1, matthews, pearson, spearman)}
OF_CELLS = ("accuracy", "f1", "macro_f1", "matthews")  # depend on the counts of (prediction, target) alone
OF_GROUPS = {function.__name__: function for function in (exact_match, words_f1, parity, squad_em, squad_f1)}  # their mean is the metric


def check_metric(name: str) -> None:
    """ValueError with the nearest and the list for a metric that there is not."""
    known = [*OF_ROWS, *OF_GROUPS]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown metric {name!r}; nearest: {nearest}; metrics: {', '.join(known)}")


def compute_metric(name: str, predictions, targets, groups=None) -> float:
    """Metric `name` of predictions [N] and targets [N]; groups [N] are numbers, None where every row is one of its own."""
    check_metric(name)
    if name in OF_GROUPS:
        return float(np.mean(OF_GROUPS[name](predictions, targets, groups)))
    return OF_ROWS[name](predictions, targets)


def compute_metrics(names: tuple[str, ...], predictions, targets, groups=None) -> dict[str, float]:
    """{name: value} of the named metrics over predictions [N] and targets [N].

    ValueError where the lengths differ, nothing is given, or a value is missing or not finite.
    """
    predictions, targets = _checked(predictions, targets)
    return {name: compute_metric(name, predictions, targets, groups) for name in names}


def selection_score(values: dict[str, float]) -> float:
    """The mean of a task's metrics: the one number by which checkpoints are compared. Higher is better."""
    if not values:
        raise ValueError("selection_score: no metrics were given, at least one is expected")
    return float(np.mean(list(values.values())))


def bootstrap_standard_error(name: str, predictions, targets, groups=None, seed: int = 0, resamples: int = 1000) -> float:
    """Standard deviation of metric `name` over `resamples` resamples of the groups with replacement (Efron's bootstrap).

    Drawn from its own generator: no other random state is read or changed. Where rows are alone, class metrics depend only on how often
    each (prediction, target) cell occurs, so cells are drawn instead of rows: the same distribution, and 40 000 rows cost no more
    than 400.
    """
    check_metric(name)
    predictions, targets = _checked(predictions, targets)
    rng = np.random.default_rng(seed)
    if groups is None and name in OF_CELLS:
        (predictions, targets), counts = np.unique(np.stack([predictions, targets]), axis=1, return_counts=True)
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), resamples)
        return float(np.std(_class_metric_of_counts(name, predictions, targets, drawn)))
    resampled, units = metric_of_resamples(name, predictions, targets, groups), count_units(groups, len(targets))
    return float(np.std(np.concatenate([resampled(weights) for weights in draw_resamples(rng, units, resamples)])))


def count_units(groups, rows: int) -> int:
    """How many units of resampling `rows` rows are: the number of their groups."""
    return rows if groups is None else len(np.unique(groups))


def count_judged(name: str, rows, groups) -> int:
    """How many right or wrong answers metric `name` counts in these rows: one a group, or one a row."""
    return count_units(groups if name in OF_GROUPS else None, len(rows))


def draw_resamples(rng: np.random.Generator, units: int, resamples: int) -> Iterator[np.ndarray]:
    """`resamples` resamples of `units` units with replacement: weights [R, U], how often each is in each, in parts of bounded size."""
    at_once = max(1, RESAMPLED_ROWS // units)
    for start in range(0, resamples, at_once):
        yield np.stack([np.bincount(rng.integers(0, units, units), minlength=units)
                        for _ in range(start, min(start + at_once, resamples))]).astype(np.float64)


def metric_of_resamples(name: str, predictions, targets, groups=None) -> Callable[[np.ndarray], np.ndarray]:
    """Metric `name` of resamples of predictions [N] and targets [N]: a function of weights [R, U], how often each unit (row, or group in
    rising order) is in each of R resamples, that returns [R]. What does not depend on the resample is done once."""
    check_metric(name)
    predictions, targets = _checked(predictions, targets)
    if name in OF_GROUPS:
        outcomes = OF_GROUPS[name](predictions, targets, groups)
        return lambda weights: weights @ outcomes / weights.sum(-1)
    of_rows, unit = _metric_of_resampled_rows(name, predictions, targets), _unit_of(groups, len(targets))
    return of_rows if groups is None else lambda weights: of_rows(weights[:, unit])


def _metric_of_resampled_rows(name: str, predictions, targets) -> Callable[[np.ndarray], np.ndarray]:
    """Metric `name` [R] as a function of weights of rows [R, N]."""
    if name == "pearson":
        return functools.partial(_correlation, predictions.astype(np.float64), targets.astype(np.float64))
    if name == "spearman":
        return functools.partial(_rank_correlation, _dense(predictions), _dense(targets))
    cells, cell = np.unique(np.stack([predictions, targets]), axis=1, return_inverse=True)
    is_in_cell = (cell.reshape(-1, 1) == np.arange(cells.shape[1])).astype(np.float64)
    return lambda weights: _class_metric_of_counts(name, *cells, np.rint(weights @ is_in_cell).astype(np.int64))


def _unit_of(groups, rows: int) -> np.ndarray:
    """The unit [N] that each row belongs to: 0, 1, ... by rising group; where there are no groups, by row."""
    return np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)


def _class_metric_of_counts(name: str, predictions, targets, counts) -> np.ndarray:
    """Metric `name` [R] of R samples in which cell c = (predictions[c], targets[c]) occurs counts[r, c] times; counts [R, C].

    The formulas of scikit-learn's functions for many samples at once: a thousand calls of those take two seconds.
    """
    rows, right = counts.sum(axis=1), counts[:, predictions == targets].sum(axis=1)
    if name == "accuracy":
        return right / rows
    classes = np.unique(np.stack([predictions, targets]))
    predicted = counts @ (predictions[:, None] == classes)          # [R, K] rows predicted as class k
    actual = counts @ (targets[:, None] == classes)                 # [R, K] rows of class k
    if name == "f1":
        hits = counts[:, (predictions == 1) & (targets == 1)].sum(axis=1)
        size = (predicted + actual)[:, classes == 1].sum(axis=1)
        return 2 * hits / np.maximum(size, 1)
    if name == "macro_f1":
        hits = counts @ ((predictions == targets)[:, None] & (targets[:, None] == classes))     # [R, K]
        size = predicted + actual
        return (2 * hits / np.maximum(size, 1)).sum(axis=1) / np.count_nonzero(size, axis=1)
    assert name == "matthews", name
    covariance = (right * rows - (predicted * actual).sum(axis=1)).astype(np.float64)
    spread = (rows**2 - (predicted**2).sum(axis=1)).astype(np.float64) * (rows**2 - (actual**2).sum(axis=1))
    return covariance / np.sqrt(np.where(spread > 0, spread, np.inf))      # constant predictions or targets: 0


def _is_constant(values: np.ndarray) -> bool:
    return values.size < 2 or bool(np.all(values == values[0]))


def _dense(values) -> np.ndarray:
    """0-based rank [N] of each value among the distinct values."""
    return stats.rankdata(values, method="dense").astype(np.int64) - 1


def _rank_correlation(predictions, targets, weights) -> np.ndarray:
    """Spearman correlation [...] of dense ranks [N], each row counted as often as weights [..., N] say."""
    ranks = []
    for group in (predictions, targets):
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        size = np.add.reduceat(weights[..., order], starts, axis=-1)                # rows that share a rank
        ranks.append((np.cumsum(size, axis=-1) - (size - 1) / 2)[..., group])       # the mean of the ranks that they take up
    return _correlation(*ranks, weights)


def _correlation(x, y, weights) -> np.ndarray:
    """Pearson correlation [...] of x and y, [N] or [..., N], over the last axis of weights [..., N]; 0 where one of them is constant."""
    used = weights > 0
    total = np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    constant, centred = np.zeros(weights.shape[:-1], bool), []
    for values in (x, y):
        values = np.broadcast_to(values, weights.shape)
        constant |= values.min(-1, where=used, initial=np.inf) >= values.max(-1, where=used, initial=-np.inf)
        values = values - np.sum(weights * values, -1, keepdims=True) / total
        largest = np.abs(values).max(-1, keepdims=True)      # far-apart scales would otherwise underflow when squared
        centred.append(values / np.where(largest > 0, largest, 1))
    x, y = centred
    # Sums, not dot products: for vectors of this length a threaded BLAS costs ten times what it saves.
    spread = np.sqrt(np.sum(weights * x * x, -1) * np.sum(weights * y * y, -1))
    return np.where(constant, 0.0, np.clip(np.sum(weights * x * y, -1) / np.where(spread > 0, spread, 1), -1, 1))


def _checked(predictions, targets) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays [N] of equal length N > 0, every value finite."""
    if any(target is None for target in targets):
        raise ValueError("a target is None: this split has no labels and cannot be scored")
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.ndim != 1 or predictions.shape != targets.shape or not len(targets):
        raise ValueError(f"metrics: expected predictions [N] and targets [N] with N > 0, found {predictions.shape} and {targets.shape}")
    for what, values in (("prediction", predictions), ("target", targets)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"metrics: {what} {bad[0]} is {values[bad[0]]}, a finite number is expected ({bad.size} such rows)")
    return predictions, targets
