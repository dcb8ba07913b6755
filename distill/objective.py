"""Objective: what one optimiser step minimises."""

from torch import Tensor, nn


class Objective(nn.Module):
    """The terms of a method. The engine adds them up as

        loss of a step = sum over terms of  weight * (sum of the term over the step) / (count of the term in the step)

    where sums and counts run over all micro-batches and ranks of the step. A module, so that what an objective learns
    (projections, heads) is trained, saved and synchronised with the student.
    """

    def counts(self, batch) -> dict[str, int]:
        """What each term is divided by. `batch` is the whole step, on the CPU."""
        raise NotImplementedError

    def weights(self, progress: float) -> dict[str, float]:
        """Each term's weight at `progress` in [0, 1]; weight schedules live here."""
        raise NotImplementedError

    def flops(self, batch) -> float:
        """Floating point operations of the matrix products of one step over `batch`, forward and backward, teacher included; 0
        where they are not counted."""
        return 0.0

    def forward(self, student: nn.Module, batch, progress: float) -> dict[str, Tensor]:
        """The sum (a scalar tensor) of each term over one micro-batch; the keys of counts(). At weight 0 any sum will do."""
        raise NotImplementedError
