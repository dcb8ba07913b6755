"""Rows of token ids to pre-train on, out of a packed corpus. Only indices are in memory; ids are read when a batch is made.

    blocks    [CLS] a a a [SEP] b [SEP]        all documents as one stream, [SEP] between two, cut every L - 2 tokens
    padded    [CLS] a a a [SEP]                every document in pieces of at most L - 2 tokens, each a row
              [CLS] b [SEP]
    packed    [CLS] a a a [SEP] [CLS] b [SEP]  the same pieces, several to a row; each sees itself alone
     positions  0   1 2 3   4     0   1   2
     pieces     1   1 1 1   1     2   2   2    0 in padding
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from data_utils.corpus import Corpus
from data_utils.text.packing import pack_rows

SHORTEST = 8  # a row with less is mostly [CLS] and [SEP]


class RowTokens(NamedTuple):
    """B rows, padded on the right to the longest, T."""

    ids: np.ndarray                # int64 [B, T]
    real: np.ndarray               # bool [B, T]
    positions: np.ndarray | None   # int64 [B, T], packed rows alone
    pieces: np.ndarray | None      # int64 [B, T], packed rows alone


class Rows(Protocol):
    sizes: np.ndarray  # tokens of each row [R], special tokens counted

    def read(self, rows: np.ndarray) -> RowTokens: ...


class Blocks:
    """The documents one after the other, [SEP] between two, cut every `length` - 2 tokens; the last row may be short."""

    def __init__(self, corpus: Corpus, documents: np.ndarray, length: int):
        self.corpus, self.inside = corpus, length - 2
        self.first = corpus.offsets[documents]
        self.lengths = corpus.offsets[documents + 1] - self.first
        self.starts = np.concatenate([[0], np.cumsum(self.lengths + 1)[:-1]])  # of each document in the stream
        self.total = int(self.starts[-1] + self.lengths[-1])
        self.sizes = np.minimum(self.inside, self.total - np.arange(0, self.total, self.inside)) + 2

    def read(self, rows: np.ndarray) -> RowTokens:
        special, sizes = self.corpus.special_ids, self.sizes[rows][:, None]
        column = np.arange(sizes.max())
        place = rows[:, None] * self.inside + column - 1  # in the stream; the row begins with [CLS]
        text = (column > 0) & (column < sizes - 1)
        place = np.where(text, place, 0)
        document = np.searchsorted(self.starts, place, side="right") - 1
        offset = place - self.starts[document]
        text &= offset < self.lengths[document]  # after it stands [SEP]
        ids = self.corpus.ids[np.where(text, self.first[document] + offset, 0)].astype(np.int64)
        real = column < sizes
        ids = np.where(text, ids, np.where(column == 0, special["cls"], np.where(real, special["sep"], special["pad"])))
        return RowTokens(ids, real, None, None)


@dataclass(frozen=True)
class Pieces:
    """Every document cut into pieces of at most `length` - 2 tokens: where each starts in the corpus's ids, and how many tokens it has with
    [CLS] and [SEP]."""

    corpus: Corpus
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def cut(cls, corpus: Corpus, documents: np.ndarray, length: int) -> "Pieces":
        first, end, inside = corpus.offsets[documents], corpus.offsets[documents + 1], length - 2
        each = -(-(end - first) // inside)
        number = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)  # of the piece in its document
        starts = np.repeat(first, each) + number * inside
        return cls(corpus, starts, np.minimum(inside, np.repeat(end, each) - starts).astype(np.int32) + 2)

    def read(self, members: np.ndarray, row: np.ndarray) -> RowTokens:
        """The pieces `members` [M], one after the other in the rows `row` [M] (rising from 0)."""
        special, sizes = self.corpus.special_ids, self.sizes[members]
        widths = np.bincount(row, sizes).astype(np.int64)
        start_of_row = np.concatenate([[0], np.cumsum(widths)[:-1]])
        piece = np.repeat(np.arange(len(members)), sizes)
        place = np.arange(len(piece))
        position = place - np.repeat(np.cumsum(sizes) - sizes, sizes)
        begins, ends = position == 0, position == sizes[piece] - 1
        text = ~(begins | ends)
        ids = self.corpus.ids[np.where(text, self.starts[members][piece] + position - 1, 0)].astype(np.int64)
        ids = np.where(text, ids, np.where(begins, special["cls"], special["sep"]))
        at = row[piece], place - start_of_row[row[piece]]
        found = {name: np.full((len(widths), widths.max()), filler) for name, filler in (("ids", special["pad"]), ("positions", 0), ("pieces", 0))}
        first_of_row = np.searchsorted(row, np.arange(len(widths)))
        found["ids"][at], found["positions"][at], found["pieces"][at] = ids, position, piece - first_of_row[row[piece]] + 1
        return RowTokens(found["ids"], found["pieces"] > 0, found["positions"], found["pieces"])


class Padded:
    """A row for each piece."""

    def __init__(self, corpus: Corpus, documents: np.ndarray, length: int):
        self.pieces = Pieces.cut(corpus, documents, length)
        self.sizes = self.pieces.sizes

    def read(self, rows: np.ndarray) -> RowTokens:
        return self.pieces.read(rows, np.arange(len(rows)))._replace(positions=None, pieces=None)


class Packed:
    """Several pieces to a row, at most `length` tokens, hardly any padding."""

    def __init__(self, corpus: Corpus, documents: np.ndarray, length: int):
        self.pieces = Pieces.cut(corpus, documents, length)
        self.bounds, self.members = pack_rows(self.pieces.sizes, length)
        self.sizes = np.add.reduceat(self.pieces.sizes[self.members], self.bounds[:-1])

    def read(self, rows: np.ndarray) -> RowTokens:
        count = self.bounds[rows + 1] - self.bounds[rows]
        row = np.repeat(np.arange(len(rows)), count)
        members = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(self.bounds[rows], count)
        return self.pieces.read(self.members[members], row)


LAYOUTS: dict[str, Callable[[Corpus, np.ndarray, int], Rows]] = {"blocks": Blocks, "packed": Packed, "padded": Padded}


def lay_out(corpus: Corpus, documents: np.ndarray, layout: str, length: int) -> Rows:
    """The rows of `documents` (numbers, in order) in a layout of LAYOUTS; ValueError for an unknown one, and for no document."""
    if layout not in LAYOUTS:
        nearest = difflib.get_close_matches(layout, LAYOUTS, 1, 0)[0]
        raise ValueError(f"unknown layout {layout!r}: did you mean {nearest}? There are {', '.join(LAYOUTS)}")
    if length < SHORTEST:
        raise ValueError(f"rows of {length} tokens: expected at least {SHORTEST}, [CLS] and [SEP] counted")
    if not len(documents):
        raise ValueError("no document to make rows of: give the numbers of some, such as Corpus.split()[0]")
    return LAYOUTS[layout](corpus, np.asarray(documents), length)
