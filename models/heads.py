"""Heads: how a sequence's hidden states become one vector, a sense, and a prediction."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

POOLINGS = ("cls", "first_token", "mean")
TOKENS = "tokens"  # no pooling: the head answers at every token
SIMILARITIES = ("dot", "distance")
SQUARED_ROWS = 1 << 14  # senses at a time: the squares of a whole table would take its memory again


def check_pooling(pooling: str) -> str:
    """`pooling` itself; ValueError with the list for an unknown one."""
    if pooling not in (*POOLINGS, TOKENS):
        raise ValueError(f"unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
    return pooling


def check_similarity(similarity: str) -> str:
    """`similarity` itself; ValueError with the list for an unknown one."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"unknown similarity {similarity!r}: choose one of {', '.join(SIMILARITIES)}")
    return similarity


POSITIONS = {"cls": 0, "first_token": 1}  # of the poolings that read one


def pool(hidden_BTD: Tensor, attention_mask_BT: Tensor, pooling: str) -> Tensor:
    """One vector per sequence [B, D]; `tokens`: one per token [B, T, D], as they are.

        position      0     1      2 ...
                    [CLS] first  second  ... [SEP] [PAD]
        cls           x
        first_token         x                              (what the published SKD checkpoints read)
        mean          x     x      x     ...   x           (padding excluded)
    """
    if pooling == "cls":
        return hidden_BTD[:, 0]
    if pooling == "first_token":
        return hidden_BTD[:, 1]
    if pooling == TOKENS:
        return hidden_BTD
    weight_BT1 = attention_mask_BT.unsqueeze(-1).float()  # half precision counts no further than 256
    return (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1)


class ClassificationHead(nn.Module):
    """dense -> activation -> dropout -> out: the shape of BERT's and DeBERTa's own sequence heads.

    `forward(pooled [B, D]) -> logits [B, num_labels]` in float32, outside autocast: scores are compared and ranked,
    and bf16 would tie them.
    """

    def __init__(self, width: int, num_labels: int, activation: str, dropout: float):
        super().__init__()
        self.activation_name = activation
        self.dense = nn.Linear(width, width)
        self.activation = ACT2FN[activation]
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, num_labels)
        for layer in (self.dense, self.out):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    @property
    def width(self) -> int:
        """Width of what it reads."""
        return self.dense.in_features

    def start_from(self, dense: nn.Linear) -> None:
        """Begin with the weights of a backbone's own pooler."""
        self.dense.load_state_dict(dense.state_dict())

    def forward(self, pooled_BD: Tensor) -> Tensor:
        return self.classify(self.features(pooled_BD))

    def features(self, pooled_BD: Tensor) -> Tensor:
        """What the last layer reads, [B, D]: transformers' pooler output, where the pooling is `cls`."""
        with torch.autocast(pooled_BD.device.type, enabled=False):
            return self.activation(self.dense(pooled_BD.float()))

    def classify(self, features_BD: Tensor) -> Tensor:
        """Logits [B, num_labels] of features()."""
        with torch.autocast(features_BD.device.type, enabled=False):
            return self.out(self.dropout(features_BD.float()))


class SpanHead(nn.Module):
    """dropout -> out at every token: the shape of BERT's and DeBERTa's own heads for answers in a text, which have no dropout.

    `forward(states [B, T, D]) -> logits [B, T, num_labels]`, whether the answer starts, and ends, at a token; float32, outside
    autocast, as ClassificationHead.
    """

    activation_name = "linear"

    def __init__(self, width: int, num_labels: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, num_labels)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    @property
    def width(self) -> int:
        """Width of what it reads."""
        return self.out.in_features

    def start_from(self, dense: nn.Linear) -> None:
        """A pooler reads [CLS] alone: nothing of it belongs here."""

    def forward(self, states_BTD: Tensor) -> Tensor:
        with torch.autocast(states_BTD.device.type, enabled=False):
            return self.out(self.dropout(states_BTD.float()))


class SenseScores(torch.autograd.Function):
    """<h_m, s> for every sense s of every token m, one number each: a sampled product of dense matrices.

    forward(hidden_MD, centroids_ND, first_M1, sense_S) -> scores [S]: the senses of token m are the rows
    sense_S[first_M1[m] : first_M1[m + 1]] of the centroids. Only hidden has a gradient. No sense is copied.
    """

    @staticmethod
    def forward(ctx, hidden_MD, centroids_ND, first_M1, sense_S):
        ctx.save_for_backward(centroids_ND, first_M1, sense_S)
        wanted = torch.sparse_csr_tensor(first_M1, sense_S, hidden_MD.new_zeros(len(sense_S)),
                                         (len(hidden_MD), len(centroids_ND)), check_invariants=False)
        return torch.sparse.sampled_addmm(wanted, hidden_MD, centroids_ND.T, beta=0.0).values()

    @staticmethod
    def backward(ctx, grad_S):
        centroids_ND, first_M1, sense_S = ctx.saved_tensors
        return F.embedding_bag(sense_S, centroids_ND, first_M1[:-1], mode="sum", per_sample_weights=grad_S), None, None, None


class StraightThrough(torch.autograd.Function):
    """forward(hidden [..., D], chosen [..., D], where [...]): chosen where `where`, else hidden; the gradient of hidden is that
    of the result (Bengio et al. 2013, arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx, hidden_PD, chosen_PD, where_P):
        return torch.where(where_P[..., None], chosen_PD.to(hidden_PD.dtype), hidden_PD)

    @staticmethod
    def backward(ctx, grad_PD):
        return grad_PD, None, None


class SenseLookup(nn.Module):
    """The senses of a vocabulary as one packed table, float32.

    The senses of type w are centroids[offsets[w] : offsets[w + 1]]:

        offsets     0        3     4           7        (V + 1 entries)
        centroids   a0 a1 a2 | b0  | d0 d1 d2  | ...    (c has no sense: an empty range)

    A state h scores a sense s by `similarity`:

        dot        <h, s>                  as published (arXiv 2504.06036); favours long senses
        distance   <h, s> - |s|^2 / 2      = (|h|^2 - |h - s|^2) / 2: the best is the nearest, as k-means has it

    Differs: a type's missing slots score -inf, so that no sense that does not exist is ever chosen.
    """

    def __init__(self, centroids_ND: Tensor, offsets: Tensor, similarity: str = "dot"):
        super().__init__()
        self.similarity = check_similarity(similarity)
        if centroids_ND.dim() != 2 or offsets[0] != 0 or offsets[-1] != len(centroids_ND) or (offsets.diff() < 0).any():
            raise ValueError(f"the table of senses is damaged: its offsets, {int(offsets[0])} to {int(offsets[-1])}, do not divide its "
                             f"{len(centroids_ND)} senses; build or fetch it again")
        self.register_buffer("centroids", centroids_ND.float(), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        half = torch.cat([part.square().sum(-1) / 2 for part in self.centroids.split(SQUARED_ROWS)]) if similarity == "distance" else None
        self.register_buffer("half_squares", half, persistent=False)
        self.max_senses = int((offsets[1:] - offsets[:-1]).max())

    @property
    def width(self) -> int:
        return self.centroids.shape[1]

    def known(self, ids: Tensor) -> Tensor:
        """Bool, the shape of `ids`: whether the token's type has senses (ids beyond the table have none)."""
        last = len(self.offsets) - 2
        inside = ids.clamp(max=last)
        return (self.offsets[inside + 1] > self.offsets[inside]) & (ids <= last)

    def scores(self, hidden_MD: Tensor, ids_M: Tensor) -> Tensor:
        """Similarities to the senses of each token's own type: [M, K] float32, K = the most senses of any type.

        Every id must be known(). Gradient flows to hidden_MD; the senses are constants.
        """
        size_M = self.offsets[ids_M + 1] - self.offsets[ids_M]
        first_M1 = F.pad(size_M.cumsum(0), (1, 0))
        shift_S = torch.repeat_interleave(self.offsets[ids_M] - first_M1[:-1], size_M)
        sense_S = torch.arange(len(shift_S), device=ids_M.device) + shift_S
        with torch.autocast(hidden_MD.device.type, enabled=False):
            scores_S = SenseScores.apply(hidden_MD.float(), self.centroids, first_M1, sense_S)
            if self.half_squares is not None:
                scores_S = scores_S - self.half_squares[sense_S]
        there_MK = torch.arange(self.max_senses, device=ids_M.device) < size_M[:, None]
        return scores_S.new_full(there_MK.shape, float("-inf")).masked_scatter(there_MK, scores_S)

    def nearest(self, hidden_MD: Tensor, ids_M: Tensor) -> Tensor:
        """Index [M] int64 of the best sense within its type; every id must be known()."""
        return self.scores(hidden_MD, ids_M).argmax(-1)

    def labels(self, hidden_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        """Index [B, T] int64 of every token's best sense within its type, -1 where the type has none."""
        hidden_ND, ids_N = hidden_BTD.flatten(0, -2), ids_BT.flatten()
        place_M = self.known(ids_N).nonzero()[:, 0]
        found_M = self.nearest(hidden_ND.index_select(0, place_M), ids_N[place_M])
        return torch.full_like(ids_N, -1).index_copy_(0, place_M, found_M).view_as(ids_BT)

    def replace(self, hidden_PD: Tensor, ids_P: Tensor) -> Tensor:
        """`hidden` [..., D] with every vector of a known type replaced by its best sense; others stay as they are.

        The gradient passes straight through to hidden: the choice has none.
        """
        labels_P = self.labels(hidden_PD, ids_P)
        known_P = labels_P >= 0
        sense_P = torch.where(known_P, self.offsets[ids_P * known_P] + labels_P, 0)
        senses_ND = self.centroids.index_select(0, sense_P.flatten())
        return StraightThrough.apply(hidden_PD, senses_ND.view_as(hidden_PD), known_P)
