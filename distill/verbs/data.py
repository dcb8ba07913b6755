"""python -m distill data ACTION ...: name tasks, write the demo task, describe what a folder of tasks holds, pack text to pre-train on."""

import argparse
from pathlib import Path

from data_utils import demo
from data_utils.draws import HELD_OUT, SELECT_ON, split_held_out, split_quiz
from data_utils.encode import EncodedDataset, untokenised
from data_utils.readers import DEFAULT_DATA_DIR, find_folder, has_split, read_examples
from data_utils.submission import check_submission
from data_utils.tasks import TASKS, get_task, task_names


def main(words: list[str]) -> None:
    """`tasks` lists the tasks, `name TASK` prints a task's own spelling, `demo FOLDER` writes the demo task there,
    `describe DATA_DIR` reads every task that is there, `submission TASK FILE` checks a leaderboard's file, `heldout TASK` and
    `quiz TASK` print which train examples are held out, and which mpdistil asks about, `pack SOURCE ...` makes a corpus of text."""
    parser = argparse.ArgumentParser(prog="python -m distill data")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("tasks", help="list the tasks")
    actions.add_parser("name", help="a task's own spelling").add_argument("task")
    actions.add_parser("demo", help="write the demo task").add_argument("folder", type=Path)
    actions.add_parser("describe", help="read every task in a folder").add_argument("folder", type=Path)
    submission = actions.add_parser("submission", help="check a leaderboard's file against the test split that it answers")
    submission.add_argument("task")
    submission.add_argument("file", type=Path)
    submission.add_argument("--data_dir", default=DEFAULT_DATA_DIR, help="folder of the tasks")
    heldout = actions.add_parser("heldout", help="the rows of train, counted from 0, that --select_on heldout holds out")
    heldout.add_argument("task")
    heldout.add_argument("--data_dir", default=DEFAULT_DATA_DIR, help="folder of the tasks")
    asked = actions.add_parser("quiz", help="the rows of train, counted from 0, that mpdistil asks about")
    asked.add_argument("task")
    asked.add_argument("--data_dir", default=DEFAULT_DATA_DIR, help="folder of the tasks")
    asked.add_argument("--select_on", default=HELD_OUT, choices=SELECT_ON, help="as in training: heldout rows are asked about nowhere")
    _add_pack(actions.add_parser("pack", help="plain text as one array of token ids, to pre-train on"))
    given = parser.parse_args(words)
    if given.action == "tasks":
        print(f"tasks: {', '.join(task_names())}")
    elif given.action == "name":
        print(get_task(given.task).name)
    elif given.action == "demo":
        demo.write(given.folder)
        print(f"wrote {given.folder}")
    elif given.action == "pack":
        from distill.verbs import data_pack  # the one action that needs torch, which is slow to load
        data_pack.run(given)
    elif given.action == "submission":
        print(f"{given.file}: {check_submission(get_task(given.task), given.file, given.data_dir)} answers, as the leaderboard takes them")
    elif given.action == "heldout":
        print(*split_held_out(_train(given))[1].uid, sep="\n")
    elif given.action == "quiz":
        train = _train(given)
        print(*split_quiz(split_held_out(train)[0] if given.select_on == HELD_OUT else train)[1].uid, sep="\n")
    else:
        describe(given.folder)


def _add_pack(pack: argparse.ArgumentParser) -> None:
    pack.description = "Tokenise text on all cores. Killed at any moment, the same command goes on and ends with the same bytes."
    pack.add_argument("source", nargs="+", help="a text file; a folder of .txt files; WikiText's wiki.*.raw or wiki.*.tokens (a document per "
                      "article); hub:NAME:CONFIG:SPLIT (a document per row of its column text; of WikiText per article)")
    pack.add_argument("--tokenizer", required=True, help="of the model to train: a hub id, a folder, or minilm")
    pack.add_argument("--output_dir", required=True, help="folder for the corpus")
    pack.add_argument("--documents", choices=("blank", "line", "file"), help="a document of a plain file: what blank lines part (default for "
                      "files), a line, or the file (default for the files of a folder)")


def _train(given: argparse.Namespace) -> EncodedDataset:
    task = get_task(given.task)
    return untokenised(read_examples(task, "train", given.data_dir), task)


def describe(data_dir: Path) -> None:
    """Read every split of every task in `data_dir` and print how many rows it has."""
    if not data_dir.is_dir():
        raise ValueError(f"no folder {data_dir}: give the folder that holds the tasks, such as ./glue")
    for task in TASKS:
        folder = find_folder(task, data_dir)
        if folder is not None:
            rows = ", ".join(f"{split.name} {len(read_examples(task, split.name, data_dir))}"
                             for split in task.splits if has_split(task, split.name, data_dir))
            print(f"{task.name:7} {folder}: {rows or 'no file'}")
