"""How fast a run is: tokens a second, and the share of what the hardware multiplies at best (MFU)."""

import contextlib
import functools
import time
from collections.abc import Iterator

import torch

from distill import workers
from distill.config import TrainConfig
from distill.precision import uses_bf16

SIDE = {"cpu": 2048, "cuda": 8192}  # of the largest square matrices that are multiplied
FIRST_SIDE = 256
LONG = 0.1  # seconds of a product that tells enough: emulated arithmetic would take minutes for the largest
ROUNDS = 5


class Pace:
    """Counts what steps did between two lines of the log, in this sitting: the time apart() from them does not count."""

    def __init__(self, cfg: TrainConfig):
        self.cfg = cfg
        self._start()

    def _start(self) -> None:
        self.tokens, self.flops, self.started = 0, 0.0, time.perf_counter()

    def note(self, tokens: int, flops: float) -> None:
        """A step over all ranks: real tokens, and operations of its matrix products (0: not counted)."""
        self.tokens += tokens
        self.flops += flops

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is done here, such as an evaluation, is no part of a step."""
        begun = time.perf_counter()
        yield
        self.started += time.perf_counter() - begun

    def take(self) -> dict[str, float]:
        """tokens_per_second over all ranks since the last call, and mfu where operations were counted."""
        seconds = time.perf_counter() - self.started
        found = {"tokens_per_second": round(self.tokens / seconds, 1)}
        if self.flops:
            found["mfu"] = round(self.flops / seconds / (best_product(self._dtype()) * workers.world()), 4)
        self._start()
        return found

    def _dtype(self) -> torch.dtype:
        if uses_bf16(self.cfg, workers.device()):
            return torch.bfloat16
        return torch.float16 if self.cfg.fp16 else torch.float32


@functools.cache
def best_product(dtype: torch.dtype) -> float:
    """Operations per second of one large matrix product on this device: what mfu is a share of.

    Measured, since a data sheet knows neither the threads of this process nor the clock of this machine: the best of ROUNDS, of squares
    that double until one takes LONG or has the device's SIDE.
    """
    device, best = workers.device(), 0.0
    side, seconds = FIRST_SIDE, 0.0
    while side <= SIDE[device.type] and seconds < LONG:
        matrix = torch.linspace(-1, 1, side * side, device=device).view(side, side).to(dtype)  # ones draw less power: a GPU clocks higher
        seconds = min(_seconds_of_product(matrix) for _ in range(ROUNDS))
        best = max(best, 2 * side ** 3 / seconds)
        side *= 2
    return best


def _seconds_of_product(matrix: torch.Tensor) -> float:
    _wait(matrix.device)
    started = time.perf_counter()
    matrix @ matrix
    _wait(matrix.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
