"""The loss over a vocabulary, forward and backward: in chunks, against scores that are held whole. Time, and peak memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from distill import workers
from distill.bench.memory import peak_growth
from distill.bench.timing import Comparison, timed
from distill.losses import soft_targets
from distill.vocabulary_losses import soft_words

ROWS, LENGTH, WIDTH = 32, 128, 384
VOCABULARIES = (30_522, 128_100)  # BERT's, DeBERTa-v3's
TEMPERATURE = 2.0
TOLERANCE = 1e-4


def comparisons(cfg) -> Iterator[Comparison]:
    """Soft targets at every one of ROWS x LENGTH positions, float32, for vocabularies of BERT's and DeBERTa-v3's size."""
    for words in VOCABULARIES:
        sides = Sides(words)
        yield Comparison(f"soft targets over {words:,} words at {ROWS} x {LENGTH} positions", "scores held whole", "tokens",
                         timed(sides.ours, ROWS * LENGTH), timed(sides.theirs, ROWS * LENGTH), sides.check,
                         flops=2.0 * 4 * WIDTH * words)  # scores of both, and two products backward


class Sides:
    """A student's and a teacher's features, words and bias; each side returns the loss and the gradients of the student's."""

    def __init__(self, words: int):
        torch.manual_seed(0)
        self.student, self.teacher = (tuple(torch.randn(shape, device=workers.device()).mul_(0.1).requires_grad_()
                                            for shape in ((ROWS * LENGTH, WIDTH), (words, WIDTH), (words,))) for _ in range(2))

    def _with_gradients(self, loss: Callable[[], Tensor]) -> list[Tensor]:
        value = loss()
        return [value.detach(), *torch.autograd.grad(value, self.student)]

    def ours(self) -> list[Tensor]:
        return self._with_gradients(lambda: soft_words(*self.student, self.teacher, TEMPERATURE))

    def theirs(self) -> list[Tensor]:
        return self._with_gradients(lambda: soft_targets(F.linear(*self.student), F.linear(*self.teacher).detach(), TEMPERATURE).sum())

    def check(self) -> str:
        errors = [float((one - other).abs().max() / other.abs().max()) for one, other in zip(self.ours(), self.theirs(), strict=True)]
        if max(errors) > TOLERANCE:
            raise ValueError(f"the chunked loss or its gradients differ by {max(errors):.1e}: expected at most {TOLERANCE:.0e}")
        said = f"loss and gradients equal to {max(errors):.0e}"
        if workers.device().type == "cuda":
            ours, theirs = (self._peak_on_device(side) for side in (self.ours, self.theirs))
        else:
            ours, theirs = (peak_growth(side) for side in (self.ours, self.theirs))
        return f"{said}; peak memory {ours / 2**20:,.0f} MiB, theirs {theirs / 2**20:,.0f} MiB"

    @staticmethod
    def _peak_on_device(side: Callable[[], object]) -> int:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        side()
        return torch.cuda.max_memory_allocated() - before
