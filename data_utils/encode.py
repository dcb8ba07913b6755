"""Examples -> token ids, once, in flat arrays.

    [CLS] a [SEP]                                  single sentences
    [CLS] a [SEP] b [SEP]                          pairs; the second segment begins after the first [SEP]
    [CLS] a [SEP] c1 [SEP] [CLS] a [SEP] c2 [SEP]  choices: as many sequences as the example has, one after the other
"""

import itertools
import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_utils.tasks import Example, Task

CHUNK = 4096  # texts per call of the tokenizer: bounds the memory of its lists
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedDataset:
    """Token ids of a split: N examples of `choices` sequences each (1: everything but tasks of choices), S = N choices in all.
    Sequence s owns ids[offsets[s] : offsets[s + 1]]; those of example i are i choices, i choices + 1, ...

    uid      int64 [N]     row of the example in its split
    ids      int32 [sum]   special tokens included, no padding
    offsets  int64 [S + 1]
    second   int32 [S]     where the second segment begins, the length where there is none
    target   int64 or float32 [N]; -1 or nan where unlabelled; [N, 2] of windows (windows.py)
    group    int64 [N]     examples that are judged together; None where each is alone
    credit   float32 [N]   what it is worth to choose the example of its group; None where none is chosen
    places, questions      of windows: int32 [sum, 2], from where to where each token stands in the context, -1 -1 outside of it;
                           and the questions by group
    """

    uid: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    second: np.ndarray
    target: np.ndarray
    group: np.ndarray | None = None
    credit: np.ndarray | None = None
    choices: int = 1
    places: np.ndarray | None = None
    questions: Mapping[int, Example] | None = None

    def __len__(self) -> int:
        return len(self.uid)

    def take(self, rows: np.ndarray) -> "EncodedDataset":
        """The examples `rows`, in that order."""
        sequences = expand(rows, self.choices)
        kept = [slice(start, end) for start, end in zip(self.offsets[sequences], self.offsets[sequences + 1], strict=True)]

        def of_tokens(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else np.concatenate([array[:0], *(array[part] for part in kept)])

        return EncodedDataset(self.uid[rows], of_tokens(self.ids), np.concatenate([[0], np.cumsum(self.lengths[sequences])]), self.second[sequences],
                              self.target[rows], *(None if array is None else array[rows] for array in (self.group, self.credit)), self.choices,
                              of_tokens(self.places), self.questions)

    @property
    def labelled(self) -> bool:
        """Whether it is known what is right: not where the answers to its questions were taken out."""
        return self.questions is None or any(example.answers is not None for example in self.questions.values())

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every sequence [S]."""
        return np.diff(self.offsets)

    @property
    def bounds(self) -> np.ndarray:
        """Where the ids of every example begin, and the last one's end: [N + 1]."""
        return self.offsets[::self.choices]

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of every example [N], all its sequences together."""
        return np.diff(self.bounds)


def expand(rows: np.ndarray, choices: int) -> np.ndarray:
    """The sequences of the examples `rows`, in order."""
    return rows if choices == 1 else (rows[:, None] * choices + np.arange(choices)).reshape(-1)


def encode_texts(texts: Iterable[tuple[str, ...]], tokenizer, max_length: int) -> Iterator[tuple[list[int], int]]:
    """Yield (ids, start of the second segment) of each row, truncated to `max_length` from the end of its longer text.

    The second segment starts at the row's length where there is none. Every row has as many texts as the first. Rows
    that were cut are counted and said once, at the end. Reads `texts` CHUNK rows at a time. ValueError where a row has no room for its texts.
    """
    texts, seen, cut = iter(texts), 0, 0
    tokenise = _tokenise_each_once if tokenizer.is_fast else _tokenise
    while rows := list(itertools.islice(texts, CHUNK)):
        least = tokenizer.num_special_tokens_to_add(pair=len(rows[0]) == 2) + len(rows[0])
        if max_length < least:
            raise ValueError(f"--max_length {max_length}: the special tokens of a row and one token of each text are {least}; give no fewer")
        seen += len(rows)
        for ids, types in tokenise(rows, tokenizer, max_length):
            cut += len(ids) == max_length
            yield ids, types.index(1) if 1 in types else len(ids)
    if cut:
        logger.info("%d of %d sequences fill %d tokens or were cut there (--max_length)", cut, seen, max_length)


def _tokenise(rows: Sequence[tuple[str, ...]], tokenizer, max_length: int) -> list[tuple[list[int], list[int]]]:
    """The ids and token types of every row, [T] each."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    encoded = tokenizer(*columns, truncation="longest_first", max_length=max_length, return_token_type_ids=True, return_attention_mask=False)
    return list(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True))


def _tokenise_each_once(rows: Sequence[tuple[str, ...]], tokenizer, max_length: int) -> list[tuple[list[int], list[int]]]:
    """_tokenise() by a tokenizer that puts together what was tokenised apart: a passage under sixty answers is read once."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    distinct = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    read = dict(zip(distinct, backend.encode_batch_fast(distinct, add_special_tokens=False), strict=True))
    backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    whole = [backend.post_process(*(read[text] for text in row)) for row in rows]
    return [(encoding.ids, encoding.type_ids) for encoding in whole]


def sequences(examples: Iterable[Example], choices: int = 1) -> Iterator[tuple[str, ...]]:
    """The texts of every sequence: an example's own, or what its choices share beside each choice."""
    for example in examples:
        if choices == 1:
            yield example.texts
        else:
            yield from ((example.texts[0], choice) for choice in example.texts[1:])


def encode(examples: Sequence[Example], tokenizer, max_length: int, text_order: Sequence[int] | None = None,
           task: Task | None = None) -> EncodedDataset:
    """Tokenise `examples` once. `text_order` permutes their texts (some checkpoints read the second text first). `task`: theirs, where
    it has choices or groups."""
    if not examples:
        raise ValueError("no examples to encode")
    choices = task.num_choices if task and task.num_choices else 1
    texts = sequences(examples, choices)
    if text_order and choices == 1:
        texts = (tuple(row[i] for i in text_order) for row in texts)
    ids, second, offsets = array("i"), array("i"), array("q", [0])  # lists would take 40 bytes a token
    for row, start in encode_texts(texts, tokenizer, max_length):
        ids.extend(row)
        offsets.append(len(ids))
        second.append(start)
    return EncodedDataset(ids=np.array(ids, np.int32), offsets=np.array(offsets, np.int64), second=np.array(second, np.int32),
                          choices=choices, **_answers(examples, task))


def untokenised(examples: Sequence[Example], task: Task) -> EncodedDataset:
    """The examples without a token: for what reads answers alone."""
    return EncodedDataset(ids=np.zeros(0, np.int32), offsets=np.zeros(len(examples) + 1, np.int64),
                          second=np.zeros(len(examples), np.int32), **_answers(examples, task))


def _answers(examples: Sequence[Example], task: Task | None = None) -> dict[str, np.ndarray]:
    """The columns of an EncodedDataset that hold no tokens: uid, target, and where the task has them group and credit."""
    regression = any(type(example.target) is float for example in examples)
    unlabelled = float("nan") if regression else -1
    target = [unlabelled if example.target is None else example.target for example in examples]
    found = {"uid": np.array([example.uid for example in examples], np.int64),
             "target": np.array(target, np.float32 if regression else np.int64)}
    if task and task.group_by:
        found["group"] = np.array([example.group for example in examples], np.int64)
    if task and task.candidates:
        found["credit"] = np.array([example.credit for example in examples], np.float32)
    return found

