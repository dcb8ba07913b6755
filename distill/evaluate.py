"""model + task + split -> Scores."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_utils.batching import collate, sequential_batches
from data_utils.encode import EncodedDataset, encode
from data_utils.readers import read_examples
from data_utils.tasks import Example, Task
from data_utils.windows import Windows, encode_windows
from distill import workers
from distill.judging import in_task_order, score_answers
from distill.precision import tensor_cores
from distill.progress import bar
from distill.scores import Scores
from distill.sharding import is_sharded
from distill.spans import Answering, answer_texts
from models.encoder import Encoder, TaskInfo
from models.heads import TOKENS
from models.outputs import PADDING_LOGIT, Outputs

AS_IT_IS = MappingProxyType({"": attrgetter("logits")})  # the one reading of an encoder that answers in one way


def encode_split(encoder: Encoder, task: Task, split: str, data_dir: str, max_length: int = 0,
                 windows: Windows | None = None) -> EncodedDataset:
    """A split as `encoder` reads it: its tokenizer, its order of the texts; `max_length` 0: what it was trained on, where that is not
    known the task's own. `windows`: how texts with answers are cut; None: as in training."""
    if set(encoder.info.texts) != set(task.texts):
        raise ValueError(f"the checkpoint reads the texts {', '.join(encoder.info.texts)}, {task.name} has "
                         f"{', '.join(task.texts)}: it was trained for another task")
    max_length, windows = max_length or encoder.info.max_length, windows or known_windows(encoder)
    return encode_for(encoder, task, split, data_dir, max_length, [task.texts.index(text) for text in encoder.info.texts], windows)


def encode_for(encoder: Encoder, task: Task, split: str, data_dir: str, max_length: int = 0,
               text_order: Sequence[int] | None = None, windows: Windows = Windows()) -> EncodedDataset:
    """A split of any task, whether or not it is the encoder's own, by its tokenizer and within its positions."""
    return encode_examples(encoder, task, read_examples(task, split, data_dir), max_length, text_order, windows)


def encode_examples(encoder: Encoder, task: Task, examples: Sequence[Example], max_length: int = 0, text_order: Sequence[int] | None = None,
                    windows: Windows = Windows()) -> EncodedDataset:
    """Examples of any task, as encode_for() reads a split of it."""
    if windows != Windows() and not task.spans:
        raise ValueError(f"--stride {windows.stride} --max_query_length {windows.question}: the examples of {task.name} are read whole, "
                         "only texts with answers in them (SQuAD) are cut into windows; leave these settings out")
    length = max_length or min(task.max_length, encoder.max_positions or task.max_length)
    check_length(encoder, length)
    if task.spans:
        return encode_windows(examples, encoder.tokenizer, length, windows)
    return encode(examples, encoder.tokenizer, length, text_order, task)


def task_info(task: Task, pooling: str) -> TaskInfo:
    """What a checkpoint for `task` knows of it. ValueError for a pooling that does not fit the task."""
    if task.spans != (pooling == TOKENS):
        raise ValueError(f"--pooling {pooling}: {TOKENS} is how answers in a text are read, and {task.name} has {'them' if task.spans else 'none'}; "
                         "leave the setting out")
    return TaskInfo(task.name, task.version, task.texts, task.labels, pooling, choices=task.num_choices)


def known_windows(encoder: Encoder) -> Windows:
    """How texts with answers were cut when `encoder` was trained, as usual where that is not known."""
    info = encoder.info
    return Windows(info.stride, info.max_query_length) if info.max_query_length else Windows()


def note_reading(encoder: Encoder, task: Task, max_length: int, windows: Windows) -> None:
    """Note in `encoder.info` how many tokens of an example of `task` it is trained on: `max_length`; where that is 0 as many as its
    teacher, if it has one, else the task's own, within its positions; and how texts with answers are cut. ValueError where it has fewer
    positions."""
    usual = encoder.info.max_length or task.max_length
    length = max_length or min(usual, encoder.max_positions or usual)
    check_length(encoder, length)
    encoder.info = replace(encoder.info, max_length=length)
    if task.spans:
        encoder.info = replace(encoder.info, stride=windows.stride, max_query_length=windows.question)


def check_length(encoder: Encoder, length: int) -> None:
    """ValueError where `length` tokens are more than the model has positions."""
    if encoder.max_positions and length > encoder.max_positions:
        raise ValueError(f"--max_length {length}: the model has {encoder.max_positions} positions; give no more")


@torch.no_grad()
def predict(encoder: Encoder, dataset: EncodedDataset, read: Callable[[Outputs], Tensor] = attrgetter("logits"), task: str = "") -> np.ndarray:
    """Logits [N, C] in the order of `dataset`, in float32 (CUDA's tensor cores: TF32) unless the caller casts, shared out over the ranks,
    whole on each; or what else `read` gives, [N, ...]. Of answers in a text [N, T, C], or [N, ..., T, C], T the longest sequence. `task`: whose
    examples they are, where not the encoder's own."""
    encoder.eval()
    mine = workers.share(sequential_batches(dataset.sizes, workers.batch_tokens()))
    longest = int(dataset.lengths.max())

    def answer(rows: np.ndarray) -> np.ndarray:
        batch = collate(dataset, rows, task or encoder.info.task, encoder.tokenizer.pad_token_id)
        found = read(encoder(batch.to(workers.device()))).float().cpu()
        return (F.pad(found, (0, 0, 0, longest - found.shape[-2]), value=PADDING_LOGIT) if encoder.info.spans else found).numpy()

    answers = []
    with tensor_cores(workers.device()), bar(len(mine), "evaluate", "batch") as progress_bar:
        for rows in mine:
            answers += workers.where_it_fits(answer, rows, is_sharded(encoder))
            progress_bar.update()
    found = np.empty((len(dataset), *answers[0][1].shape[1:]), np.float32)
    for rows, part in itertools.chain.from_iterable(workers.gather(answers)):
        found[rows] = part
    return found


def answer_questions(encoder: Encoder, task: Task, dataset: EncodedDataset, answering: Answering = Answering()) -> dict[int, str]:
    """The answers of `encoder` to the questions of `dataset`, by uid; they need not be known."""
    return answer_texts(in_task_order(predict(encoder, dataset), encoder.info.labels, task), dataset, task, answering)


def score(encoder: Encoder, task: Task, splits: Mapping[str, EncodedDataset],
          readings: Mapping[str, Callable[[Outputs], Tensor]] = AS_IT_IS,
          answering: Answering = Answering(), to_beat: float = -math.inf) -> Scores:
    """The task's metrics on every split of `splits`, and the predictions, from one pass over it; the first split selects. Where that does
    not beat `to_beat`, the others are left out: what is reported costs nothing while it changes nothing.

    `readings`: where an encoder answers in several ways, the logits of each, by what follows the split in the names of its
    scores; the first selects. `answering`: how answers in a text are found.
    """
    def answer(split: str) -> dict[str, np.ndarray]:
        answers_NRC = predict(encoder, splits[split], lambda outputs: torch.stack([read(outputs) for read in readings.values()], 1))
        return {name: answers_NRC[:, place] for place, name in enumerate(readings)}

    return score_answers(answer, encoder.info.labels, task, splits, answering, to_beat)


def dev_splits(encoder: Encoder, task: Task, data_dir: str, max_length: int = 0,
               windows: Windows | None = None) -> dict[str, EncodedDataset]:
    """All dev splits of `task`, encoded for `encoder`; ValueError for a task that has none. A split whose copy in data_dir came without
    its answers is left out, which is said."""
    if not task.dev_splits:
        raise ValueError(f"{task.name} has no labelled split to score"
                         + (f": it is predicted by the {task.predicted_by} model" if task.predicted_by else ""))
    found = {split: encode_split(encoder, task, split, data_dir, max_length, windows) for split in task.dev_splits}
    return {split: dataset for split, dataset in found.items() if dataset.labelled}  # the reader has said where one is not
