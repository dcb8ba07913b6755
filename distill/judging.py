"""Logits -> what was answered -> Scores. Knows no model: reports judge too."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from data_utils.answers import EXACT
from data_utils.encode import EncodedDataset
from data_utils.metrics import bootstrap_standard_error, compute_metrics, count_judged, selection_score
from data_utils.tasks import Task
from distill.arrays import first_of_groups
from distill.scores import Predictions, Scores
from distill.spans import Answering, judged_spans


def predictions(logits: np.ndarray, labels: tuple[str, ...], task: Task) -> np.ndarray:
    """Class indices in the task's order (scores, for regression) from logits in the order of `labels`, mapped by name."""
    return logits[:, 0] if task.is_regression else in_task_order(logits, labels, task).argmax(1)


def judged(logits: np.ndarray, labels: tuple[str, ...], dataset: EncodedDataset, task: Task,
           answering: Answering = Answering()) -> Predictions:
    """What the metrics compare: the examples, or, where one of each group is chosen, the groups: the credit of the chosen
    example against that of an exact match; of answers in a text the questions."""
    if task.spans:
        return judged_spans(in_task_order(logits, labels, task), dataset, task, answering)
    if not task.candidates:
        return Predictions(dataset.uid, predictions(logits, labels, task), dataset.target, dataset.group)
    rows = chosen_rows(logits, labels, dataset.group, task)
    return Predictions(dataset.group[rows], dataset.credit[rows], np.full(len(rows), EXACT, np.float32))


def chosen_rows(logits: np.ndarray, labels: tuple[str, ...], group: np.ndarray, task: Task) -> np.ndarray:
    """Of every group, by rising number, the row that is likeliest to be of the task's last class; the first of equals. `labels` as
    predictions()."""
    ordered = in_task_order(logits, labels, task)
    return first_of_groups(group, 1.0 * ordered[:, 0] - ordered[:, -1])


def in_task_order(logits: np.ndarray, labels: tuple[str, ...], task: Task) -> np.ndarray:
    """The last axis of `logits`, which follows `labels`, in the order of the task's labels."""
    if set(labels) != set(task.labels):
        raise ValueError(f"the checkpoint has {len(labels)} labels ({', '.join(labels) or 'a score'}), {task.name} has "
                         f"{', '.join(task.labels)}: it was trained for another task")
    return logits[..., [labels.index(label) for label in task.labels]]


def score_answers(answer: Callable[[str], Mapping[str, np.ndarray]], labels: tuple[str, ...], task: Task,
                  splits: Mapping[str, EncodedDataset], answering: Answering = Answering(), to_beat: float = -math.inf) -> Scores:
    """evaluate.score() of the logits, in the order of `labels`, that `answer(split)` gives by the names of its readings."""
    kept: dict[str, Predictions] = {}
    for split, dataset in splits.items():
        if kept and selection_score(_metrics(next(iter(kept.values())), task)) <= to_beat:
            break
        for name, logits in answer(split).items():
            kept[f"{split}{name}"] = judged(logits, labels, dataset, task, answering)
    return scored(kept, task, selected_on=next(iter(splits)))


def scored(kept: Mapping[str, Predictions], task: Task, selected_on: str = "") -> Scores:
    """The task's metrics of what was predicted, by what stands before the "/" in the names of its scores; the first selects."""
    values, errors, counts = {}, {}, {}
    metrics = {name: _metrics(answers, task) for name, answers in kept.items()}
    for name, answers in kept.items():
        for metric, value in metrics[name].items():
            key = f"{name}/{metric}"
            values[key], counts[key] = value, count_judged(metric, answers.uid, answers.group)
            errors[key] = bootstrap_standard_error(metric, answers.predicted, answers.target, answers.group)
    return Scores(values, selection_score(next(iter(metrics.values()))), errors, counts, selected_on, dict(kept))


def _metrics(answers: Predictions, task: Task) -> dict[str, float]:
    return compute_metrics(task.metrics, answers.predicted, answers.target, answers.group)
