"""python -m distill data ACTION ...: write the demo task, describe what a folder of tasks holds."""

import argparse
from pathlib import Path

from data_utils import demo
from data_utils.readers import find_folder, read_examples
from data_utils.tasks import TASKS


def main(words: list[str]) -> None:
    """`demo FOLDER` writes the demo task there; `describe DATA_DIR` reads every task that is there."""
    parser = argparse.ArgumentParser(prog="python -m distill data")
    parser.add_argument("action", choices=["demo", "describe"])
    parser.add_argument("folder")
    given = parser.parse_args(words)
    if given.action == "demo":
        demo.write(Path(given.folder))
        print(f"wrote {given.folder}")
        return
    if not Path(given.folder).is_dir():
        raise ValueError(f"no folder {given.folder}: give the folder that holds the tasks, such as ./glue")
    for task in TASKS:
        folder = find_folder(task, given.folder)
        if folder is not None:
            rows = ", ".join(f"{split.name} {len(read_examples(task, split.name, given.folder))}"
                             for split in task.splits if (folder / split.file).is_file())
            print(f"{task.name:6} {folder}: {rows or 'no file'}")
