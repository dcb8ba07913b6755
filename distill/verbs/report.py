"""python -m distill report ACTION ...: tables, tests and plots of finished runs; records of them, rendered into README."""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from data_utils.readers import DEFAULT_DATA_DIR
from data_utils.tasks import get_task
from distill.bench.records import SpeedRecord, speed_table
from distill.report import folder_table, is_pretrained, read_records, records_of, write_records
from distill.report.constant import constant_records, constant_run
from distill.report.folder import Run, find_runs, runs_in
from distill.report.plots import plot
from distill.report.reproduce import CHECKED, find_record, reproduce
from distill.report.summary import Summary
from distill.report.tables import chosen_row, csv_of, csv_text, render, tables_of
from distill.rundir import check_folder_of, device_name, read_json, write_text
from distill.senses import READINGS

SPEED = "speed"  # the table of what `bench` measured
logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Read the command line and do what the action says."""
    parser = argparse.ArgumentParser(prog="python -m distill report", allow_abbrev=False)
    parser.add_argument("--records", type=Path, default=Path("scripts/results.jsonl"), help="the file of records")
    parser.add_argument("--speed", type=Path, default=Path("scripts/speed.jsonl"), help="the file that `bench` writes")
    actions = parser.add_subparsers(dest="action", required=True)
    folder = actions.add_parser("folder", help="one table of all finished runs below a folder")
    folder.add_argument("folder", type=Path, nargs="+")
    folder.add_argument("--baseline", default="", help="the row that others are tested against, paired by seed and example")
    folder.add_argument("--teacher", default="", help="the row of which others keep a share")
    folder.add_argument("--constant", action="store_true", help="a row for one answer to all examples, chosen on train")
    folder.add_argument("--time", action="store_true", help="measure how long the systems take that were not timed on this device")
    folder.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks, for --constant and --time")
    folder.add_argument("--markdown", type=Path, help="write what is printed, and what was left out")
    folder.add_argument("--csv", type=Path, help="write the same as comma-separated values")
    folder.add_argument("--plots", type=Path, help="folder for plots: curves, score against parameters and latency, all facts side by side")
    latency = actions.add_parser("latency", help="measure how long a run's checkpoint takes per example")
    latency.add_argument("run", type=Path)
    latency.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks")
    words_of = actions.add_parser("words", help="compare pre-training runs on their held-out masked words, pair by pair with the first")
    words_of.add_argument("run", type=Path, nargs="+")
    words_of.add_argument("--temperature", type=float, default=2.0, help="at which the entropy of their soft targets is given")
    add = actions.add_parser("add", help="record the scores of a finished run, or of a folder of seeds")
    add.add_argument("table")
    add.add_argument("row", help="the system, as the table names it")
    add.add_argument("run", type=Path, help="its run directory, or a folder with seed-0, seed-1 ... in it")
    add.add_argument("--scores", type=Path, help="a file of evaluate --output, instead of the run's own scores")
    add.add_argument("--reading", help=f"which reading of that file; by default {READINGS['senses']}")
    constant = actions.add_parser("constant", help="record what one constant answer scores, from the data alone")
    constant.add_argument("task")
    constant.add_argument("table")
    constant.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks")
    table = actions.add_parser("table", help="print a table of records")
    table.add_argument("table")
    table.add_argument("--baseline", default="", help="bold what is better than this row, paired by seed")
    table.add_argument("--teacher", default="", help="the row of which others keep a share")
    table.add_argument("--csv", type=Path, help="write its records as comma-separated values")
    actions.add_parser("render", help="render the tables in a file").add_argument("file", type=Path)
    actions.add_parser("ids", help="list the ids of records").add_argument("table", nargs="?", default="")
    again = actions.add_parser("reproduce", help="run a record's command again and compare (scripts/reproduce.sh)")
    again.add_argument("id")
    again.add_argument("--output_dir", type=Path, help="the folder for it; by default runs/reproduce/ID")
    again.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks")
    for name in CHECKED:
        again.add_argument(f"--{name}", default="", help=f"the {name} to read instead of the recorded one")
    given = parser.parse_args(words)
    ACTIONS[given.action](given)


def report_folder(given: argparse.Namespace) -> None:
    """Print the table of a folder; what is left out goes to the log."""
    for setting in ("markdown", "csv"):
        check_folder_of(getattr(given, setting), f"--{setting}")
    runs, notes = find_runs(*given.folder)
    constants, unanswered = constant_runs(runs, given.data_dir) if given.constant else ([], [])
    notes += unanswered
    warn(notes)
    if not runs:
        raise ValueError(f"nothing to report below {', '.join(map(str, given.folder))}: there is no finished run that can be read")
    rows = sorted({run.row for run in (*runs, *constants)})
    for option in ("baseline", "teacher"):
        if getattr(given, option):
            chosen_row(getattr(given, option), rows, option)
    if given.time:
        untimed = time_runs(runs, given.data_dir)
        warn(untimed)
        runs, notes = find_runs(*given.folder)[0], notes + untimed
    summary = Summary([*runs, *constants], given.baseline, given.teacher)
    warn(summary.doubts)
    table = folder_table.table(summary)
    print(table)
    if given.markdown:
        write_text(given.markdown, "\n".join([table, *(f"\n- {note}" for note in (*notes, *summary.doubts)), ""]))
    if given.csv:
        write_text(given.csv, folder_table.csv(summary))
    if given.plots:
        files, undrawn = plot(summary, given.plots)
        warn(undrawn)
        logger.info("wrote %d files into %s", len(files), given.plots)


def warn(notes: Iterable[str]) -> None:
    for note in notes:
        logger.warning("%s", note)


def time_runs(runs: Sequence[Run], data_dir: str) -> list[str]:
    """Measure a run of each system and task of which none was timed on this device: its first seed, since the others differ in their
    weights alone. Returns a line for each that cannot be measured."""
    notes, here = [], device_name()
    for row, task in dict.fromkeys((run.row, run.task.name) for run in runs):
        same = [run for run in runs if (run.row, run.task.name) == (row, task)]
        if not any(here in run.latencies for run in same):
            try:
                measure_latency(same[0].path, data_dir)
            except (ValueError, OSError) as error:
                notes.append(f"{row} on {task} was not timed: {error}")
    return notes


def measure_latency(run: Path, data_dir: str) -> dict:
    """That of bench/latency.py: of what reports do it alone needs models, which take seconds to load."""
    from distill.bench import latency

    return latency.measure_latency(run, data_dir)


def constant_runs(runs: Sequence[Run], data_dir: str) -> tuple[list[Run], list[str]]:
    """The constant answer to each task of the runs, and a line for each task that has none."""
    found, notes = [], []
    for task in {run.task.name: run.task for run in runs}.values():
        try:
            found.append(constant_run(task, data_dir))
        except ValueError as error:
            notes.append(f"no constant answer: {error}")
    return found, notes


def report_latency(given: argparse.Namespace) -> None:
    """Measure the run, or the first of a folder of seeds: they differ in their weights alone."""
    run = runs_in(given.run)[0]
    found = measure_latency(run, given.data_dir)
    times = ", ".join(f"{value:.2f} in batches of {size}" for size, value in found["milliseconds"].items())
    print(f"{run}: ms per example: {times} ({found['task']} {found['split']}, {found['tokens']:.0f} tokens on average, {found['device']}"
          + (", disturbed by other programs" if found["disturbed"] else "") + ")")


def report_words(given: argparse.Namespace) -> None:
    """Hold pre-training runs against the first of them."""
    from distill.bench import held_words  # needs models

    if given.temperature <= 0:
        raise ValueError(f"--temperature {given.temperature:g}: expected a number above 0")
    print(held_words.compare_held_words([runs_in(run)[0] for run in given.run], given.temperature))


def add_records(given: argparse.Namespace) -> None:
    runs = runs_in(given.run)
    if given.scores and len(runs) > 1:
        raise ValueError(f"--scores {given.scores} is a reading of one run, {given.run} holds {len(runs)}: add them one by one")
    if given.reading and not given.scores:
        raise ValueError(f"--reading {given.reading!r}: of a file of `evaluate --output`; give it with --scores FILE")
    reading = (given.reading or READINGS["senses"]) if given.scores else ""
    scores = chosen_reading(given.scores, reading) if given.scores else None
    records = [record for run in runs for record in records_of(run, given.table, given.row, scores, reading)]
    if records:
        write_records(given.records, records)
    else:
        logger.warning("%s has no score to record: %s", given.run,
                       "it was pre-trained without learning words; fine-tune its best/, and record that" if is_pretrained(runs[0] / "best") else
                       "what is held out of train only selects, and dev came without its answers")


def chosen_reading(file: Path, reading: str) -> dict:
    """What `evaluate --output` wrote of `reading`; ValueError with the readings that are there."""
    readings = read_json(file)
    if reading not in readings:
        raise ValueError(f"--reading {reading!r}: {file} has {', '.join(map(repr, readings))}; `evaluate` reads chosen senses where it is "
                         "given --senses")
    return readings[reading]


def add_constant(given: argparse.Namespace) -> None:
    task = get_task(given.task)
    command = ["", "report", "constant", task.name, given.table, "--data_dir", given.data_dir]
    write_records(given.records, constant_records(task, given.data_dir, given.table, command))


def print_table(given: argparse.Namespace) -> None:
    tables = all_tables(given.records, given.speed)
    if given.table not in tables:
        raise ValueError(f"no table {given.table!r} in {given.records}: there are {', '.join(sorted(tables))}")
    print(tables[given.table](given.baseline, given.teacher))
    if given.csv:
        write_text(given.csv, csv_text([asdict(record) for record in read_records(given.speed, SpeedRecord)]) if given.table == SPEED else
                   csv_of([record for record in read_records(given.records) if record.table == given.table]))


def render_tables(given: argparse.Namespace) -> None:
    write_text(given.file, render(given.file.read_text(), all_tables(given.records, given.speed)))


def list_ids(given: argparse.Namespace) -> None:
    for record in read_records(given.records):
        if given.table in ("", record.table):
            print(f"{record.id}  {record.table}  {record.task} {record.split}, {record.metric}  {100 * record.value:.1f}  "
                  f"seed {record.seed}  {record.row}")


def reproduce_record(given: argparse.Namespace) -> None:
    records = read_records(given.records)
    paths = {name: getattr(given, name) for name in ("data_dir", *CHECKED)}
    print(reproduce(find_record(records, given.id), records, paths, given.output_dir or Path("runs/reproduce", given.id)))


def all_tables(records: Path, speed: Path) -> dict[str, Callable[..., str]]:
    """How each table of both files of records is written; ValueError where the first is missing."""
    def measured(baseline: str = "", teacher: str = "") -> str:
        if baseline or teacher:
            raise ValueError(f"--baseline {baseline!r}, --teacher {teacher!r}: each row of the table `{SPEED}` names what it is compared with")
        return speed_table(read_records(speed, SpeedRecord))

    return {**tables_of(read_records(records)), **({SPEED: measured} if speed.is_file() else {})}


ACTIONS = {"folder": report_folder, "latency": report_latency, "words": report_words, "add": add_records, "constant": add_constant, "table": print_table,
           "render": render_tables, "ids": list_ids, "reproduce": reproduce_record}
