"""Pure functions of progress: the share of the optimiser steps that are done, in [0, 1]."""

import math
from collections.abc import Callable


def _warmed(progress: float, warmup: float) -> float | None:
    """The linear warm-up's multiplier, or None once it is over."""
    return progress / warmup if progress < warmup else None


def constant(progress: float, warmup: float) -> float:
    """Linear warm-up to 1, then 1."""
    warming = _warmed(progress, warmup)
    return 1.0 if warming is None else warming


def linear(progress: float, warmup: float) -> float:
    """Linear warm-up to 1, then linear decay to 0."""
    warming = _warmed(progress, warmup)
    return (1 - progress) / (1 - warmup) if warming is None else warming


def cosine(progress: float, warmup: float) -> float:
    """Linear warm-up to 1, then half a cosine to 0."""
    warming = _warmed(progress, warmup)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) if warming is None else warming


def one_cycle(progress: float, warmup: float) -> float:
    """Cosine from 0.048 up to 1.2 at the end of the warm-up, cosine down to 0.0048 (the published code of arXiv 2504.06036)."""
    peak, start, end = 1.2, 0.048, 0.0048
    if progress < warmup:
        return _anneal(start, peak, progress / warmup)
    return _anneal(peak, end, (progress - warmup) / (1 - warmup))


def one_cycle_beta1(progress: float, warmup: float) -> float:
    """The first momentum that goes with `one_cycle`: 0.95 -> 0.85 at its peak -> 0.95."""
    if progress < warmup:
        return _anneal(0.95, 0.85, progress / warmup)
    return _anneal(0.85, 0.95, (progress - warmup) / (1 - warmup))


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


LEARNING_RATE = {"constant": constant, "linear": linear, "cosine": cosine, "one_cycle": one_cycle}
BETA1 = {"one_cycle": one_cycle_beta1}  # the other schedules leave the optimiser's own

Weight = Callable[[float], float]  # of progress


def until(end: float, weight: float) -> Weight:
    """`weight` while progress is below `end`, then 0."""
    return lambda progress: weight if progress < end else 0.0


def since(start: float, weight: float) -> Weight:
    """0 while progress is below `start`, then `weight`."""
    return lambda progress: weight if progress >= start else 0.0
