"""Many small k-means problems, against scikit-learn in a loop."""

from collections.abc import Iterator

import numpy as np
import torch

from distill import workers
from distill.bench.corpus import token_states
from distill.bench.timing import Comparison, timed
from distill.kmeans import kmeans, padded_batch, plan_groups

NUM_SENSES = 20
SMALL = 512
INERTIA_AT_MOST = 1.002


def comparisons(cfg) -> Iterator[Comparison]:
    """Types of at most SMALL vectors with 1 and with 10 restarts, then all types; total inertia within INERTIA_AT_MOST."""
    ids, states_ND = token_states(cfg)
    order = np.argsort(ids, kind="stable")
    types, start, count = np.unique(ids[order], return_index=True, return_counts=True)
    states_ND = states_ND[order]
    for name, chosen, restarts in (
            (f"k-means, types of up to {SMALL} vectors", (count > NUM_SENSES) & (count <= SMALL), 1),
            (f"k-means, types of up to {SMALL} vectors, 10 restarts", (count > NUM_SENSES) & (count <= SMALL), 10),
            ("k-means, all types", count > NUM_SENSES, 1)):
        problems = Problems(states_ND, types[chosen], start[chosen], count[chosen], restarts)
        yield Comparison(name, f"scikit-learn KMeans per type, n_init {restarts}", "vectors",
                         timed(problems.ours, count[chosen].sum()), timed(problems.theirs, count[chosen].sum()),
                         problems.check)


class Problems:
    """The vectors of every type, clustered by us and by scikit-learn; both return the total inertia."""

    def __init__(self, states_ND: np.ndarray, types: np.ndarray, start: np.ndarray, count: np.ndarray, restarts: int):
        self.states_ND, self.types, self.start, self.count, self.restarts = states_ND, types, start, count, restarts

    def ours(self) -> float:
        total, device = 0.0, workers.device()
        for group in plan_groups(self.count, NUM_SENSES, self.states_ND.shape[1]):
            points_TND = padded_batch(self.states_ND, self.start, self.count, group).to(device)
            total += float(kmeans(points_TND, torch.from_numpy(self.count[group]).to(device),
                                  torch.from_numpy(self.types[group].astype(np.int64)).to(device), NUM_SENSES,
                                  restarts=self.restarts).inertia_T.sum())
        return total

    def theirs(self) -> float:
        from sklearn.cluster import KMeans

        return sum(KMeans(NUM_SENSES, n_init=self.restarts, random_state=0).fit(
            self._points(problem).astype(np.float32)).inertia_ for problem in range(len(self.count)))

    def _points(self, problem: int) -> np.ndarray:
        return self.states_ND[self.start[problem]:self.start[problem] + self.count[problem]]

    def check(self) -> str:
        ratio = self.ours() / self.theirs()
        if ratio > INERTIA_AT_MOST:
            raise ValueError(f"our total inertia is {ratio:.4f} of scikit-learn's: expected at most {INERTIA_AT_MOST}")
        return f"total inertia {ratio:.4f} of theirs"
