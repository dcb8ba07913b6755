"""Products with the points of many problems, from their Gram matrices or from the points themselves."""

import torch
from torch import Tensor


def prefers_gram(length: int, width: int) -> bool:
    """Whether a problem of this padded length is solved in Gram form; a property of the problem, not of its batch."""
    return length <= width


def problem_bytes(length: int, width: int) -> int:
    """Bytes of the float32 points of a padded problem, and of its Gram matrix where it has one."""
    return 4 * length * (width + (length if prefers_gram(length, width) else 0))


def space_of(points_TND: Tensor) -> "Space":
    """The form in which problems of this shape are solved."""
    return (GramSpace if prefers_gram(*points_TND.shape[1:]) else PointSpace)(points_TND)


class Space:
    """What k-means asks of the points: their squared norms, and their inner products with points and with means.

    `values` [T, N, .] stand for the points. A mean is kept in a form of the space's own, [T, R, K, .].
    """

    def __init__(self, values_TNX: Tensor, norm_TN: Tensor):
        self.values, self.norm_TN = values_TNX, norm_TN

    def keep(self, index_T: Tensor) -> None:
        """Drop all problems but these."""
        self.values, self.norm_TN = self.values[index_T], self.norm_TN[index_T]


class GramSpace(Space):
    """G = X X^T. A mean is its weights W: 1/size for the points of the cluster, else 0. Products are W G."""

    def __init__(self, points_TND: Tensor):
        gram_TNN = _gram(points_TND)
        super().__init__(gram_TNN, gram_TNN.diagonal(dim1=1, dim2=2).clone())

    def of_points(self, index_TQ: Tensor) -> Tensor:
        """[T, Q, N] inner products of the chosen points with all points."""
        return rows_of(self.values, index_TQ)

    def means(self, labels_TRN: Tensor, k: int) -> Tensor:
        """The means of the clusters, [T, R, K, N]; labels are -1 on padding."""
        return weights_of(labels_TRN, k)

    def of_means(self, means_TRKN: Tensor) -> Tensor:
        """[T, R, K, N] inner products of means with all points."""
        return (means_TRKN.flatten(1, 2) @ self.values).view_as(means_TRKN)

    def squared(self, means_TRKN: Tensor, products_TRKN: Tensor) -> Tensor:
        """[T, R, K] squared norms of means, or of differences of means, with their products."""
        return (means_TRKN * products_TRKN).sum(-1)


class PointSpace(Space):
    """The points themselves. A mean is a vector C; products are C X^T, computed as X C^T: so a product of one problem is
    split over threads by its rows."""

    def __init__(self, points_TND: Tensor):
        super().__init__(points_TND, torch.linalg.vector_norm(points_TND, dim=-1).square())

    def of_points(self, index_TQ: Tensor) -> Tensor:
        """As GramSpace.of_points."""
        return (self.values @ rows_of(self.values, index_TQ).mT).mT

    def means(self, labels_TRN: Tensor, k: int) -> Tensor:
        """The means of the clusters, [T, R, K, D]; labels are -1 on padding, where the points are 0."""
        return means_of(self.values, labels_TRN, k)

    def of_means(self, means_TRKD: Tensor) -> Tensor:
        """As GramSpace.of_means."""
        return (self.values @ means_TRKD.flatten(1, 2).mT).mT.unflatten(1, means_TRKD.shape[1:3])

    def squared(self, means_TRKD: Tensor, products_TRKN: Tensor) -> Tensor:
        """As GramSpace.squared."""
        return means_TRKD.square().sum(-1)


def weights_of(labels_TRN: Tensor, k: int) -> Tensor:
    """[T, R, K, N]: 1/size where the point belongs to the cluster, 0 elsewhere and on padding."""
    member_TRKN = (labels_TRN[:, :, None] == torch.arange(k, device=labels_TRN.device)[:, None]).float()
    return member_TRKN.div_(member_TRKN.sum(-1, keepdim=True))


def means_of(points_TND: Tensor, labels_TRN: Tensor, k: int) -> Tensor:
    """[T, R, K, D] means of the clusters; labels are -1 on padding, where the points must be 0.

    On a CPU adding each point to its sum is several times faster than a product with weights; on CUDA the order of such
    additions is not fixed.
    """
    if points_TND.is_cuda:
        return (weights_of(labels_TRN, k).flatten(1, 2) @ points_TND).unflatten(1, (-1, k))
    (problems, restarts, _), width = labels_TRN.shape, points_TND.shape[2]
    cluster_TRN = labels_TRN.clamp_min(0) + k * torch.arange(problems * restarts).view(problems, restarts, 1)
    sums_SD = points_TND.new_zeros(problems * restarts * k, width)
    sizes_S = torch.bincount(cluster_TRN[labels_TRN >= 0], minlength=len(sums_SD))
    for restart in range(restarts):
        sums_SD.index_add_(0, cluster_TRN[:, restart].flatten(), points_TND.flatten(0, 1))
    return sums_SD.div_(sizes_S[:, None]).view(problems, restarts, k, width)


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
