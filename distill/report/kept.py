"""What a system keeps of its teacher's scores."""

from collections.abc import Mapping
from statistics import mean

from data_utils.tasks import get_task

Column = tuple[str, str, str]  # task, split, metric


def task_scores(scores: Mapping[Column, float]) -> dict[str, float]:
    """The mean of a task's columns, by task. What is held out of train does not count."""
    found: dict[str, list[float]] = {}
    for (task, split, _), score in scores.items():
        if split in get_task(task).dev_splits:
            found.setdefault(task, []).append(score)
    return {task: mean(columns) for task, columns in found.items()}


def kept(ours: Mapping[Column, float], theirs: Mapping[Column, float]) -> tuple[float, int] | None:
    """The mean over tasks of our score divided by theirs, and over how many tasks. Tasks in which theirs is at or below 0 say nothing
    and do not count; None where no task is left."""
    our, their = task_scores(ours), task_scores(theirs)
    shares = [our[task] / score for task, score in their.items() if task in our and score > 0]
    return (mean(shares), len(shares)) if shares else None
