"""Which scores count, and what a system keeps of its teacher's."""

from collections.abc import Mapping
from statistics import mean

from data_utils.draws import HELD_OUT
from data_utils.tasks import get_task

Column = tuple[str, str, str]  # task, split, metric


def only_selects(split: str) -> bool:
    """Whether the scores of `split`, after which a comma and a reading may stand, are on what is held out of train."""
    return split.partition(",")[0] == HELD_OUT


def is_of_best(split: str) -> bool:
    """Whether the scores of `split` are those of the model in best/, not of another reading, which may take more of the network."""
    return "," not in split


def on_dev(column: Column) -> bool:
    """Whether the column counts: what is held out of train does not."""
    task, split, _ = column
    return split in get_task(task).dev_splits


def task_scores(scores: Mapping[Column, float]) -> dict[str, float]:
    """The mean of a task's columns on dev sets, by task."""
    found: dict[str, list[float]] = {}
    for column, score in scores.items():
        if on_dev(column):
            found.setdefault(column[0], []).append(score)
    return {task: mean(columns) for task, columns in found.items()}


def kept(ours: Mapping[Column, float], theirs: Mapping[Column, float]) -> dict[str, float]:
    """Our score divided by theirs, by task. Tasks in which theirs is at or below 0 say nothing and are left out."""
    our, their = task_scores(ours), task_scores(theirs)
    return {task: our[task] / score for task, score in their.items() if task in our and score > 0}
