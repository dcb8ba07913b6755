"""Many small k-means problems at once (one per word type: its hidden states in, its k senses out).

Greedy k-means++ (Arthur & Vassilvitskii 2007, with scikit-learn's 2 + floor(ln k) candidates per step) and Lloyd's
iteration, batched over problems and restarts. For the centred points X [N, D] of one problem:

    W_KN   weight of point n in the mean of cluster k: 1/size or 0; the centroids are C = W X
    P_KN   inner products of centroids and points,             P = W X X^T
    |x_n - c_k|^2 = |x_n|^2 - 2 P_kn + |c_k|^2,  |c_k|^2 = sum_n W_kn P_kn

X enters only through X X^T, and the one choice is where to put the parenthesis: `W (X X^T)` with the Gram matrix formed
once (O(N^2 K) per sweep whatever D; for N <= D), or `(W X) X^T` (O(N K D) per sweep). Centroids are formed at the end.

Of several restarts the better half goes on after each sweep, until one is left (successive halving, Jamieson & Talwalkar
2016, arXiv 1502.07943): on hidden states ten restarts end within 0.1 % of ten full runs at less than half of the work.

Of a problem with more than SEARCHED_PER_CLUSTER points per cluster a random sample is searched; FULL_SWEEPS over all
points follow (the rule of faiss).

A result depends on the problem, its key, the seed and the options only: random numbers are a hash, a problem is padded
to a length that follows from its own count, and no batch is smaller than the number of BLAS threads (below that MKL
splits one product over several threads, which changes the order of summation), except that a problem of more than
SPLIT_ROWS rows always is alone (it occupies all threads, and waits for no other to converge). So a problem gives the same
bits alone and in any batch. Tested on CPU; on CUDA it holds as far as cuBLAS picks the same kernel for every batch size.

Suffixes: T problems, R restarts, K clusters, L candidates, Q any set of rows, N points (padded), D features.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.kmeans.lloyd import Runs, assigned, lloyd_runs, without_empty
from distill.kmeans.seeding import greedy_seeds, sampled_rows, uniform_numbers
from distill.kmeans.space import PointSpace, means_of, problem_bytes, rows_of, space_of

SEARCHED_PER_CLUSTER = 256  # points; of a larger problem a sample is searched
FULL_SWEEPS = 2  # over all points of such a problem, from what was found in its sample
GROUP_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}  # of the problems that are handed to kmeans() at a time
SPLIT_ROWS = 2048  # a CPU solves a problem of more rows alone
_RESIDUAL_NUMBERS = 1 << 20  # differences of points and centroids that are held at a time
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


def padded_batch(vectors_ND: np.ndarray, starts: np.ndarray, counts: np.ndarray, group: np.ndarray) -> Tensor:
    """The problems `group` as `kmeans` takes them, [T, N, D] float16; problem t owns the vectors from starts[t] on."""
    points_TND = np.zeros((len(group), int(counts[group].max()), vectors_ND.shape[1]), np.float16)
    for line, problem in enumerate(group):
        points_TND[line, :counts[problem]] = vectors_ND[starts[problem]:starts[problem] + counts[problem]]
    return torch.from_numpy(points_TND)


def plan_groups(counts: np.ndarray, k: int, width: int, budget_bytes: int = GROUP_BYTES["cpu"]) -> list[np.ndarray]:
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
        size = max(1, budget_bytes // problem_bytes(length, width))
        groups += [members[start:start + size] for start in range(0, len(members), size)]
    return groups


@torch.no_grad()
def kmeans(points_TND: Tensor, counts_T: Tensor, keys_T: Tensor, k: int, *, seed: int = 0, restarts: int = 1,
           max_iterations: int = 300, tolerance: float = 0.03) -> KMeansResult:
    """Cluster each of T problems into k clusters; the best of `restarts` runs is kept (module docstring).

    A run stops when no label changes, when the summed squared shift of its centroids is at most `tolerance` times the
    mean variance of the features (scikit-learn's rule; its 1e-4 lowers the inertia of hidden states by 0.02 % more, in
    twice the time where problems are large), or after `max_iterations`. A cluster that loses all its points takes the
    point farthest from its centroid.

    points_TND is float32 or float16; rows from counts_T[t] on are padding, whatever they hold. keys_T (token ids) and
    the seed decide the random numbers. ValueError if shapes disagree or a number is out of range, as count < k is.
    """
    counts = _checked_counts(points_TND, counts_T, keys_T, k, restarts, max_iterations)
    (problems, length, width), device = points_TND.shape, points_TND.device
    result = KMeansResult(
        torch.zeros(problems, k, width, device=device), torch.zeros(problems, device=device),
        torch.full((problems, length), -1, device=device), torch.zeros(problems, dtype=torch.int64, device=device))
    for block, filled in _blocks(np.array(counts), width, device):
        index_T = torch.from_numpy(filled).to(device)
        count_T = torch.tensor([counts[i] for i in filled], device=device)
        centred_TND, mean_TD = _centre(points_TND, filled, counts)
        key_T = keys_T.to(device)[index_T]
        options = (k, seed, restarts, max_iterations, tolerance)
        search = _sampled_search if 4 * centred_TND.shape[1] > 5 * SEARCHED_PER_CLUSTER * k else _search
        runs = search(centred_TND, count_T, key_T, *options)
        _finish(result, index_T[:len(block)], centred_TND, mean_TD, runs, k)
    return result


def _blocks(counts: np.ndarray, width: int, device: torch.device) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Problems that are solved together, and the same filled up with copies to one per thread (module docstring)."""
    threads, largest = torch.get_num_threads(), problem_bytes(padded_length(counts.max(initial=1)), width)
    if device.type != "cpu":
        yield from ((block, block) for block in plan_groups(counts, 0, width, max(len(counts), 1) * largest))
        return
    for block in plan_groups(counts, 0, width, max(_BLOCK_BYTES, threads * largest)):
        if padded_length(counts[block[0]]) > SPLIT_ROWS:
            yield from ((problem, problem) for problem in np.split(block, len(block)))
        else:
            yield block, np.resize(block, max(len(block), threads))


def _search(points_TND: Tensor, count_T: Tensor, key_T: Tensor, k: int, seed: int, restarts: int, max_iterations: int,
            tolerance: float) -> Runs:
    """Seeding and Lloyd's iteration."""
    space = space_of(points_TND)
    uniform_TRKL = uniform_numbers(seed, key_T, restarts, k, 2 + int(math.log(k)))
    labels_TRN = without_empty(*greedy_seeds(space, count_T, uniform_TRKL), k)
    variance_T = space.norm_TN.sum(-1) / (count_T * points_TND.shape[2])
    return lloyd_runs(space, labels_TRN, k, max_iterations, tolerance * variance_T)


def _sampled_search(points_TND: Tensor, count_T: Tensor, key_T: Tensor, k: int, seed: int, restarts: int,
                    max_iterations: int, tolerance: float) -> Runs:
    """A search in a sample of each problem, then FULL_SWEEPS over all points from the best run's means.

    Every count must reach the sample's size; padded_length() adds less than a quarter to a count.
    """
    rows_TS = sampled_rows(seed, key_T, count_T, points_TND.shape[1], SEARCHED_PER_CLUSTER * k)
    sample_TSD = rows_of(points_TND, rows_TS)
    found = _search(sample_TSD, torch.full_like(count_T, rows_TS.shape[1]), key_T, k, seed, restarts, max_iterations, tolerance)
    best = found.chosen(found.inertia_TR.argmin(-1, keepdim=True))
    space = PointSpace(points_TND)
    padding_T1N = torch.arange(points_TND.shape[1], device=count_T.device) >= count_T[:, None, None]
    nearest_TRN, distance_TRN, _ = assigned(space, means_of(sample_TSD, best.labels_TRN, k), padding_T1N)
    return lloyd_runs(space, without_empty(nearest_TRN, distance_TRN, k), k, min(FULL_SWEEPS, max_iterations),
                      torch.zeros_like(count_T))


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
        points_ND = centred_TND[row, :counts[problem]].copy_(points_TND[problem, :counts[problem]])
        points_ND.sub_(torch.mean(points_ND, 0, out=mean_TD[row]))
    return centred_TND, mean_TD


def _finish(result: KMeansResult, index_T, centred_TND, mean_TD, runs: Runs, k: int) -> None:
    """Write the best restart of the problems index_T (later rows of the batch are copies)."""
    best = runs.chosen(runs.inertia_TR.argmin(-1, keepdim=True))
    nearest_TN, iterations_T = best.nearest_TRN[:, 0], best.iterations_TR[:, 0]
    centroids_TKD = means_of(centred_TND, best.labels_TRN, k)[:, 0]
    rows = max(1, _RESIDUAL_NUMBERS // centred_TND[:, 0].numel())
    squared_TN = torch.cat([(part_TQD - rows_of(centroids_TKD, nearest_TQ.clamp_min(0))).square_().sum(-1)
                            for part_TQD, nearest_TQ in zip(centred_TND.split(rows, 1), nearest_TN.split(rows, 1))], 1)
    squared_TN *= nearest_TN >= 0
    real, length = len(index_T), min(result.labels_TN.shape[1], nearest_TN.shape[1])
    result.centroids_TKD[index_T] = (centroids_TKD + mean_TD[:, None])[:real]
    result.inertia_T[index_T] = squared_TN.sum(-1)[:real]
    result.labels_TN[index_T, :length] = nearest_TN[:real, :length]
    result.iterations_T[index_T] = iterations_T[:real]
