"""The control that every system has to beat: one answer for all examples, chosen on train."""

from dataclasses import dataclass

import numpy as np

from data_utils.metrics import bootstrap_standard_error, compute_metrics
from data_utils.readers import read_examples
from data_utils.tasks import Task
from distill.config import digest
from distill.report import Record, portable
from distill.rundir import origin

ROW = "control: constant answer"


@dataclass(frozen=True)
class Constant:
    """The answer (a class index or a score) and its name."""

    answer: int | float
    name: str


def constant_of(task: Task, data_dir: str) -> Constant:
    """The class that is most frequent in train (the first of those that are equally so), or the mean score."""
    targets = [example.target for example in read_examples(task, "train", data_dir)]
    if task.is_regression:
        return Constant(float(np.mean(targets)), f"mean score {np.mean(targets):.3f}")
    answer = int(np.bincount(targets, minlength=task.num_labels).argmax())
    return Constant(answer, f"class {task.labels[answer]}")


def constant_records(task: Task, data_dir: str, table: str, words: list[str]) -> list[Record]:
    """The records of the constant answer on the dev splits of `task`, read from the data alone; `words` is the command.

    ValueError for a task without train or dev split, and what read_examples() refuses.
    """
    found, facts, records = constant_of(task, data_dir), origin(words), []
    for split in task.dev_splits:
        target = np.array([example.target for example in read_examples(task, split, data_dir)])
        predicted = np.full(len(target), found.answer)
        for metric, value in compute_metrics(task.metrics, predicted, target).items():
            records.append(Record(table, ROW, task.name, task.version, split, metric, value, len(target),
                                  bootstrap_standard_error(metric, predicted, target), 0, "constant", portable(words),
                                  facts["commit"], digest({"answer": found.name}), facts["device"], 0.0, 0))
    return records
