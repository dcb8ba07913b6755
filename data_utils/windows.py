"""Questions over texts that are too long for one sequence -> windows of token ids.

    [CLS] question [SEP] tokens   0 ... 315 of the context [SEP]
    [CLS] question [SEP] tokens 188 ... 503 of the context [SEP]      `stride` tokens are shared
    [CLS] question [SEP] tokens 376 ... 420 of the context [SEP]

A window's target is (first, last) position of the first gold answer's tokens, (0, 0), which is [CLS], where it does not hold them all.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_utils.encode import CHUNK, EncodedDataset
from data_utils.tasks import Example

NO_PLACE = -1
LEAST_FOUND = 0.5  # share of the answers that must lie in some window for a train set to be one
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Windows:
    """How texts are cut: tokens that two consecutive windows share, and the most tokens of a question (its rest is cut off)."""

    stride: int = 128
    question: int = 64

    def __post_init__(self):
        if self.stride < 0:
            raise ValueError(f"--stride {self.stride}: expected 0 or more")
        if self.question < 1:
            raise ValueError(f"--max_query_length {self.question}: expected at least 1")


def encode_windows(examples: Sequence[Example], tokenizer, max_length: int, windows: Windows = Windows()) -> EncodedDataset:
    """Tokenise questions and their texts once, (question, context) being the texts of an example; a row for each window, at most
    `max_length` tokens long. Their uid counts the windows, their group is the uid of the question.

    ValueError where the settings leave no room for a text, and where the tokenizer does not say where a token stands.
    """
    if not examples:
        raise ValueError("no examples to encode")
    if not tokenizer.is_fast:
        raise ValueError("answers in a text need a tokenizer that says where its tokens stand (a fast one): the model folder has none")
    room = max_length - windows.question - tokenizer.num_special_tokens_to_add(pair=True)
    if room <= windows.stride:
        raise ValueError(f"--max_length {max_length} --max_query_length {windows.question} --stride {windows.stride}: beside such a question "
                         f"a window holds {room} tokens of the text, of which {windows.stride} are shared with the next; give a "
                         "longer --max_length, a smaller --stride or a smaller --max_query_length")
    ids, places, second, target, group, offsets = [], [], [], [], [], [0]
    for example, row, types, row_places in _windows(examples, tokenizer, max_length, windows):
        ids.append(row)
        places.append(row_places)
        second.append(int(np.argmax(types == 1)) if (types == 1).any() else len(row))
        target.append(_target(example, row_places))
        group.append(example.uid)
        offsets.append(offsets[-1] + len(row))
    logger.info("%d questions are read in %d windows of at most %d tokens", len(examples), len(ids), max_length)
    return EncodedDataset(uid=np.arange(len(ids)), ids=np.concatenate(ids), offsets=np.array(offsets, np.int64),
                          second=np.array(second, np.int32), target=np.array(target, np.int64), group=np.array(group, np.int64),
                          places=np.concatenate(places), questions={example.uid: example for example in examples})


def _windows(examples: Sequence[Example], tokenizer, max_length: int,
             windows: Windows) -> Iterator[tuple[Example, np.ndarray, np.ndarray, np.ndarray]]:
    """(example, token ids [T], segment of each [T]: 0, 1, -1 for special tokens, places [T, 2]) of every window, in order."""
    for begin in range(0, len(examples), CHUNK):
        part = examples[begin:begin + CHUNK]
        questions = cut_questions([example.texts[0] for example in part], tokenizer, windows.question)
        found = tokenizer(questions, [example.texts[1] for example in part], truncation="only_second", max_length=max_length,
                          stride=windows.stride, return_overflowing_tokens=True, return_offsets_mapping=True, return_attention_mask=False)
        for row, source in enumerate(found["overflow_to_sample_mapping"]):
            segments = np.array([-1 if segment is None else segment for segment in found.sequence_ids(row)])
            places = _stripped(np.array(found["offset_mapping"][row], np.int32), segments == 1, part[source].texts[1])
            yield part[source], np.array(found["input_ids"][row], np.int32), segments, places


def cut_questions(questions: Sequence[str], tokenizer, most: int) -> list[str]:
    """The questions, those of more than `most` tokens cut to so many; how many were is said."""
    found, cut = list(questions), 0
    places = tokenizer(found, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)["offset_mapping"]
    for index, own in enumerate(places):
        cut += len(own) > most
        while len(own) > most:  # again, as the end of a text that was cut may fall into more tokens than before
            found[index] = found[index][:min(own[most - 1][1], len(found[index]) - 1)]
            own = tokenizer(found[index], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if cut:
        logger.info("%d of %d questions were cut at %d tokens (--max_query_length)", cut, len(found), most)
    return found


def _stripped(places: np.ndarray, is_context: np.ndarray, context: str) -> np.ndarray:
    """Where the tokens of the context stand in it, [T, 2], without the blanks that SentencePiece counts to the word after them;
    NO_PLACE for other tokens."""
    found = np.where(is_context[:, None], places, NO_PLACE)
    blank = np.fromiter(map(str.isspace, context), bool, len(context))
    inside = np.flatnonzero(is_context & (places[:, 0] < len(context)))
    for position in inside[blank[places[inside, 0]]]:
        start, end = places[position]
        found[position, 0] = end - len(context[start:end].lstrip())
    return found


def _target(example: Example, places: np.ndarray) -> tuple[int, int]:
    """The positions of the first gold answer in a window; (-1, -1) where the answers are not told."""
    if example.answers is None:
        return -1, -1
    inside = np.flatnonzero(places[:, 0] != NO_PLACE)
    if not example.answers or not len(inside):
        return 0, 0
    text, start = example.answers[0]
    end = start + len(text)
    reached = inside[(places[inside, 1] > start) & (places[inside, 0] < end)]
    whole = places[inside[0], 0] <= start and places[inside[-1], 1] >= end
    return (int(reached[0]), int(reached[-1])) if whole and len(reached) else (0, 0)


def found_share(dataset: EncodedDataset) -> float:
    """The share of the questions with an answer whose answer lies in some window; nan where no question has one."""
    answered = [uid for uid, example in dataset.questions.items() if example.answers]
    found = np.unique(dataset.group[dataset.target[:, 0] > 0])
    return float(np.isin(answered, found).mean()) if answered else float("nan")


def check_found(dataset: EncodedDataset, where: str) -> None:
    """Say of a train set how many answers lie in some window. ValueError where under half do: labels would teach to point at [CLS]."""
    if not dataset.labelled:
        raise ValueError(f"{where}: every answer is empty, they were taken out of this copy: nothing can be learned from it, fetch "
                         "another")
    share = found_share(dataset)
    if not share >= LEAST_FOUND:  # also of nan
        raise ValueError(f"{where}: the answers of {100 * share:.1f} % of its questions lie in some window, expected half of them or more. "
                         "Give a longer --max_length, or a larger --stride where answers are long")
    logger.info("%s: the answers of %.1f %% of its questions lie in some window", where, 100 * share)
