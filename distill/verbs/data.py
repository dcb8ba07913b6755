"""python -m distill data ACTION ...: name tasks, write the demo task, describe what a folder of tasks holds."""

import argparse
from pathlib import Path

import numpy as np

from data_utils import demo
from data_utils.draws import held_out
from data_utils.readers import DEFAULT_DATA_DIR, find_folder, read_examples
from data_utils.tasks import TASKS, get_task, task_names


def main(words: list[str]) -> None:
    """`tasks` lists the tasks, `name TASK` prints a task's own spelling, `demo FOLDER` writes the demo task there,
    `describe DATA_DIR` reads every task that is there, `heldout TASK` prints which train examples are held out."""
    parser = argparse.ArgumentParser(prog="python -m distill data")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("tasks", help="list the tasks")
    actions.add_parser("name", help="a task's own spelling").add_argument("task")
    actions.add_parser("demo", help="write the demo task").add_argument("folder", type=Path)
    actions.add_parser("describe", help="read every task in a folder").add_argument("folder", type=Path)
    heldout = actions.add_parser("heldout", help="the rows of train, counted from 0, that --select_on heldout holds out")
    heldout.add_argument("task")
    heldout.add_argument("--data_dir", default=DEFAULT_DATA_DIR, help="folder of the tasks")
    given = parser.parse_args(words)
    if given.action == "tasks":
        print(f"tasks: {', '.join(task_names())}")
    elif given.action == "name":
        print(get_task(given.task).name)
    elif given.action == "demo":
        demo.write(given.folder)
        print(f"wrote {given.folder}")
    elif given.action == "heldout":
        uid = np.array([example.uid for example in read_examples(get_task(given.task), "train", given.data_dir)])
        print(*uid[held_out(uid)], sep="\n")
    else:
        describe(given.folder)


def describe(data_dir: Path) -> None:
    """Read every split of every task in `data_dir` and print how many rows it has."""
    if not data_dir.is_dir():
        raise ValueError(f"no folder {data_dir}: give the folder that holds the tasks, such as ./glue")
    for task in TASKS:
        folder = find_folder(task, data_dir)
        if folder is not None:
            rows = ", ".join(f"{split.name} {len(read_examples(task, split.name, data_dir))}"
                             for split in task.splits if (folder / split.file).is_file())
            print(f"{task.name:6} {folder}: {rows or 'no file'}")
