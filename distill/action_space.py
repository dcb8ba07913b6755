"""The tasks that a curriculum chooses among (MPDistil), the main one aside."""

import logging

from data_utils.readers import find_folder
from data_utils.tasks import Task, get_task

FOUND = "found"
SUPERGLUE = ("RTE", "BoolQ", "CB", "COPA", "WiC", "WSC")  # as published, mpdistil.md 3.1
GLUE = ("MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
logger = logging.getLogger(__name__)


def other_tasks(task: Task, named: str, data_dir: str) -> list[Task]:
    """The tasks that `named` joins by commas; FOUND: those of the published tables of `task`'s benchmark that lie in `data_dir`.

    ValueError for a task that comes twice, has nothing to train on, or is answered by parts of a text.
    """
    published = SUPERGLUE if task.suite == "superglue" else GLUE
    names = [name for name in published if name != task.name and find_folder(get_task(name), data_dir)] if named == FOUND else named.split(",")
    others = [get_task(name) for name in names if name]
    if task in others or len(set(others)) < len(others):
        raise ValueError(f"--tasks {named}: expected the other tasks, each once; {task.name} is one of the curriculum anyway")
    for entry in (task, *others):
        if "train" not in entry.split_names or entry.spans:
            reason = "its answers are parts of a text: finetune and logit_kd take it" if entry.spans else "it has no train split"
            raise ValueError(f"mpdistil cannot study {entry.name}, {reason}")
        _warn_of_held(entry, data_dir)
    return others


def _warn_of_held(task: Task, data_dir: str) -> None:
    """Say that the quiz which MPDistil's users cut off train is not read: ours is a function of train alone."""
    folder = find_folder(task, data_dir)
    if folder and (folder / "held.tsv").exists():
        logger.warning("%s is not read: the quiz is a tenth of each class of train (`python -m distill data quiz %s`); append its rows to train "
                       "to study them", folder / "held.tsv", task.name)
