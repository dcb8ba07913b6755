"""Is one method better than another? Differences between runs that share seeds and, where predictions were kept, examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from data_utils.metrics import compute_metric, count_units, draw_resamples, metric_of_resamples
from distill.scores import Predictions, mean_and_error

Kind = TypeVar("Kind")
Seed = int | None  # None: nothing was drawn
DRAWS = 1000
STANDARD_ERRORS = 2  # that a difference has to exceed, or as many more as few seeds need to err no more often
SEEDS = 3            # that it has to be seen with: fewer say nothing about the spread between seeds
ROUNDING = 1e-9      # a standard error below it is none


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs, averaged over the seeds that both have; `stderr` is None where it cannot be known; `freedom`: the degrees of
    freedom that it was estimated with."""

    value: float
    stderr: float | None
    seeds: int
    freedom: float = math.inf

    @property
    def is_gain(self) -> bool:
        """Whether ours is better beyond chance: by more than STANDARD_ERRORS, in Student's distribution, seen with at least SEEDS seeds
        that do not all differ alike: nothing is known then of how much they spread."""
        return self.seeds >= SEEDS and self.stderr is not None and self.stderr > ROUNDING and self.value > self.stderr * needed(self.freedom)


def needed(freedom: float) -> float:
    """The standard errors that chance exceeds as seldom as a normal variable exceeds STANDARD_ERRORS: 4.5 for 2 degrees of freedom, 2.9 for 4."""
    return float(stats.t.isf(stats.norm.sf(STANDARD_ERRORS), freedom))


def paired(ours: Mapping[Seed, Kind], theirs: Mapping[Seed, Kind]) -> list[tuple[Kind, Kind]]:
    """What both have of a seed, by rising seed. What was not trained has None for one, and stands beside every seed of the other side."""
    def of(side: Mapping[Seed, Kind], seed: Seed) -> Kind | None:
        return side.get(seed, side.get(None))

    pairs = [(of(ours, seed), of(theirs, seed)) for seed in sorted((ours.keys() | theirs.keys()) - {None})]
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def paired_difference(metric: str, ours: Mapping[Seed, Predictions], theirs: Mapping[Seed, Predictions], draws: int = DRAWS,
                      seed: int = 0) -> Difference:
    """The difference of `metric` between two methods, by seed, and the standard error of its mean over the shared seeds.

    It estimates how the mean difference would vary if both methods were run again with other seeds and scored on other
    examples of the same kind. A draw takes k - 1 of the k seeds and N of the N examples, both with replacement and
    independently; both methods and all seeds of a draw are scored on the same examples, so that what makes an example
    hard for both cancels. The standard error is the standard deviation of the draws. With one seed it is that of the
    examples alone.

    Its degrees of freedom are Welch's and Satterthwaite's: k - 1 where seeds are all that varies, without end where examples are.

    Seeds and examples are crossed, hence drawn as rows and columns: Owen (2007), The pigeonhole bootstrap, Annals of
    Applied Statistics 1. It errs on the safe side: noise that belongs to single pairs of seed and example counts up to three
    times. k - 1 draws leave the variance between few seeds unbiased: Rao and Wu (1988), JASA 83, section 2.

    ValueError where no seed is shared, or where two runs were scored on other examples or targets.
    """
    found = paired(ours, theirs)
    if not found:
        raise ValueError(f"no seed is shared: {_listed(ours)} against {_listed(theirs)}")
    pairs = [_aligned([one, other, found[0][0]])[:2] for one, other in found]
    values = [compute_metric(metric, one.predicted, one.target, one.group)
              - compute_metric(metric, other.predicted, other.target, other.group) for one, other in pairs]
    generator, units = np.random.default_rng(seed), count_units(pairs[0][0].group, len(pairs[0][0].uid))
    resampled = [tuple(metric_of_resamples(metric, run.predicted, run.target, run.group) for run in pair) for pair in pairs]
    drawn_KR = np.concatenate([np.stack([one(weights) - other(weights) for one, other in resampled])
                               for weights in draw_resamples(generator, units, draws)], axis=1)
    picked = generator.integers(0, len(pairs), (max(len(pairs) - 1, 1), draws))
    means_R = np.take_along_axis(drawn_KR, picked, axis=0).mean(0)
    stderr = float(means_R.std(ddof=1))
    return Difference(float(np.mean(values)), stderr, len(pairs), _freedom(values, stderr))


def _freedom(values: Sequence[float], stderr: float) -> float:
    """Degrees of freedom of a standard error of which the spread between the seeds' `values` is one part, and another as good as known."""
    between = mean_and_error(values)[1] if len(values) > 1 else 0.0
    return (len(values) - 1) * max(1.0, (stderr / between) ** 4) if between else math.inf


def difference_by_seed(ours: Mapping[Seed, float], theirs: Mapping[Seed, float]) -> Difference | None:
    """The mean of ours minus theirs over the shared seeds and its standard error between seeds, for scores whose
    predictions were not kept: the examples count as given. None where no seed is shared."""
    found = [one - other for one, other in paired(ours, theirs)]
    if not found:
        return None
    return Difference(*mean_and_error(found), len(found), len(found) - 1)


def _aligned(runs: Sequence[Predictions]) -> list[Predictions]:
    """The same runs, each by rising uid; ValueError where they answered other examples."""
    ordered = []
    for run in runs:
        order = np.argsort(run.uid, kind="stable")
        ordered.append(run.take(order))
    first = ordered[0]
    for other in ordered[1:]:
        if not np.array_equal(first.uid, other.uid) or not np.array_equal(first.target, other.target):
            raise ValueError(f"the runs were scored on other examples ({len(first.uid)} and {len(other.uid)}), or their labels "
                             "differ: evaluate both on the same data")
    return ordered


def _listed(runs: Mapping[Seed, Predictions]) -> str:
    return f"seeds {', '.join(map(str, sorted(runs)))}" if runs else "no seed"
