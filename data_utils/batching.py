"""Batches and the order in which they come: a pure function of (seed, epoch, step)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from data_utils.encode import EncodedDataset, expand

POOL_BATCHES = 32  # batches that are drawn together and sorted by length: little padding, still random


class Divisible(ABC):
    """A batch of examples that can be cut up over micro-batches and ranks."""

    uid: Tensor
    attention_mask: Tensor

    def __len__(self) -> int:
        return len(self.uid)

    @property
    def tokens(self) -> int:
        """Real tokens, padding excluded."""
        return int(self.attention_mask.sum())

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """Tokens of each example [B]."""

    @abstractmethod
    def select(self, rows: Sequence[int] | np.ndarray) -> Self:
        """The examples `rows`, padded only to the longest of them."""

    def split(self, max_tokens: int) -> list[Self]:
        """Micro-batches of at most `max_tokens` padded tokens (at least one example each), longest first."""
        sizes = self.sizes
        order = np.argsort(-sizes, kind="stable")
        return [self.select(rows) for rows in token_budget(order, sizes, max_tokens)]

    def shard(self, rank: int, world: int) -> Self | None:
        """Rank `rank`'s share: every `world`-th example by falling length, so that ranks do equal work.

        None for a rank that is left without an example.
        """
        rows = np.argsort(-self.sizes, kind="stable")[rank::world]
        return self.select(rows) if len(rows) else None


@dataclass(frozen=True)
class Batch(Divisible):
    """B examples, padded on the right to the longest, T.

    task; uid [B] int64, the key of every cache; input_ids, attention_mask, token_type_ids [B, T] int64;
    target [B] int64 (class) or float32 (score), -1 or nan where unlabelled.
    Where an example is a choice, each of its `choices` is a sequence: [B choices, T], those of one example together.
    """

    task: str
    uid: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    target: Tensor
    choices: int = 1

    @property
    def visible(self) -> Tensor:
        """The tokens that every token sees, [B, T]: the real ones."""
        return self.attention_mask

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each example [B] when its sequences are as long as the longest of them."""
        return self.attention_mask.sum(1).view(-1, self.choices).amax(1).numpy() * self.choices

    def select(self, rows: Sequence[int] | np.ndarray) -> "Batch":
        sequences = torch.from_numpy(expand(np.asarray(rows), self.choices))
        width = int(self.attention_mask[sequences].sum(1).max())
        return Batch(self.task, self.uid[rows], self.input_ids[sequences, :width], self.attention_mask[sequences, :width],
                     self.token_type_ids[sequences, :width], self.target[rows], self.choices)

    def to(self, device) -> "Batch":
        """The same on `device`, but for the uids: caches are looked up on the CPU."""
        return Batch(self.task, self.uid, *(tensor.to(device, non_blocking=True) for tensor in
                                            (self.input_ids, self.attention_mask, self.token_type_ids, self.target)), self.choices)


@dataclass(frozen=True)
class TaskBatches:
    """Batches of several tasks that make one optimiser step together; micro-batches hold one task each."""

    parts: list[Batch]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def tokens(self) -> int:
        """Real tokens of all parts."""
        return sum(part.tokens for part in self.parts)

    def select(self, rows: Sequence[int]) -> Batch:
        """The examples `rows` of the first batch: any will do, to fill up a rank that has none."""
        return self.parts[0].select(rows)

    def split(self, max_tokens: int) -> list[Batch]:
        """The micro-batches of every part."""
        return [micro for part in self.parts for micro in part.split(max_tokens)]

    def shard(self, rank: int, world: int) -> "TaskBatches | None":
        """Rank `rank`'s share of every part; None where it has none."""
        shares = [share for part in self.parts if (share := part.shard(rank, world))]
        return TaskBatches(shares) if shares else None


class BatchStream(Protocol):
    """An endless source of batches. One `next()` is one optimiser step, over all ranks."""

    steps_per_epoch: int

    def next(self) -> Batch: ...

    def prepare(self) -> None:
        """Perhaps make the next batch already, beside this step; what state_dict() says is the same."""

    def observe(self, student, step: int, terms: Mapping[str, Tensor]) -> None:
        """After a step: what it cost, the mean of each term, this rank's part of it. A no-op unless the stream is a curriculum."""

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...


def token_budget(order: np.ndarray, lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Cut `order` into consecutive runs whose padded size (rows x longest) stays within `max_tokens`."""
    start, longest = 0, 0
    for end, row in enumerate(order):
        longest = max(longest, int(lengths[row]))
        if end > start and longest * (end - start + 1) > max_tokens:
            yield order[start:end]
            start, longest = end, int(lengths[row])
    if start < len(order):
        yield order[start:]


def collate(dataset: EncodedDataset, rows: np.ndarray, task: str, pad_id: int) -> Batch:
    """A padded batch of the examples `rows` of `dataset`."""
    sequences = expand(rows, dataset.choices)
    lengths, starts = dataset.lengths[sequences], dataset.offsets[sequences]
    column = np.arange(lengths.max())
    real = column < lengths[:, None]
    position = np.where(real, starts[:, None] + column, 0)
    return Batch(task=task, uid=torch.from_numpy(dataset.uid[rows]),
                 input_ids=torch.from_numpy(np.where(real, dataset.ids[position], pad_id).astype(np.int64)),
                 attention_mask=torch.from_numpy(real.astype(np.int64)),
                 token_type_ids=torch.from_numpy((real & (column >= dataset.second[sequences][:, None])).astype(np.int64)),
                 target=torch.from_numpy(dataset.target[rows]), choices=dataset.choices)


def sequential_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Indices of sequences of these lengths in batches of at most `max_tokens` padded tokens, longest first: for
    reading everything once."""
    return list(token_budget(np.argsort(-lengths, kind="stable"), lengths, max_tokens))


def shuffled_batches(sizes: np.ndarray, batch_size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Examples of these sizes in batches of `batch_size` (one may be short), similar sizes together: of a drawn permutation, pools of
    POOL_BATCHES batches are sorted by size, and then the batches shuffled."""
    shuffled = generator.permutation(len(sizes))
    batches = []
    for start in range(0, len(shuffled), batch_size * POOL_BATCHES):
        pool = shuffled[start:start + batch_size * POOL_BATCHES]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        batches += [pool[i:i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


class Shuffled(ABC):
    """A BatchStream of `batch_size` of the items of these `sizes` a step, similar sizes together, in an order that is a function of (seed,
    epoch); the last batch of an epoch may be short. `position`: how many batches were taken."""

    def __init__(self, sizes: np.ndarray, batch_size: int, seed: int):
        self.sizes, self.batch_size, self.seed = sizes, batch_size, seed
        self.steps_per_epoch = -(-len(sizes) // batch_size)
        self.position = 0
        self._epoch, self._order = -1, []
        self._reader = ThreadPoolExecutor(1)
        self._prepared: Future | None = None

    @abstractmethod
    def read(self, position: int) -> Divisible:
        """Batch number `position`, whichever were taken before."""

    def next(self) -> Divisible:
        batch = self._prepared.result() if self._prepared else self.read(self.position)
        self._prepared = None
        self.position += 1
        return batch

    def prepare(self) -> None:
        self._prepared = self._reader.submit(self.read, self.position)  # numpy leaves other threads free, a step waits for its GPU

    def epoch_order(self, epoch: int) -> list[np.ndarray]:
        """The batches (rows) of an epoch: a pure function of (seed, epoch)."""
        return shuffled_batches(self.sizes, self.batch_size, np.random.default_rng([self.seed, epoch]))

    def rows_of(self, position: int) -> np.ndarray:
        """The rows of batch number `position`."""
        epoch, step = divmod(position, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.epoch_order(epoch)
        return self._order[step]

    def observe(self, student, step: int, terms: Mapping[str, Tensor]) -> None:
        """This order does not depend on the student."""

    def state_dict(self) -> dict:
        return {"position": self.position}

    def load_state_dict(self, state: dict) -> None:
        self.position, self._prepared = state["position"], None


class TrainStream(Shuffled):
    """Shuffled batches of examples."""

    def __init__(self, dataset: EncodedDataset, task: str, pad_id: int, batch_size: int, seed: int):
        super().__init__(dataset.sizes, batch_size, seed)
        self.dataset, self.task, self.pad_id = dataset, task, pad_id

    def read(self, position: int) -> Batch:
        return collate(self.dataset, self.rows_of(position), self.task, self.pad_id)


class InTurn:
    """A BatchStream that takes a batch of each of several streams in turn; an epoch is one of the longest."""

    def __init__(self, streams: Sequence[TrainStream]):
        self.streams, self.position = streams, 0
        self.steps_per_epoch = len(streams) * max(stream.steps_per_epoch for stream in streams)

    def next(self) -> Batch:
        self.position += 1
        return self.streams[(self.position - 1) % len(self.streams)].next()

    def prepare(self) -> None:
        self.streams[self.position % len(self.streams)].prepare()

    def observe(self, student, step: int, terms: Mapping[str, Tensor]) -> None:
        """This order does not depend on the student."""

    def state_dict(self) -> dict:
        return {"position": self.position, "streams": [stream.state_dict() for stream in self.streams]}

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]
        for stream, own in zip(self.streams, state["streams"], strict=True):
            stream.load_state_dict(own)
