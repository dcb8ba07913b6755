"""Tables that are rendered from records: as markdown, as CSV, and into README."""

import csv
import difflib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from distill.report import Record
from distill.report.paired import difference_by_seed
from distill.scores import mean_and_error

Column = tuple[str, str, str]  # task, split, metric


def cell(values: Sequence[float]) -> str:
    """`81.2 ± 0.4 (3)`: percent, standard error over seeds, number of seeds; `-` where there is no value."""
    if not values:
        return "-"
    mean, error = mean_and_error(values)
    return f"{100 * mean:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "") + f" ({len(values)})"


def bold(text: str, is_gain: bool) -> str:
    return f"**{text}**" if is_gain else text


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column's name may be empty."""
    return "\n".join(["| " + " | ".join(header).lstrip() + " |", "|---" * len(header) + "|",
                      *("| " + " | ".join(line) + " |" for line in lines)])


def csv_text(lines: Sequence[Mapping]) -> str:
    """Lines of equal keys as comma-separated values under a header; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def chosen_row(name: str, rows: Sequence[str], option: str) -> str:
    """`name`, where it is one of the rows; ValueError with the nearest and the list otherwise."""
    if name not in rows:
        nearest = difflib.get_close_matches(name, rows, 1, 0)[0]
        raise ValueError(f"--{option} {name!r} is no row: did you mean {nearest!r}? There are {', '.join(map(repr, rows))}")
    return name


def table(records: Sequence[Record], baseline: str = "") -> str:
    """A markdown table: systems down, task and metric across, in the order in which they first appear. A system that answers in several
    ways (the teacher exit of self-teaching) has a row for each.

    With the name of a row as `baseline`, what is better than it beyond chance is bold: Difference.is_gain of the
    difference paired by seed, since records hold no predictions.
    """
    values: dict[str, dict[Column, dict[int, float]]] = {}
    for record in records:
        split, comma, reading = record.split.partition(",")
        values.setdefault(f"{record.row}{comma}{reading}", {}).setdefault((record.task, split, record.metric), {})[record.seed] = record.value
    tasks = list(dict.fromkeys(record.task for record in records))
    columns = sorted(dict.fromkeys(column for found in values.values() for column in found), key=lambda column: tasks.index(column[0]))
    control = values[chosen_row(baseline, list(values), "baseline")] if baseline else {}

    def is_gain(found: dict[Column, dict[int, float]], column: Column) -> bool:
        difference = difference_by_seed(found.get(column, {}), control.get(column, {}))
        return difference is not None and difference.is_gain

    return markdown(["", *(f"{task} {split}, {metric}" for task, split, metric in columns)],
                    [[row, *(bold(cell(list(found.get(column, {}).values())), is_gain(found, column)) for column in columns)]
                     for row, found in values.items()])


def csv_of(records: Sequence[Record]) -> str:
    """One line per record, its id first."""
    return csv_text([{"id": record.id, **asdict(record)} for record in records])


def tables_of(records: Sequence[Record]) -> dict[str, Callable[..., str]]:
    """How every table that the records hold is written, by name: a function of its baseline."""
    names = dict.fromkeys(record.table for record in records)
    return {name: lambda baseline="", name=name: table([record for record in records if record.table == name], baseline)
            for name in names}


def render(text: str, tables: Mapping[str, Callable[..., str]]) -> str:
    """`text` with the lines between `<!-- table NAME -->` and `<!-- end -->` replaced by the table NAME.

    `<!-- table NAME against ROW -->` names its baseline.
    """
    def replaced(match: re.Match) -> str:
        if match["name"] not in tables:
            raise ValueError(f"there is no record of the table {match['name']!r}")
        return f"{match['marker']}\n{tables[match['name']](match['row'] or '')}\n<!-- end -->"

    marker = r"(?P<marker><!-- table (?P<name>\S+)(?: against (?P<row>[^\n]+?))? -->)\n.*?<!-- end -->"
    return re.sub(marker, replaced, text, flags=re.DOTALL)
