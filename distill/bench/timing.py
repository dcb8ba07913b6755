"""Two ways to do the same thing, timed in turns in one process."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

GEMM_SIZE = 2048
COPY_BYTES = 256 << 20
ROUND_SECONDS = 0.2  # at least
OTHERS_AT_MOST = 0.1  # of the machine's processors, before a measurement counts as disturbed


@dataclass(frozen=True)
class Comparison:
    """What is timed against what.

    `ours` and `theirs` do one round and return (amount of work, seconds): real tokens, examples or problems, without
    padding. `check` runs before; it returns what was found equal, and raises ValueError where it is not.
    `flops`: useful floating-point operations in one unit of our work, 0 where the peak of matrix products, in bfloat16
    or float32, is no fair measure.
    """

    part: str
    against: str
    unit: str
    ours: Callable[[], tuple[float, float]]
    theirs: Callable[[], tuple[float, float]]
    check: Callable[[], str]
    flops: float = 0.0
    bfloat16: bool = False


@dataclass(frozen=True)
class Timing:
    """Rates in units per second: best and median of the rounds. `ratio` is best against best."""

    ours: float
    ours_median: float
    theirs: float
    theirs_median: float
    rounds: int
    disturbed: bool

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True)
class Machine:
    """What the machine can do, measured in the same run: matrix products in 1e9 operations per second, copying in 1e9
    bytes read and written per second."""

    gemm_float32: float
    gemm_bfloat16: float
    copy: float


def training_flops(config, length: float) -> float:
    """Operations per token of a training step of an encoder, in sequences of `length`: three times the forward pass;
    without embeddings, padding and what is computed again."""
    width, inner = config.hidden_size, config.intermediate_size
    return 3 * config.num_hidden_layers * (8 * width**2 + 4 * width * inner + 4 * length * width)


def timed(work: Callable[[], object], amount: float) -> Callable[[], tuple[float, float]]:
    """A round of a Comparison: `work()` from start to end, the device's queue included."""
    def once() -> tuple[float, float]:
        _finish_queue()
        start = time.perf_counter()
        work()
        _finish_queue()
        return amount, time.perf_counter() - start

    return once


def _finish_queue() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(comparison: Comparison, rounds: int) -> Timing:
    """One round of each to warm up, then `rounds` of each in turns; a short one is repeated until it can be timed."""
    comparison.ours(), comparison.theirs()
    rates, watch = ([], []), OtherLoad()
    for _ in range(rounds):
        for found, side in zip(rates, (comparison.ours, comparison.theirs)):
            amount, seconds = 0, 0.0
            while seconds < ROUND_SECONDS:
                more, longer = side()
                amount, seconds = amount + more, seconds + longer
            found.append(amount / seconds)
    (ours, theirs), disturbed = rates, watch.share() > OTHERS_AT_MOST
    return Timing(max(ours), statistics.median(ours), max(theirs), statistics.median(theirs), rounds, disturbed)


class OtherLoad:
    """How much of the machine other processes use, from the kernel's own counters."""

    def __init__(self):
        self._before = self._now()

    def share(self) -> float:
        """Share of all processors that others used since this watch was made; 0 where there is no /proc/stat."""
        busy, own, total = (now - before for now, before in zip(self._now(), self._before))
        return max(0.0, busy - own) / total if total else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        stat = Path("/proc/stat")
        if not stat.is_file():
            return 0.0, 0.0, 0.0
        user, nice, system, idle, iowait, *rest = (int(word) for word in stat.read_text().split("\n")[0].split()[1:9])
        ticks, own = os.sysconf("SC_CLK_TCK"), os.times()
        total = user + nice + system + idle + iowait + sum(rest)
        return (total - idle - iowait) / ticks, own.user + own.system, total / ticks


def calibrate(device: torch.device) -> Machine:
    """The best of a few products of large matrices and of a few copies."""
    def gemm(dtype: torch.dtype) -> float:
        left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device).to(dtype) for _ in range(2))
        return 2 * GEMM_SIZE**3 / _best(lambda: left @ right) / 1e9

    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Machine(gemm(torch.float32), gemm(torch.bfloat16), 2 * COPY_BYTES / _best(lambda: target.copy_(source)) / 1e9)


def _best(work: Callable[[], object], rounds: int = 5) -> float:
    once = timed(work, 1)
    once()
    return min(once()[1] for _ in range(rounds))
