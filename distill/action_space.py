"""The tasks that a curriculum chooses among (MPDistil), the main one aside."""

import logging

from data_utils.readers import data_fingerprint, find_folder, has_split
from data_utils.tasks import Task, get_task
from distill.splits import split_fingerprints

FOUND = "found"
SUPERGLUE = ("RTE", "BoolQ", "CB", "COPA", "WiC", "WSC")  # as published
GLUE = ("MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
logger = logging.getLogger(__name__)


def other_tasks(task: Task, named: str, data_dir: str) -> list[Task]:
    """The tasks that `named` joins by commas; FOUND: those of a published table with `task`'s benchmark whose train sets lie in `data_dir`; of
    RTE, which is in both, the table of which more do.

    ValueError for a task that comes twice, has nothing to train on, or is answered by parts of a text.
    """
    others = _found(task, data_dir) if named == FOUND else [get_task(name) for name in named.split(",") if name]
    if task in others or len(set(others)) < len(others):
        raise ValueError(f"--tasks {named}: expected the other tasks, each once; {task.name} is one of the curriculum anyway")
    for entry in (task, *others):
        if "train" not in entry.split_names or entry.spans:
            reason = "its answers are parts of a text: finetune and logit_kd take it" if entry.spans else "it has no train split"
            raise ValueError(f"mpdistil cannot study {entry.name}, {reason}")
        _warn_of_held(entry, data_dir)
    return others


def _found(task: Task, data_dir: str) -> list[Task]:
    tables = [table for table in (SUPERGLUE, GLUE) if task.name in table] or [SUPERGLUE if task.suite == "superglue" else GLUE]
    found = [[get_task(name) for name in table if name != task.name and has_split(get_task(name), "train", data_dir)] for table in tables]
    return max(found, key=len)


def space_facts(task: Task, others: list[Task], cfg) -> dict:
    """What a study of `task` reads of data, into origin.json: which task is the main one, the checksums of its splits and of the train sets
    of the others; which these are, where they were not named."""
    return {"task": task.name, f"data {task.name}": split_fingerprints(task, cfg),
            **{f"train {entry.name}": data_fingerprint(entry, "train", cfg.data_dir) for entry in others},
            **({"tasks": [entry.name for entry in others]} if cfg.tasks == FOUND else {})}


def _warn_of_held(task: Task, data_dir: str) -> None:
    """Say that the quiz which MPDistil's users cut off train is not read: ours is a function of train alone."""
    folder = find_folder(task, data_dir)
    if folder and (folder / "held.tsv").exists():
        logger.warning("%s is not read: the quiz is a tenth of each class of train (`python -m distill data quiz %s`); append its rows to train "
                       "to study them", folder / "held.tsv", task.name)
