"""python -m distill report ACTION ...: collect the scores of finished runs, print tables, render them into README."""

import argparse
from pathlib import Path

from distill.bench.records import SpeedRecord, speed_table
from distill.report import read_records, records_of, render, tables_of, write_records
from distill.rundir import read_json, write_text


def main(words: list[str]) -> None:
    """`add TABLE ROW RUN` records a run, `table TABLE` prints one, `render FILE` renders all tables in a file."""
    parser = argparse.ArgumentParser(prog="python -m distill report", allow_abbrev=False)
    parser.add_argument("--records", type=Path, default=Path("scripts/results.jsonl"), help="the file of records")
    parser.add_argument("--speed", type=Path, default=Path("scripts/speed.jsonl"), help="the file that `bench` writes")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="record the scores of a finished run")
    add.add_argument("table")
    add.add_argument("row", help="the system, as the table names it")
    add.add_argument("run", type=Path, help="its run directory")
    add.add_argument("--scores", type=Path, help="a file of evaluate --output, instead of the run's own scores")
    add.add_argument("--reading", default="chosen senses", help="which reading of that file")
    actions.add_parser("table", help="print a table").add_argument("table")
    actions.add_parser("render", help="render the tables in a file").add_argument("file", type=Path)
    given = parser.parse_args(words)
    if given.action == "add":
        scores = read_json(given.scores)[given.reading] if given.scores else None
        write_records(given.records, records_of(given.run, given.table, given.row, scores))
        return
    tables = all_tables(given.records, given.speed)
    if given.action == "render":
        write_text(given.file, render(given.file.read_text(), tables))
    elif given.table in tables:
        print(tables[given.table])
    else:
        raise ValueError(f"no table {given.table!r} in {given.records}: there are {', '.join(sorted(tables))}")


def all_tables(records: Path, speed: Path) -> dict[str, str]:
    """The tables of both files of records; ValueError where the first is missing."""
    if not records.is_file():
        raise ValueError(f"no records {records}: `report add` writes them")
    measured = {"speed": speed_table(read_records(speed, SpeedRecord))} if speed.is_file() else {}
    return {**tables_of(read_records(records)), **measured}
