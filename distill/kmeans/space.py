"""Products with the points of many problems, from their Gram matrices or from the points themselves."""

import torch
from torch import Tensor


def prefers_gram(length: int, width: int) -> bool:
    """Whether a problem of this padded length is solved in Gram form; a property of the problem, not of its batch."""
    return length <= width


def problem_bytes(length: int, width: int) -> int:
    """Bytes of the float32 points of a padded problem, and of its Gram matrix where it has one."""
    return 4 * length * (width + (length if prefers_gram(length, width) else 0))


class Space:
    """Products with X X^T, from the Gram matrix or from the points."""

    def __init__(self, points_TND: Tensor):
        self.gram = prefers_gram(*points_TND.shape[1:])
        self.values = _gram(points_TND) if self.gram else points_TND  # [T, N, N] or [T, N, D]
        self.norm_TN = (self.values.diagonal(dim1=1, dim2=2).clone() if self.gram
                        else torch.linalg.vector_norm(points_TND, dim=-1).square())

    def of_points(self, index_TQ: Tensor) -> Tensor:
        """[T, Q, N] inner products of the chosen points with all points."""
        rows = rows_of(self.values, index_TQ)
        return rows if self.gram else rows @ self.values.mT

    def of_sums(self, weights_TQN: Tensor) -> Tensor:
        """[T, Q, N] inner products of weighted sums of points with all points."""
        rows = weights_TQN @ self.values
        return rows if self.gram else rows @ self.values.mT

    def keep(self, index_T: Tensor) -> None:
        """Drop all problems but these."""
        self.values, self.norm_TN = self.values[index_T], self.norm_TN[index_T]


def rows_of(values_TND: Tensor, index_TQ: Tensor) -> Tensor:
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
