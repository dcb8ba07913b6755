"""Examples -> token ids, once, in flat arrays.

    [CLS] a [SEP]            single sentences
    [CLS] a [SEP] b [SEP]    pairs; the second segment begins after the first [SEP]
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_utils.tasks import Example

CHUNK = 4096  # texts per call of the tokenizer: bounds the memory of its lists
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedDataset:
    """Token ids of a split. Example i owns ids[offsets[i] : offsets[i + 1]].

    uid      int64 [N]     row of the example in its split
    ids      int32 [sum]   special tokens included, no padding
    offsets  int64 [N + 1]
    second   int32 [N]     where the second segment begins, the length where there is none
    target   int64 or float32 [N]; -1 or nan where unlabelled
    """

    uid: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    second: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.uid)

    def take(self, rows: np.ndarray) -> "EncodedDataset":
        """The examples `rows`, in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        place = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return EncodedDataset(self.uid[rows], self.ids[place], offsets, self.second[rows], self.target[rows])

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def encode_texts(texts: Iterable[tuple[str, ...]], tokenizer, max_length: int) -> Iterator[tuple[list[int], int]]:
    """Yield (ids, start of the second segment) of each row, truncated to `max_length` from the end of its longer text.

    The second segment starts at the row's length where there is none. Every row has as many texts as the first. Rows
    that were cut are counted and said once, at the end. Reads `texts` CHUNK rows at a time.
    """
    texts, seen, cut = iter(texts), 0, 0
    while rows := list(itertools.islice(texts, CHUNK)):
        columns = [list(column) for column in zip(*rows, strict=True)]
        encoded = tokenizer(*columns, truncation="longest_first" if len(columns) > 1 else True, max_length=max_length,
                            return_token_type_ids=True, return_attention_mask=False)
        seen += len(rows)
        cut += sum(len(ids) == max_length for ids in encoded["input_ids"])
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
            yield ids, types.index(1) if 1 in types else len(ids)
    if cut:
        logger.info("%d of %d sequences fill %d tokens or were cut there (--max_length)", cut, seen, max_length)


def encode(examples: Sequence[Example], tokenizer, max_length: int, text_order: Sequence[int] | None = None) -> EncodedDataset:
    """Tokenise `examples` once. `text_order` permutes their texts (some checkpoints read the second text first)."""
    if not examples:
        raise ValueError("no examples to encode")
    texts = [tuple(example.texts[i] for i in text_order) if text_order else example.texts for example in examples]
    regression = any(type(example.target) is float for example in examples)
    unlabelled = float("nan") if regression else -1
    target = [unlabelled if example.target is None else example.target for example in examples]
    ids, second, offsets = [], [], [0]
    for row, start in encode_texts(texts, tokenizer, max_length):
        ids.extend(row)
        offsets.append(len(ids))
        second.append(start)
    return EncodedDataset(uid=np.array([example.uid for example in examples], np.int64), ids=np.array(ids, np.int32),
                          offsets=np.array(offsets, np.int64), second=np.array(second, np.int32),
                          target=np.array(target, np.float32 if regression else np.int64))
