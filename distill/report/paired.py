"""Is one method better than another? Differences between runs that share seeds and, where predictions were kept, examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_utils.metrics import compute_metric, count_units, draw_resamples, metric_of_resamples
from distill.scores import Predictions, mean_and_error

DRAWS = 1000
STANDARD_ERRORS = 2  # that a difference has to exceed
SEEDS = 3            # that it has to be seen with: fewer say nothing about the spread between seeds


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs, averaged over the seeds that both have; `stderr` is None where it cannot be known."""

    value: float
    stderr: float | None
    seeds: int

    @property
    def is_gain(self) -> bool:
        """Whether ours is better beyond chance: by more than STANDARD_ERRORS, seen with at least SEEDS seeds."""
        return self.stderr is not None and self.seeds >= SEEDS and self.value > STANDARD_ERRORS * self.stderr


def paired_difference(metric: str, ours: Mapping[int, Predictions], theirs: Mapping[int, Predictions], draws: int = DRAWS,
                      seed: int = 0) -> Difference:
    """The difference of `metric` between two methods, by seed, and the standard error of its mean over the shared seeds.

    It estimates how the mean difference would vary if both methods were run again with other seeds and scored on other
    examples of the same kind. A draw takes k - 1 of the k seeds and N of the N examples, both with replacement and
    independently; both methods and all seeds of a draw are scored on the same examples, so that what makes an example
    hard for both cancels. The standard error is the standard deviation of the draws. With one seed it is that of the
    examples alone.

    Seeds and examples are crossed, hence drawn as rows and columns: Owen (2007), The pigeonhole bootstrap, Annals of
    Applied Statistics 1. It errs on the safe side: noise that belongs to single pairs of seed and example counts up to three
    times. k - 1 draws leave the variance between few seeds unbiased: Rao and Wu (1988), JASA 83, section 2.

    ValueError where no seed is shared, or where two runs were scored on other examples or targets.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise ValueError(f"no seed is shared: {_listed(ours)} against {_listed(theirs)}")
    pairs = [_aligned([ours[number], theirs[number], ours[seeds[0]]])[:2] for number in seeds]
    values = [compute_metric(metric, one.predicted, one.target, one.group)
              - compute_metric(metric, other.predicted, other.target, other.group) for one, other in pairs]
    generator, units = np.random.default_rng(seed), count_units(pairs[0][0].group, len(pairs[0][0].uid))
    resampled = [tuple(metric_of_resamples(metric, run.predicted, run.target, run.group) for run in pair) for pair in pairs]
    drawn_KR = np.concatenate([np.stack([one(weights) - other(weights) for one, other in resampled])
                               for weights in draw_resamples(generator, units, draws)], axis=1)
    picked = generator.integers(0, len(seeds), (max(len(seeds) - 1, 1), draws))
    means_R = np.take_along_axis(drawn_KR, picked, axis=0).mean(0)
    return Difference(float(np.mean(values)), float(means_R.std(ddof=1)), len(seeds))


def difference_by_seed(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """The mean of ours minus theirs over the shared seeds and its standard error between seeds, for scores whose
    predictions were not kept: the examples count as given. None where no seed is shared."""
    found = [ours[number] - theirs[number] for number in sorted(ours.keys() & theirs.keys())]
    if not found:
        return None
    return Difference(*mean_and_error(found), len(found))


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


def _listed(runs: Mapping[int, Predictions]) -> str:
    return f"seeds {', '.join(map(str, sorted(runs)))}" if runs else "no seed"
