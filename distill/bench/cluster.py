"""Many small k-means problems, against scikit-learn in a loop: time, inertia, peak memory."""

from collections.abc import Iterator

import numpy as np
import torch

from distill import workers
from distill.bench.corpus import token_states
from distill.bench.memory import peak_growth
from distill.bench.timing import Comparison, timed
from distill.kmeans import GROUP_BYTES, kmeans, padded_batch, plan_groups
from distill.senses.build import SenseConfig

NUM_SENSES = 20
SMALL = 512
INERTIA_AT_MOST = 1.002  # of theirs, beyond what the luck of the seeds explains
SEEDS = 3  # of the check


def comparisons(cfg) -> Iterator[Comparison]:
    """Types of at most SMALL vectors with 1 and with 10 restarts; all types, with as many vectors as a build samples and
    without a limit. Total inertia within INERTIA_AT_MOST."""
    ids, states_ND = token_states(cfg)
    order = np.argsort(ids, kind="stable")
    types, start, count = np.unique(ids[order], return_index=True, return_counts=True)
    states_ND = states_ND[order]
    small, cap = count <= SMALL, SenseConfig().cap
    for name, chosen, limit, restarts in (
            (f"k-means, types of up to {SMALL} vectors", small, SMALL, 1),
            (f"k-means, types of up to {SMALL} vectors, 10 restarts", small, SMALL, 10),
            (f"k-means, all types, at most {cap} vectors of each, as a build samples", count > 0, cap, 1),
            ("k-means, all types, all vectors", count > 0, len(ids), 1)):
        chosen = chosen & (count > NUM_SENSES)
        problems = Problems(states_ND, types[chosen], start[chosen], count[chosen].clip(max=limit), restarts)
        yield Comparison(name, f"scikit-learn KMeans per type, n_init {restarts}", "vectors",
                         timed(problems.ours, problems.count.sum()), timed(problems.theirs, problems.count.sum()),
                         problems.check)


class Problems:
    """The vectors of every type, clustered by us and by scikit-learn; both return the total inertia."""

    def __init__(self, states_ND: np.ndarray, types: np.ndarray, start: np.ndarray, count: np.ndarray, restarts: int):
        self.states_ND, self.types, self.start, self.count, self.restarts = states_ND, types, start, count, restarts

    def ours(self, seed: int = 0) -> float:
        total, device = 0.0, workers.device()
        for group in plan_groups(self.count, NUM_SENSES, self.states_ND.shape[1], GROUP_BYTES[device.type]):
            points_TND = padded_batch(self.states_ND, self.start, self.count, group).to(device)
            total += float(kmeans(points_TND, torch.from_numpy(self.count[group]).to(device),
                                  torch.from_numpy(self.types[group].astype(np.int64)).to(device), NUM_SENSES,
                                  seed=seed, restarts=self.restarts).inertia_T.sum())
        return total

    def theirs(self, seed: int = 0) -> float:
        from sklearn.cluster import KMeans

        return sum(KMeans(NUM_SENSES, n_init=self.restarts, random_state=seed).fit(
            self._points(problem).astype(np.float32)).inertia_ for problem in range(len(self.count)))

    def _points(self, problem: int) -> np.ndarray:
        return self.states_ND[self.start[problem]:self.start[problem] + self.count[problem]]

    def check(self) -> str:
        ours, theirs, our_memory, their_memory = [], [], [], []
        for seed in range(SEEDS):
            their_memory.append(peak_growth(lambda: theirs.append(self.theirs(seed))))
            our_memory.append(peak_growth(lambda: ours.append(self.ours(seed))))
        ratio = np.mean(ours) / np.mean(theirs)
        luck = np.hypot(*(np.std(side, ddof=1) for side in (ours, theirs))) / SEEDS**0.5 / np.mean(theirs)
        if ratio - 2 * luck > INERTIA_AT_MOST:
            raise ValueError(f"our total inertia is {ratio:.4f} ± {luck:.4f} of scikit-learn's: expected at most {INERTIA_AT_MOST}")
        return (f"total inertia {ratio:.4f} of theirs; peak memory {min(our_memory) / 2**20:.0f} MiB, theirs "
                f"{min(their_memory) / 2**20:.0f} MiB")  # the first run of a process also fills the libraries' own buffers
