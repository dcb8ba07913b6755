"""Metrics: scikit-learn and scipy behind one function per metric, and bootstrap standard errors.

Each metric takes predictions [N] and targets [N] (class indices, or scores for the correlations) and optionally weights [N]: a row
of weight w counts like w equal rows. Values are fractions in [0, 1] or correlations in [-1, 1], never percentages. A correlation of
something constant is 0.0, the value of a predictor that knows nothing.
"""
import difflib
from typing import Callable

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics


def accuracy(predictions, targets, weights=None) -> float:
    """Fraction of rows predicted right."""
    return float(sklearn_metrics.accuracy_score(targets, predictions, sample_weight=weights))


def f1(predictions, targets, weights=None) -> float:
    """F1 of class 1, as GLUE scores MRPC and QQP; 0.0 where class 1 is neither predicted nor there."""
    return float(sklearn_metrics.f1_score(targets, predictions, labels=[1], average="macro", zero_division=0.0, sample_weight=weights))


def matthews(predictions, targets, weights=None) -> float:
    """Matthews correlation coefficient (CoLA, AX); 0.0 where predictions or targets are constant."""
    used = slice(None) if weights is None else np.asarray(weights) > 0
    if _is_constant(np.asarray(predictions)[used]) or _is_constant(np.asarray(targets)[used]):
        return 0.0
    return float(sklearn_metrics.matthews_corrcoef(targets, predictions, sample_weight=weights))


def pearson(predictions, targets, weights=None) -> float:
    """Pearson correlation; 0.0 where predictions or targets are constant."""
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if _is_constant(x[w > 0]) or _is_constant(y[w > 0]):
        return 0.0
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    x, y = x / np.abs(x).max(), y / np.abs(y).max()      # far-apart scales would otherwise underflow when squared
    # Sums, not dot products: for vectors of this length a threaded BLAS costs ten times what it saves.
    return float(np.clip(np.sum(w * x * y) / np.sqrt(np.sum(w * x * x) * np.sum(w * y * y)), -1.0, 1.0))


def spearman(predictions, targets, weights=None) -> float:
    """Spearman rank correlation, ties given their mean rank; 0.0 where predictions or targets are constant."""
    return _rank_correlation(_dense(predictions), _dense(targets), weights)


def metric_function(name: str) -> Callable[..., float]:
    """The metric called `name`; ValueError with the nearest and the list otherwise."""
    table = {function.__name__: function for function in (accuracy, f1, matthews, pearson, spearman)}
    if name not in table:
        nearest = difflib.get_close_matches(name, list(table), n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown metric {name!r}; nearest: {nearest}; metrics: {', '.join(table)}")
    return table[name]


def compute_metrics(names: tuple[str, ...], predictions, targets) -> dict[str, float]:
    """{name: value} of the named metrics over predictions [N] and targets [N].

    ValueError where the lengths differ, nothing is given, or a value is missing or not finite.
    """
    predictions, targets = _checked(predictions, targets)
    return {name: metric_function(name)(predictions, targets) for name in names}


def selection_score(values: dict[str, float]) -> float:
    """The mean of a task's metrics: the one number by which checkpoints are compared. Higher is better."""
    if not values:
        raise ValueError("selection_score: no metrics were given, at least one is expected")
    return float(np.mean(list(values.values())))


def bootstrap_standard_error(name: str, predictions, targets, seed: int = 0, resamples: int = 1000) -> float:
    """Standard deviation of metric `name` over `resamples` resamples of the rows with replacement (Efron's bootstrap).

    Drawn from its own generator: no other random state is read or changed. Class metrics depend only on how often each
    (prediction, target) cell occurs, so cells are drawn instead of rows: the same distribution, and 40 000 rows cost no more than 400.
    """
    predictions, targets = _checked(predictions, targets)
    metric, rng, rows = metric_function(name), np.random.default_rng(seed), len(targets)
    if metric not in (pearson, spearman):
        (predictions, targets), counts = np.unique(np.stack([predictions, targets]), axis=1, return_counts=True)
        return float(np.std(_class_metric_of_counts(name, predictions, targets, rng.multinomial(rows, counts / rows, resamples))))
    if metric is spearman:                               # sorted once, not once per resample
        predictions, targets, metric = _dense(predictions), _dense(targets), _rank_correlation
    draws = (np.bincount(rng.integers(0, rows, rows), minlength=rows) for _ in range(resamples))
    return float(np.std([metric(predictions, targets, weights) for weights in draws]))


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
    assert name == "matthews", name
    covariance = (right * rows - (predicted * actual).sum(axis=1)).astype(np.float64)
    spread = (rows**2 - (predicted**2).sum(axis=1)).astype(np.float64) * (rows**2 - (actual**2).sum(axis=1))
    return covariance / np.sqrt(np.where(spread > 0, spread, np.inf))      # constant predictions or targets: 0


def _is_constant(values: np.ndarray) -> bool:
    return values.size < 2 or bool(np.all(values == values[0]))


def _dense(values) -> np.ndarray:
    """0-based rank [N] of each value among the distinct values."""
    return stats.rankdata(values, method="dense").astype(np.int64) - 1


def _rank_correlation(predictions, targets, weights) -> float:
    """Spearman correlation of dense ranks [N], each row counted `weights` times."""
    weights = np.ones(len(predictions)) if weights is None else weights
    ranks = []
    for group in (predictions, targets):
        size = np.bincount(group, weights=weights)                # rows that share a rank
        ranks.append((np.cumsum(size) - (size - 1) / 2)[group])   # the mean of the ranks that they take up
    return pearson(*ranks, weights)


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
