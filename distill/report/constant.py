"""The control that every system has to beat: one answer for all examples, chosen on train."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_utils.encode import untokenised
from data_utils.readers import data_fingerprint, read_examples
from data_utils.tasks import Example, Task
from distill.config import digest
from distill.judging import judged, scored
from distill.report import UNTRAINED, Record, data_of, portable
from distill.report.folder import Run
from distill.rundir import origin
from distill.scores import Predictions, Scores

ROW = "control: constant answer"


@dataclass(frozen=True)
class Constant:
    """The answer (a class index or a score) and its name."""

    answer: int | float
    name: str


def constant_of(task: Task, data_dir: str) -> Constant:
    """The class that is most frequent in train (the first of those that are equally so), or the mean score. ValueError for a task
    whose answers are parts of a text."""
    if task.spans:
        raise ValueError(f"{task.name}: an answer is a part of its own text, there is no constant one")
    targets = [example.target for example in read_examples(task, "train", data_dir)]
    if task.is_regression:
        return Constant(float(np.mean(targets)), f"mean score {np.mean(targets):.3f}")
    answer = int(np.bincount(targets, minlength=task.num_labels).argmax())
    return Constant(answer, f"class {task.labels[answer]}")


def constant_scores(constant: Constant, task: Task, data_dir: str) -> Scores:
    """Of `constant` on the dev splits of `task`. ValueError for a task without one, and what read_examples() refuses."""
    return scored({split: answered(constant, task, read_examples(task, split, data_dir)) for split in task.dev_splits}, task)


def constant_records(task: Task, data_dir: str, table: str, words: list[str]) -> list[Record]:
    """The records of the constant answer, read from the data alone; `words` is the command."""
    constant, facts = constant_of(task, data_dir), origin(words)
    scores, config = constant_scores(constant, task, data_dir), digest({"answer": constant.name})
    read = {"data": {split: data_fingerprint(task, split, data_dir) for split in task.dev_splits}}
    return [Record(table, ROW, task.name, task.version, *key.split("/"), value, scores.counts[key], scores.errors[key], 0, UNTRAINED,
                   portable(words), facts["commit"], config, facts["device"], 0.0, 0, data=data_of(read, task.name, key.split("/")[0]))
            for key, value in scores.values.items()]


def constant_run(task: Task, data_dir: str) -> Run:
    """The constant answer as a row of a table of runs."""
    scores = constant_scores(constant_of(task, data_dir), task, data_dir)
    return Run(None, ROW, task, None, {}, {}, scores, None, None, None, {}, scores.predictions)


def answered(constant: Constant, task: Task, examples: Sequence[Example]) -> Predictions:
    """What the metrics compare where every example gets the same answer; of candidates that is the first of each group."""
    answer = [constant.answer] if task.is_regression else np.arange(task.num_labels) == constant.answer
    return judged(np.tile(answer, (len(examples), 1)), task.labels, untokenised(examples, task), task)
