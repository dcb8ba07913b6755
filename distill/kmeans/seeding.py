"""Greedy k-means++, with random numbers that are a hash of (seed, key, restart, step, candidate)."""

import torch
from torch import Tensor

from distill.kmeans.space import Space


def _signed(value: int) -> int:
    """The low 64 bits of a Python integer, as the int64 with the same bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _splitmix64(state: Tensor) -> Tensor:
    """One output of splitmix64 (Steele, Lea & Flood 2014) per int64; sums and products wrap, shifts are logical."""
    state = state + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ ((state >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return state ^ ((state >> 31) & ((1 << 33) - 1))


def _hashed_keys(seed: int, keys_T: Tensor) -> Tensor:
    return _splitmix64(keys_T ^ _splitmix64(torch.full_like(keys_T, _signed(seed))))


def uniform_numbers(seed: int, keys_T: Tensor, restarts: int, steps: int, candidates: int) -> Tensor:
    """float32 [T, R, steps, candidates] in [0, 1): the top 24 bits of a hash of seed, key, restart, step, candidate."""
    restart_R = torch.arange(restarts, device=keys_T.device)
    draw_KL = torch.arange(steps * candidates, device=keys_T.device).view(steps, candidates)
    hashed_TR = _splitmix64(_hashed_keys(seed, keys_T)[:, None] ^ restart_R)
    bits_TRKL = _splitmix64(hashed_TR[:, :, None, None] ^ draw_KL)
    return ((bits_TRKL >> 40) & ((1 << 24) - 1)).float() * 2.0 ** -24


def sampled_rows(seed: int, keys_T: Tensor, count_T: Tensor, length: int, size: int) -> Tensor:
    """[T, size] different rows below each count, rising: those of the smallest hashes of seed, key and row."""
    row_N = torch.arange(length, device=keys_T.device)
    bits_TN = _splitmix64(_hashed_keys(seed, keys_T)[:, None] ^ ~row_N)
    bits_TN.masked_fill_(row_N >= count_T[:, None], torch.iinfo(torch.int64).max)
    return bits_TN.argsort(dim=-1, stable=True)[:, :size].sort(dim=-1).values


def greedy_seeds(space: Space, count_T: Tensor, uniform_TRKL: Tensor) -> tuple[Tensor, Tensor]:
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
