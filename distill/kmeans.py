"""Many small k-means problems at once (one per word type: its hidden states in, its k senses out).

Greedy k-means++ (Arthur & Vassilvitskii 2007, with scikit-learn's 2 + floor(ln k) candidates per step) and Lloyd's
iteration, batched over problems and restarts. For the centred points X [N, D] of one problem:

    W_KN   weight of point n in the mean of cluster k: 1/size or 0; the centroids are C = W X
    P_KN   inner products of centroids and points,             P = W X X^T
    |x_n - c_k|^2 = |x_n|^2 - 2 P_kn + |c_k|^2,  |c_k|^2 = sum_n W_kn P_kn

X enters only through X X^T, and the one choice is where to put the parenthesis: `W (X X^T)` with the Gram matrix formed
once (O(N^2 K) per sweep whatever D; for N <= D), or `(W X) X^T` (O(N K D) per sweep). Centroids are formed at the end.

A result depends on the problem, its key, the seed and the options only: random numbers are a hash, a problem is padded
to a length that follows from its own count, and no batch is smaller than the number of BLAS threads (below that MKL
splits one product over several threads, which changes the order of summation). So a problem gives the same bits alone
and in any batch. Tested on CPU; on CUDA it holds as far as cuBLAS picks the same kernel for every batch size.

Suffixes: T problems, R restarts, K clusters, L candidates, Q any set of rows, N points (padded), D features.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BLOCK_BYTES = 16 << 20  # a CPU works on blocks of this size: they stay in cache, and malloc reuses their pages


@dataclass(frozen=True)
class KMeansResult:
    """What `kmeans` found for T problems, in the units of the points."""

    centroids_TKD: Tensor  # float32, always K finite rows
    inertia_T: Tensor      # float32, sum over the points of the squared Euclidean distance to their centroid
    labels_TN: Tensor      # int64, the nearest centroid of each point; -1 on padding
    iterations_T: Tensor   # int64, Lloyd iterations of the restart that was kept


def padded_length(count: int) -> int:
    """The number of rows that a problem with `count` points is padded to: steps of 8, then four steps per octave."""
    step = max(8, 1 << max(0, int(count - 1).bit_length() - 3))
    return -(-int(count) // step) * step


def plan_groups(counts: np.ndarray, k: int, width: int, budget_bytes: int = 64 << 20) -> list[np.ndarray]:
    """Partition the problems (counts [T], points of `width` features) that need clustering by padded length.

    Problems with count <= k are left out: their raw vectors already are at most k senses. (`kmeans` accepts count == k
    and returns k clusters of one point each, the same vectors in another order.)

    Returns index arrays, shortest problems first, that hold each problem with count > k once. The padded float32 points
    and Gram matrices of a group fit `budget_bytes`; a problem that is larger than this is a group of its own.
    """
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > k]
    lengths = np.array([padded_length(count) for count in counts[order]], dtype=np.int64)
    groups = []
    for length in np.unique(lengths).tolist():
        members = order[lengths == length]
        size = max(1, budget_bytes // _problem_bytes(length, width))
        groups += [members[start:start + size] for start in range(0, len(members), size)]
    return groups


def _prefers_gram(length: int, width: int) -> bool:
    """Whether a problem of this padded length is solved in Gram form; a property of the problem, not of its batch."""
    return length <= width


def _problem_bytes(length: int, width: int) -> int:
    return 4 * length * (width + (length if _prefers_gram(length, width) else 0))


@torch.no_grad()
def kmeans(points_TND: Tensor, counts_T: Tensor, keys_T: Tensor, k: int, *, seed: int = 0, restarts: int = 1,
           max_iterations: int = 300, tolerance: float = 1e-4) -> KMeansResult:
    """Cluster each of T problems into k clusters; the best of `restarts` runs is kept.

    A run stops when no label changes, when the summed squared shift of its centroids is at most `tolerance` times the
    mean variance of the features (scikit-learn's rule), or after `max_iterations`. A cluster that loses all its points
    takes the point farthest from its centroid.

    points_TND is float32 or float16; rows from counts_T[t] on are padding, whatever they hold. keys_T (token ids) and
    the seed decide the random numbers. ValueError if shapes disagree or a number is out of range, as count < k is.
    """
    counts = _checked_counts(points_TND, counts_T, keys_T, k, restarts, max_iterations)
    (problems, length, width), device, threads = points_TND.shape, points_TND.device, torch.get_num_threads()
    result = KMeansResult(
        torch.zeros(problems, k, width, device=device), torch.zeros(problems, device=device),
        torch.full((problems, length), -1, device=device), torch.zeros(problems, dtype=torch.int64, device=device))
    largest = _problem_bytes(padded_length(max(counts, default=1)), width)
    budget = max(_BLOCK_BYTES, threads * largest) if device.type == "cpu" else max(problems, 1) * largest
    for block in plan_groups(np.array(counts), 0, width, budget):
        filled = np.resize(block, max(len(block), threads))  # copies, up to one problem per thread (module docstring)
        index_T = torch.from_numpy(filled).to(device)
        count_T = torch.tensor([counts[i] for i in filled], device=device)
        centred_TND, mean_TD = _centre(points_TND, filled, counts)
        space = _Space(centred_TND)
        uniform_TRKL = _uniform(seed, keys_T.to(device)[index_T], restarts, k, 2 + int(math.log(k)))
        labels_TRN = _without_empty(*_seed(space, count_T, uniform_TRKL), k)
        variance_T = space.norm_TN.sum(-1) / (count_T * width)
        runs = _lloyd(space, labels_TRN, k, max_iterations, tolerance * variance_T)
        _finish(result, index_T[:len(block)], centred_TND, mean_TD, runs, k)
    return result


def _checked_counts(points_TND, counts_T, keys_T, k, restarts, max_iterations) -> list[int]:
    shape, *others = shapes = [tuple(argument.shape) for argument in (points_TND, counts_T, keys_T)]
    if len(shape) != 3 or others != [shape[:1]] * 2:
        raise ValueError(f"points, counts and keys are {shapes}: expected [T, N, D], [T] and [T]")
    if min(k, restarts, max_iterations) < 1:
        raise ValueError(f"k={k}, restarts={restarts}, max_iterations={max_iterations}: each must be at least 1")
    counts = counts_T.tolist()
    if counts and not k <= min(counts) <= max(counts) <= shape[1]:
        raise ValueError(f"counts are {min(counts)}..{max(counts)}: expected k={k}..N={shape[1]} (see plan_groups)")
    return counts


def _centre(points_TND: Tensor, index: np.ndarray, counts: list[int]) -> tuple[Tensor, Tensor]:
    """The chosen problems as float32 [T, padded, D] with mean zero and zeros on padding, and their means [T, D]."""
    length, width, device = padded_length(counts[index[0]]), points_TND.shape[2], points_TND.device
    centred_TND, mean_TD = (torch.zeros(*rows, width, device=device) for rows in ((len(index), length), (len(index),)))
    for row, problem in enumerate(index.tolist()):  # one problem at a time stays in cache
        points_ND = points_TND[problem, :counts[problem]].float()
        torch.mean(points_ND, 0, out=mean_TD[row])
        torch.sub(points_ND, mean_TD[row], out=centred_TND[row, :len(points_ND)])
    return centred_TND, mean_TD


class _Space:
    """Products with X X^T, from the Gram matrix or from the points."""

    def __init__(self, points_TND: Tensor):
        self.gram = _prefers_gram(*points_TND.shape[1:])
        self.values = _gram(points_TND) if self.gram else points_TND  # [T, N, N] or [T, N, D]
        self.norm_TN = (self.values.diagonal(dim1=1, dim2=2).clone() if self.gram
                        else torch.linalg.vector_norm(points_TND, dim=-1).square())

    def of_points(self, index_TQ: Tensor) -> Tensor:
        """[T, Q, N] inner products of the chosen points with all points."""
        rows = _rows(self.values, index_TQ)
        return rows if self.gram else rows @ self.values.mT

    def of_sums(self, weights_TQN: Tensor) -> Tensor:
        """[T, Q, N] inner products of weighted sums of points with all points."""
        rows = weights_TQN @ self.values
        return rows if self.gram else rows @ self.values.mT

    def keep(self, index_T: Tensor) -> None:
        """Drop all problems but these."""
        self.values, self.norm_TN = self.values[index_T], self.norm_TN[index_T]


def _rows(values_TND: Tensor, index_TQ: Tensor) -> Tensor:
    """values[t, index[t, q]] as [T, Q, D]; one flat index_select is several times faster than gather."""
    problems, length, width = values_TND.shape
    flat = index_TQ + length * torch.arange(problems, device=index_TQ.device)[:, None]
    return values_TND.reshape(-1, width).index_select(0, flat.flatten()).view(*index_TQ.shape, width)


def _gram(points_TND: Tensor, block: int = 128) -> Tensor:
    """X X^T as [T, N, N]; only blocks on and right of the diagonal are multiplied, the rest is mirrored."""
    problems, length, _ = points_TND.shape
    if length <= block:
        return points_TND @ points_TND.mT
    gram_TNN = points_TND.new_empty(problems, length, length)
    for start in range(0, length, block):
        end = min(start + block, length)
        strip = points_TND[:, start:end] @ points_TND[:, start:].mT
        gram_TNN[:, start:end, start:] = strip
        gram_TNN[:, end:, start:end] = strip[:, :, end - start:].mT
    return gram_TNN


def _signed(value: int) -> int:
    """The low 64 bits of a Python integer, as the int64 with the same bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _splitmix64(state: Tensor) -> Tensor:
    """One output of splitmix64 (Steele, Lea & Flood 2014) per int64; sums and products wrap, shifts are logical."""
    state = state + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ ((state >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return state ^ ((state >> 31) & ((1 << 33) - 1))


def _uniform(seed: int, keys_T: Tensor, restarts: int, steps: int, candidates: int) -> Tensor:
    """float32 [T, R, steps, candidates] in [0, 1): the top 24 bits of a hash of seed, key, restart, step, candidate."""
    restart_R = torch.arange(restarts, device=keys_T.device)
    draw_KL = torch.arange(steps * candidates, device=keys_T.device).view(steps, candidates)
    hashed_T = _splitmix64(keys_T ^ _splitmix64(torch.full_like(keys_T, _signed(seed))))
    hashed_TR = _splitmix64(hashed_T[:, None] ^ restart_R)
    bits_TRKL = _splitmix64(hashed_TR[:, :, None, None] ^ draw_KL)
    return ((bits_TRKL >> 40) & ((1 << 24) - 1)).float() * 2.0 ** -24


def _seed(space: _Space, count_T: Tensor, uniform_TRKL: Tensor) -> tuple[Tensor, Tensor]:
    """Greedy k-means++: the nearest of k seeds (-1 on padding) and the squared distance to it, both [T, R, N]."""
    (problems, restarts, k, _), length = uniform_TRKL.shape, space.norm_TN.shape[1]
    last_T11 = (count_T - 1)[:, None, None]
    padding_T1N = torch.arange(length, device=count_T.device) > last_T11

    def distances(index_TRL):  # squared, [T, R, L, N]
        index_TQ = index_TRL.flatten(1)
        norm_TQN = space.norm_TN.gather(1, index_TQ)[..., None] + space.norm_TN[:, None]
        squared_TQN = norm_TQN.sub_(space.of_points(index_TQ), alpha=2).clamp_min_(0)
        return squared_TQN.view(problems, restarts, -1, length)

    first_TR1 = (uniform_TRKL[:, :, 0, :1] * count_T[:, None, None]).long().minimum(last_T11)
    closest_TRN = distances(first_TR1)[:, :, 0].masked_fill(padding_T1N, 0)  # stays 0 on padding: never drawn
    labels_TRN = torch.zeros_like(closest_TRN, dtype=torch.int64)
    for step in range(1, k):
        cumulative_TRN = closest_TRN.cumsum(-1)
        draws_TRL = uniform_TRKL[:, :, step] * cumulative_TRN[..., -1:]
        index_TRL = torch.searchsorted(cumulative_TRN, draws_TRL, right=True).minimum(last_T11)
        closer_TRLN = torch.minimum(distances(index_TRL), closest_TRN[:, :, None])
        best_TR11 = closer_TRLN.sum(-1).argmin(-1)[..., None, None]
        closer_TRN = closer_TRLN.gather(2, best_TR11.expand(-1, -1, 1, length))[:, :, 0]
        labels_TRN.masked_fill_(closer_TRN < closest_TRN, step)
        closest_TRN = closer_TRN
    return labels_TRN.masked_fill_(padding_T1N, -1), closest_TRN


def _lloyd(space: _Space, labels_TRN: Tensor, k: int, max_iterations: int, tolerance_T: Tensor) -> tuple[Tensor, ...]:
    """Lloyd's iteration until every run has stopped. A stopped run is frozen: sweeping it again changes nothing.

    Problems whose runs have all stopped leave the batch once they are half of it (leaving copies those that stay).
    Returns the labels that define the final centroids, the nearest of these centroids to each point, its squared
    distance (0 on padding), all [T, R, N], and the iterations [T, R].
    """
    padding_T1N, active_T = labels_TRN[:, :1] < 0, torch.arange(len(tolerance_T), device=tolerance_T.device)
    iterations_TR, before = labels_TRN.new_zeros(labels_TRN.shape[:2]), None
    done_TR = iterations_TR > 0
    final = labels_TRN.clone(), labels_TRN.clone(), labels_TRN.float(), iterations_TR.clone()
    for _ in range(max_iterations):
        weights_TRKN = _weights(labels_TRN, k)
        products_TRKN = space.of_sums(weights_TRKN.flatten(1, 2)).view_as(weights_TRKN)
        norm_TRK1 = (weights_TRKN * products_TRKN).sum(-1, keepdim=True)
        score_TRN, nearest_TRN = torch.add(norm_TRK1, products_TRKN, alpha=-2).min(2)
        nearest_TRN.masked_fill_(padding_T1N, -1)
        distance_TRN = score_TRN.add_(space.norm_TN[:, None]).clamp_min_(0).masked_fill_(padding_T1N, 0)
        iterations_TR = iterations_TR + ~done_TR
        done_TR = done_TR | (nearest_TRN == labels_TRN).all(-1)
        if before is not None:  # sum_k |c' - c|^2 = sum_k (w' - w) X X^T (w' - w)
            shift_TR = ((weights_TRKN - before[0]) * (products_TRKN - before[1])).sum(-1).sum(-1)
            done_TR |= shift_TR <= tolerance_T[:, None]
        for target, value in zip(final, (labels_TRN, nearest_TRN, distance_TRN, iterations_TR)):
            target[active_T] = value
        done_T = done_TR.all(-1)
        if done_T.all():
            break
        labels_TRN = torch.where(done_TR[..., None], labels_TRN, _without_empty(nearest_TRN, distance_TRN, k))
        before = weights_TRKN, products_TRKN
        left = max(int((~done_T).sum()), torch.get_num_threads())
        if 2 * left <= len(active_T):
            keep_T = done_T.int().argsort(stable=True)[:left]
            space.keep(keep_T)
            active_T, padding_T1N, tolerance_T = active_T[keep_T], padding_T1N[keep_T], tolerance_T[keep_T]
            labels_TRN, done_TR, iterations_TR = labels_TRN[keep_T], done_TR[keep_T], iterations_TR[keep_T]
            before = before[0][keep_T], before[1][keep_T]
    return final


def _weights(labels_TRN: Tensor, k: int) -> Tensor:
    """[T, R, K, N]: 1/size where the point belongs to the cluster, 0 elsewhere and on padding."""
    member_TRKN = (labels_TRN[:, :, None] == torch.arange(k, device=labels_TRN.device)[:, None]).float()
    return member_TRKN.div_(member_TRKN.sum(-1, keepdim=True))


def _without_empty(labels_TRN: Tensor, distance_TRN: Tensor, k: int) -> Tensor:
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


def _finish(result: KMeansResult, index_T, centred_TND, mean_TD, runs: tuple[Tensor, ...], k: int) -> None:
    """Write the best restart of the problems index_T (later rows of the batch are copies). Overwrites centred_TND."""
    best_T = runs[2].sum(-1).argmin(-1)
    row_T = torch.arange(len(best_T), device=best_T.device)
    labels_TN, nearest_TN, _, iterations_T = (value[row_T, best_T] for value in runs)
    centroids_TKD = _weights(labels_TN[:, None], k)[:, 0] @ centred_TND
    residual_TND = centred_TND.sub_(_rows(centroids_TKD, nearest_TN.clamp_min(0)))
    squared_TN = torch.linalg.vector_norm(residual_TND, dim=-1).square() * (nearest_TN >= 0)
    real, length = len(index_T), min(result.labels_TN.shape[1], nearest_TN.shape[1])
    result.centroids_TKD[index_T] = (centroids_TKD + mean_TD[:, None])[:real]
    result.inertia_T[index_T] = squared_TN.sum(-1)[:real]
    result.labels_TN[index_T, :length] = nearest_TN[:real, :length]
    result.iterations_T[index_T] = iterations_T[:real]
