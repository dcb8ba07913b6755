"""Word embeddings of a part of the vocabulary, in training; the whole table in everything that is saved."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TrimmedEmbedding(nn.Module):
    """The rows `ids` of a word-embedding table as the only parameter; all other rows stay aside on the CPU.

        token id    0   1   2   3   4   5
        row_of      0   3   1   3   3   2     3, one beyond the last row: not held
        weight      of 0, 2 and 5             [K, D]: what the gradient, its norm and the optimiser see

    `forward(ids) -> [..., D]` reads token ids and gives what the whole table gives, bit for bit; the padding row has no
    gradient there and here. state_dict() gives, and load_state_dict() takes, the whole table [V, D] (on the CPU):
    checkpoints do not show that rows were left out.
    Differs: under weight decay, training shrinks the rows of a whole table that no example has; here they stay as they
    were. Without it both end with the same table, bit for bit on a CPU, but for the order in which a norm that clips
    is summed.
    """

    def __init__(self, embedding: nn.Embedding, ids: Iterable[int]):
        super().__init__()
        held, table = sorted(set(ids)), embedding.weight.detach()
        if not held or held[0] < 0 or held[-1] >= len(table):
            raise ValueError(f"token ids {held[:1]} to {held[-1:]} do not fit a table of {len(table)} word embeddings: give "
                             "ids that the model's own tokenizer makes")
        self.padding_idx = embedding.padding_idx
        self.padding_row = held.index(self.padding_idx) if self.padding_idx in held else None
        self.register_buffer("ids", torch.tensor(held, device=table.device), persistent=False)
        row_of = torch.full((len(table),), len(held), device=table.device)
        self.register_buffer("row_of", row_of.index_copy(0, self.ids, torch.arange(len(held), device=table.device)),
                             persistent=False)
        self.weight = nn.Parameter(table[self.ids], embedding.weight.requires_grad)
        self.table = table.to("cpu", copy=True)  # no buffer: it takes no memory on a GPU
        self.register_state_dict_post_hook(_give_whole_table)
        self.register_load_state_dict_pre_hook(_take_whole_table)

    def forward(self, ids: Tensor) -> Tensor:
        """ValueError for an id that is not held. On a GPU, where asking would make the host wait at every step, torch's
        own check of row numbers ends the program instead: give `ids` of all data beforehand."""
        rows = self.row_of.index_select(0, ids.flatten()).view_as(ids)
        if ids.device.type == "cpu" and bool((rows == len(self.weight)).any()):
            missing = ids[rows == len(self.weight)].unique().tolist()
            raise ValueError(f"token ids {missing[:5]} have no word embedding here: {len(self.weight)} of {len(self.table)} are "
                             "held in training; trim to the ids of every dataset that is fed, or leave out --trim_vocabulary")
        return F.embedding(rows, self.weight, self.padding_row)

    def whole_table(self) -> Tensor:
        """[V, D] on the CPU: the held rows as they are now, the others as they were."""
        return self.table.index_copy(0, self.ids.cpu(), self.weight.detach().cpu())

    def whole(self) -> nn.Embedding:
        """An ordinary embedding with the whole table, where the held rows are."""
        return nn.Embedding.from_pretrained(self.whole_table().to(self.weight.device), freeze=not self.weight.requires_grad,
                                            padding_idx=self.padding_idx)


def _give_whole_table(module: TrimmedEmbedding, state: dict[str, Tensor], prefix: str, metadata) -> None:
    state[f"{prefix}weight"] = module.whole_table()


def _take_whole_table(module: TrimmedEmbedding, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Keep the rows that are not held, pass on those that are."""
    name = f"{prefix}weight"
    if name in state:  # else torch says that it is missing
        if state[name].shape != module.table.shape:
            raise ValueError(f"{name} is {tuple(state[name].shape)}, expected the whole table {tuple(module.table.shape)}")
        module.table.copy_(state[name])
        state[name] = module.table[module.ids.cpu()]


@contextlib.contextmanager
def trimmed(backbone: nn.Module, ids: Iterable[int]) -> Iterator[TrimmedEmbedding]:
    """While this lasts, a transformers `backbone` holds only the word embeddings of `ids`; after it, all, as trained."""
    held = TrimmedEmbedding(backbone.get_input_embeddings(), ids)
    backbone.set_input_embeddings(held)
    try:
        yield held
    finally:
        backbone.set_input_embeddings(held.whole())
