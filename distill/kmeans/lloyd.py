"""Lloyd's iteration over many problems and restarts at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.kmeans.space import Space


@dataclass
class Runs:
    """What a sweep found, for each of T problems and R runs.

    labels_TRN define the centroids, nearest_TRN is the nearest of these centroids to each point, distance_TRN the squared
    distance to it (0 on padding); labels are -1 on padding. iterations_TR counts the sweeps of a run.
    """

    labels_TRN: Tensor
    nearest_TRN: Tensor
    distance_TRN: Tensor
    iterations_TR: Tensor

    @property
    def inertia_TR(self) -> Tensor:
        return self.distance_TRN.sum(-1)

    def put(self, index_T: Tensor, found: "Runs") -> None:
        """Overwrite the problems index_T."""
        for mine, new in zip(vars(self).values(), vars(found).values()):
            mine[index_T] = new

    def chosen(self, pick_TR: Tensor) -> "Runs":
        """Only the runs pick_TR of each problem."""
        return Runs(*(chosen_runs(value, pick_TR) for value in vars(self).values()))


def chosen_runs(value_TR: Tensor, pick_TR: Tensor) -> Tensor:
    """value[t, pick[t, r]], whatever dimensions follow."""
    return value_TR[torch.arange(len(pick_TR), device=pick_TR.device)[:, None], pick_TR]


@dataclass
class Moving:
    """The problems that still move; the first dimension of every value is theirs."""

    index_T: Tensor
    padding_T1N: Tensor
    tolerance_T: Tensor
    labels_TRN: Tensor
    done_TR: Tensor
    iterations_TR: Tensor
    means: Tensor | None = None  # of the sweep before, [T, R, K, .]
    products_TRKN: Tensor | None = None

    def sweep(self, space: Space, k: int) -> Runs:
        """Assign every point to the nearest centroid; note which runs stop."""
        means = space.means(self.labels_TRN, k)
        nearest_TRN, distance_TRN, products_TRKN = assigned(space, means, self.padding_T1N)
        self.iterations_TR = self.iterations_TR + ~self.done_TR
        self.done_TR = self.done_TR | (nearest_TRN == self.labels_TRN).all(-1)
        if self.means is not None:
            shift_TRK = space.squared(means - self.means, products_TRKN - self.products_TRKN)
            self.done_TR |= shift_TRK.sum(-1) <= self.tolerance_T[:, None]
        self.means, self.products_TRKN = means, products_TRKN
        return Runs(self.labels_TRN, nearest_TRN, distance_TRN, self.iterations_TR)

    def keep_runs(self, pick_TR: Tensor) -> None:
        """Go on with these runs of each problem."""
        for name in ("labels_TRN", "done_TR", "iterations_TR", "means", "products_TRKN"):
            setattr(self, name, chosen_runs(getattr(self, name), pick_TR))

    def keep_problems(self, keep_T: Tensor) -> None:
        """Go on with these problems."""
        for name, value in vars(self).items():
            setattr(self, name, value[keep_T])


def lloyd_runs(space: Space, labels_TRN: Tensor, k: int, max_iterations: int, tolerance_T: Tensor) -> Runs:
    """Lloyd's iteration from these labels until every run has stopped; after each sweep the better half of a problem's
    runs goes on. Returns the runs that are left.

    A stopped run is frozen: sweeping it again changes nothing. Problems whose runs have all stopped leave the batch once
    they are half of it (leaving copies those that stay).
    """
    iterations_TR = labels_TRN.new_zeros(labels_TRN.shape[:2])
    moving = Moving(torch.arange(len(labels_TRN), device=labels_TRN.device), labels_TRN[:, :1] < 0, tolerance_T, labels_TRN,
                    iterations_TR > 0, iterations_TR)
    found = None
    for _ in range(max_iterations):
        swept = moving.sweep(space, k)
        if found is None:
            found = Runs(*(value.clone() for value in vars(swept).values()))
        else:
            found.put(moving.index_T, swept)
        done_T = moving.done_TR.all(-1)
        if done_T.all():
            break
        if (runs := found.labels_TRN.shape[1]) > 1:
            pick_TR = found.inertia_TR.argsort(dim=1, stable=True)[:, :(runs + 1) // 2]
            found, swept = found.chosen(pick_TR), swept.chosen(pick_TR[moving.index_T])
            moving.keep_runs(pick_TR[moving.index_T])
            done_T = moving.done_TR.all(-1)
        moving.labels_TRN = torch.where(moving.done_TR[..., None], moving.labels_TRN,
                                        without_empty(swept.nearest_TRN, swept.distance_TRN, k))
        left = max(int((~done_T).sum()), torch.get_num_threads())
        if 2 * left <= len(moving.index_T):
            keep_T = done_T.int().argsort(stable=True)[:left]
            space.keep(keep_T)
            moving.keep_problems(keep_T)
    return found


def assigned(space: Space, means: Tensor, padding_T1N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest mean of each point [T, R, N] (-1 on padding), the squared distance to it (0 there), and the products."""
    products_TRKN = space.of_means(means)
    score_TRN, nearest_TRN = torch.add(space.squared(means, products_TRKN)[..., None], products_TRKN, alpha=-2).min(2)
    distance_TRN = score_TRN.add_(space.norm_TN[:, None]).clamp_min_(0).masked_fill_(padding_T1N, 0)
    return nearest_TRN.masked_fill_(padding_T1N, -1), distance_TRN, products_TRKN


def without_empty(labels_TRN: Tensor, distance_TRN: Tensor, k: int) -> Tensor:
    """The labels after each empty cluster, in turn, has taken the farthest point of a cluster of two or more."""
    while True:
        sizes_TRK = labels_TRN.new_zeros(*labels_TRN.shape[:2], k + 1)
        sizes_TRK = sizes_TRK.scatter_add_(2, labels_TRN + 1, torch.ones_like(labels_TRN))[..., 1:]
        t, r = (sizes_TRK == 0).any(-1).nonzero(as_tuple=True)
        if len(t) == 0:
            return labels_TRN
        labels, sizes = labels_TRN[t, r], sizes_TRK[t, r]
        fixed = (labels < 0) | (sizes.gather(1, labels.clamp_min(0)) < 2)
        farthest = distance_TRN[t, r].masked_fill(fixed, -1).argmax(-1)
        labels_TRN = labels_TRN.clone()
        labels_TRN[t, r, farthest] = (sizes == 0).int().argmax(-1)
