"""Records of finished runs, and the tables that are rendered from them. No number in README is typed by hand.

A record is one line of scripts/results.jsonl: one metric of one system on one task and split, for one seed.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from distill.config import digest
from distill.rundir import SaveError, read_json, write_text

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Record:
    """One number and all that is needed to make it again.

    table: where it belongs; row: the system; value: a fraction or correlation; stderr: bootstrap over the n examples.
    """

    table: str
    row: str
    task: str
    task_version: int
    split: str
    metric: str
    value: float
    n: int
    stderr: float
    seed: int
    recipe: str
    command: str
    commit: str | None
    config: str
    device: str
    seconds: float

    @property
    def key(self) -> tuple:
        """What the record is about: table, row, task, split, metric and seed."""
        return self.table, self.row, self.task, self.split, self.metric, self.seed


def read_records(path: Path, kind: type[Kind] = Record) -> list[Kind]:
    """The records in a file of JSON lines; ValueError with file and line for one that is not a record."""
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            records.append(kind(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a record ({error})") from error
    return records


def write_records(path: Path, new: Sequence[Kind]) -> None:
    """Add records; one that says the same as an old one (its kind's `key`) replaces it.

    Programs that run side by side may add to the same file: each waits for its turn.
    """
    with _turn(path.parent):
        old = read_records(path, type(new[0])) if path.exists() else []
        records = {record.key: record for record in [*old, *new]}
        write_text(path, "".join(json.dumps(asdict(record)) + "\n" for record in records.values()))


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process is changing records in `folder`."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise SaveError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def records_of(run: Path, table: str, row: str, scores: dict | None = None) -> list[Record]:
    """The records of a finished run directory: its best scores, or `scores` (a reading of `evaluate --output`)."""
    if not (run / "DONE").exists():
        raise ValueError(f"{run} is not finished: run its command again")
    config, origin, own = (read_json(run / name) for name in ("config.json", "origin.json", "scores.json"))
    task = read_json(run / "best" / "task.json")
    scores = scores or own
    command = portable(origin["command"])
    return [Record(table, row, task["task"], task["version"], *key.split("/"), value, scores["counts"][key],
                   scores["errors"][key], config["seed"], command.split()[4], command, origin["commit"],
                   digest(config), origin["device"], own["seconds"])
            for key, value in scores["values"].items()]


def portable(words: Sequence[str]) -> str:
    """The command as a reader would type it: absolute paths cut to their last two parts."""
    short = [re.sub(r"^/.*?([^/]+/[^/]+)$", r"\1", word) for word in words[1:]]
    return " ".join(["python", "-m", "distill", *short])


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error; no error for one seed."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def cell(records: Sequence[Record]) -> str:
    """`81.2 ± 0.4 (3)`: percent, standard error over seeds, number of seeds; `-` where there is no record."""
    if not records:
        return "-"
    mean, error = mean_and_error([record.value for record in records])
    return f"{100 * mean:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "") + f" ({len(records)})"


def table(records: Sequence[Record]) -> str:
    """A markdown table: systems down, task and metric across, in the order in which they first appear."""
    rows = list(dict.fromkeys(record.row for record in records))
    columns = list(dict.fromkeys((record.task, record.split, record.metric) for record in records))
    lines = ["| | " + " | ".join(f"{task} {split}, {metric}" for task, split, metric in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [cell([record for record in records if record.row == row
                       and (record.task, record.split, record.metric) == column]) for column in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables_of(records: Sequence[Record]) -> dict[str, str]:
    """Every table that the records hold, by name."""
    names = dict.fromkeys(record.table for record in records)
    return {name: table([record for record in records if record.table == name]) for name in names}


def render(text: str, tables: Mapping[str, str]) -> str:
    """`text` with the lines between `<!-- table NAME -->` and `<!-- end -->` replaced by the table NAME."""
    def replaced(match: re.Match) -> str:
        if match[1] not in tables:
            raise ValueError(f"there is no record of the table {match[1]!r}")
        return f"<!-- table {match[1]} -->\n{tables[match[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->\n.*?<!-- end -->", replaced, text, flags=re.DOTALL)
