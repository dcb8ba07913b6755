"""What a run trains on and what it is scored on.

    --select_on dev        train | dev ...                 the first dev split selects the best epoch
    --select_on heldout    nine tenths of train | heldout  dev ...     the held-out tenth selects, no dev split does

    with a quiz             the tenth of each class of what is left to train on, which is not trained on either

A task that is scored on its test set (IMDb) is selected on heldout: `train` says so by default, and dev is refused.

Which examples are held out or asked is a function of their rows in the train file alone (data_utils/draws.py).
"""

import logging
from pathlib import Path

import numpy as np

from data_utils.draws import HELD_OUT, in_quiz, some, split_held_out
from data_utils.encode import EncodedDataset, untokenised
from data_utils.readers import data_fingerprint, read_examples
from data_utils.tasks import Task
from data_utils.windows import check_found
from distill.config import TaskConfig
from distill.evaluate import dev_splits, encode_examples, encode_split
from distill.rundir import read_json
from distill.scores import Scores
from models.encoder import Encoder

logger = logging.getLogger(__name__)


def read_splits(encoder: Encoder, task: Task, cfg: TaskConfig) -> tuple[EncodedDataset, dict[str, EncodedDataset]]:
    """The training examples, and by name the splits to score, the selecting one first, as `encoder` reads them.

    ValueError for a task without a labelled split to score, or with none that may select, where no example is held out or none is left
    to train on, and where the answers of questions over a text lie in no window.
    """
    train, held = _parts(encoder, task, cfg)
    evaluation = {**held, **dev_splits(encoder, task, cfg.data_dir, cfg.max_length, cfg.windows)}
    if not evaluation:
        raise ValueError(f"{task.name}: nothing to select on, the copy of {' and '.join(task.dev_splits)} in {cfg.data_dir} came without "
                         f"its answers; train with --select_on {HELD_OUT}, or give a copy that has them")
    return train, evaluation


def train_split(encoder: Encoder, task: Task, cfg: TaskConfig) -> EncodedDataset:
    """The training examples alone."""
    return _parts(encoder, task, cfg)[0]


def quiz_of(encoder: Encoder, task: Task, cfg: TaskConfig, most: int) -> EncodedDataset:
    """The quiz of another task than the encoder's, of which nothing is held out: at most `most` of its examples (0: all)."""
    examples = read_examples(task, "train", cfg.data_dir)
    known = untokenised(examples, task)
    rows = np.flatnonzero(in_quiz(known))
    rows = rows[some(known.uid[rows], most or len(rows))]
    return encode_examples(encoder, task, [examples[row] for row in rows], cfg.max_length)


def split_fingerprints(task: Task, cfg: TaskConfig) -> dict[str, str]:
    """The checksum of every file that read_splits() reads."""
    return {split: data_fingerprint(task, split, cfg.data_dir) for split in ("train", *task.dev_splits)}


def warn_of_seen(teacher: Path, cfg: TaskConfig) -> None:
    """Say where the teacher in the folder `teacher` was trained on the examples that are held out from its student."""
    file = teacher / "scores.json"
    if cfg.select_on != HELD_OUT or not file.is_file():  # a downloaded teacher does not say
        return
    selected_on = Scores.from_json(read_json(file)).selected_on
    if selected_on != HELD_OUT:
        logger.warning("--select_on %s: the teacher %s was selected on %s and trained on the held-out examples, which flatters its "
                       "students there; train it with --select_on %s as well", HELD_OUT, teacher, selected_on, HELD_OUT)


def _parts(encoder: Encoder, task: Task, cfg: TaskConfig) -> tuple[EncodedDataset, dict[str, EncodedDataset]]:
    """The train split: what is trained on, and what is held out of it, under its name."""
    if task.scored_on_test and cfg.select_on != HELD_OUT:
        raise ValueError(f"--select_on {cfg.select_on}: {task.name} has no dev split, and the test set, which is reported, selects nothing: "
                         f"give --select_on {HELD_OUT}")
    whole = encode_split(encoder, task, "train", cfg.data_dir, cfg.max_length, cfg.windows)
    if task.spans:
        check_found(whole, f"{task.name} train")
    if cfg.select_on != HELD_OUT:
        return whole, {}
    rest, held = split_held_out(whole)
    if not (len(rest) and len(held)):
        raise ValueError(f"--select_on {HELD_OUT}: of the {len(whole)} train examples of {task.name} a tenth is held out, which are "
                         f"{len(held)} here; give more data, or --select_on dev")
    return rest, {HELD_OUT: held}
