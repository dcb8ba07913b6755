"""Tables that are rendered from records: as markdown, as CSV, and into README."""

import csv
import difflib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

from distill.report import UNTRAINED, Record, policies
from distill.report.kept import Column, kept, on_dev
from distill.report.paired import Seed, difference_by_seed
from distill.scores import mean_and_error

FACTS = {"steps": "pre-training, steps", "tokens": "pre-training, tokens"}  # of a record -> header
Scored = dict[Column, dict[Seed, float]]  # a system's scores, by seed


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
    """Lines of equal keys as comma-separated values under a header; None is an empty field. Without a line, no text."""
    if not lines:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def chosen_row(name: str, rows: Sequence[str], option: str) -> str:
    """`name`, where it is one of the rows; ValueError with the nearest and the list otherwise."""
    if name not in rows:
        nearest = difflib.get_close_matches(name, rows, 1, 0)[0]
        raise ValueError(f"--{option} {name!r} is not a row: did you mean {nearest!r}? There are {', '.join(map(repr, rows))}")
    return name


@dataclass(frozen=True)
class Grouped:
    """The records of a table by system, in the order in which they first appear. One that answers in several ways (the teacher exit of
    self-teaching) is a system for each."""

    values: dict[str, Scored]
    errors: dict[Column, list[float]]
    facts: dict[str, dict[str, set[int]]]     # of FACTS: by system, what its records say
    selected: dict[str, dict[str, set[int]]]  # by system, then by the split that selected: of how many evaluations

    @property
    def columns(self) -> list[Column]:
        tasks = list(dict.fromkeys(task for task, _, _ in self.errors))
        return sorted(self.errors, key=lambda column: tasks.index(column[0]))


def check_comparable(records: Sequence[Record]) -> None:
    """ValueError where a split was scored in several versions of its task, or as several data."""
    known: dict[tuple, object] = {}
    for record in records:
        split = record.split.partition(",")[0]
        for what, value in (("versions", record.task_version), ("data, by their checksums", record.data)):
            first = known.setdefault((record.task, split, what), value) if value else value
            if value != first:
                raise ValueError(f"the table {record.table} has scores on {record.task} {split} of several {what}: {first}, and {value} (row "
                                 f"{record.row}, seed {record.seed}, id {record.id}); make the older ones again, or remove their lines")


def grouped(records: Sequence[Record]) -> Grouped:
    check_comparable(records)
    found = Grouped({}, {}, {name: {} for name in FACTS}, {})
    for record in records:
        split, comma, reading = record.split.partition(",")
        column, row = (record.task, split, record.metric), f"{record.row}{comma}{reading}"
        seed = None if record.recipe == UNTRAINED else record.seed
        found.values.setdefault(row, {}).setdefault(column, {})[seed] = record.value
        of_row = found.selected.setdefault(row, {})
        if record.selected_on or record.evaluations:
            of_row.setdefault(record.selected_on, set()).add(record.evaluations)
        found.errors.setdefault(column, []).append(record.stderr)
        for name, known in found.facts.items():
            known.setdefault(row, set()).add(getattr(record, name))
    return found


@dataclass(frozen=True)
class Shown:
    """A column of a table: what stands above it, in each row, and in the last one, of what chance the examples bring."""

    header: str
    cell: Callable[[str], str]
    chance: str = "-"


def table(records: Sequence[Record], baseline: str = "", teacher: str = "") -> str:
    """A markdown table: systems down, task and metric across.

    With the name of a row as `baseline`, what is better than it beyond chance is bold: Difference.is_gain of the difference paired by
    seed, since records hold no predictions. With one as `teacher`, a column says what is kept of it. Where the records know it, columns
    say on which split models were selected, of how many evaluations (the best of many flatters the split that selected), and how long
    pre-training was; a split that selected them all is named under the table. The last row, unless policies are all that there is: the
    standard error of one score, the median over the records.
    """
    found = grouped(records)
    columns = [*_of_scores(found, baseline), *_of_shares(found, teacher), *_of_selection(found), *_of_facts(found)]
    lines = [[row, *(column.cell(row) for column in columns)] for row in found.values]
    if {split for _, split, _ in found.errors} != {policies.SPLIT}:
        lines.append(["*one score, over examples*", *(column.chance for column in columns)])
    alike = _selected_alike(found)
    return markdown(["", *(column.header for column in columns)], lines) + (f"\n\nModels were selected on {alike}." if alike else "")


def _of_scores(found: Grouped, baseline: str) -> list[Shown]:
    control = found.values[chosen_row(baseline, list(found.values), "baseline")] if baseline else {}

    def of(column: Column) -> Shown:
        task, split, metric = column
        return Shown(f"{task} {split}, {metric}", lambda row: bold(cell(list(found.values[row].get(column, {}).values())),
                                                                   _is_gain(found.values[row], control, column)),
                     f"± {100 * median(found.errors[column]):.1f}")

    return [of(column) for column in found.columns]


def _of_shares(found: Grouped, teacher: str) -> list[Shown]:
    if not teacher:
        return []
    theirs = most_seeds(found.values[chosen_row(teacher, list(found.values), "teacher")])
    if not theirs:
        raise ValueError(f"--teacher {teacher!r} has no score on a dev set, and what is held out of train does not count")
    return [Shown(f"kept of the {teacher}'s, mean over {', '.join(dict.fromkeys(task for task, _, _ in theirs))}",
                  lambda row: cell(shares(found.values[row], theirs)))]


def _of_selection(found: Grouped) -> list[Shown]:
    def selection(row: str) -> str:
        return ", ".join(f"{split} (best of {_range(counts)})" if any(counts) else split for split, counts in found.selected[row].items()) or "-"

    return [Shown("selected on", selection)] if any(found.selected.values()) and not _selected_alike(found) else []


def _selected_alike(found: Grouped) -> str:
    """The split that selected all models, of unknown numbers of evaluations: it is said once, under the table; "" where rows differ."""
    splits = {split for of_row in found.selected.values() for split in of_row}
    counts = {count for of_row in found.selected.values() for counts in of_row.values() for count in counts}
    return splits.pop() if len(splits) == 1 and not any(counts) else ""


def _of_facts(found: Grouped) -> list[Shown]:
    return [Shown(FACTS[name], lambda row, known=known: _range(known[row])) for name, known in found.facts.items() if any(map(any, known.values()))]


def _range(numbers: set[int]) -> str:
    """`3`, or `3 to 40` where they differ; `-` where none is known."""
    known = sorted(numbers - {0})
    return " to ".join(f"{number:,}" for number in dict.fromkeys((known[0], known[-1]))) if known else "-"


def _is_gain(found: Scored, control: Scored, column: Column) -> bool:
    difference = difference_by_seed(found.get(column, {}), control.get(column, {}))
    return difference is not None and difference.is_gain


def most_seeds(found: Scored) -> Scored:
    """The columns on dev sets that have as many seeds as any of them, of a system that is compared with."""
    counted = {column: seeds for column, seeds in found.items() if on_dev(column)}
    most = max(map(len, counted.values()), default=0)
    return {column: seeds for column, seeds in counted.items() if len(seeds) == most}


def shares(found: Scored, teacher: Scored) -> list[float]:
    """The mean over tasks of kept(), for each seed that has all of the teacher's columns, where all of its tasks count."""
    seeds = sorted(set.intersection(*({*found.get(column, {})} & {*scores} for column, scores in teacher.items())))
    by_seed = [[{column: scored[column][seed] for column in teacher} for scored in (found, teacher)] for seed in seeds]
    tasks = {task for task, _, _ in teacher}
    return [mean(shared.values()) for ours, theirs in by_seed if (shared := kept(ours, theirs)).keys() == tasks]


def csv_of(records: Sequence[Record]) -> str:
    """One line per record, its id first."""
    return csv_text([{"id": record.id, **asdict(record)} for record in records])


def tables_of(records: Sequence[Record]) -> dict[str, Callable[..., str]]:
    """How every table that the records hold is written, by name: a function of its baseline and its teacher."""
    names = dict.fromkeys(record.table for record in records)
    return {name: lambda baseline="", teacher="", name=name: table([record for record in records if record.table == name], baseline, teacher)
            for name in names}


def render(text: str, tables: Mapping[str, Callable[..., str]]) -> str:
    """`text` with the lines between `<!-- table NAME -->` and `<!-- end -->` replaced by the table NAME.

    `<!-- table NAME against ROW keeping ROW -->` names its baseline and its teacher, or one of them. ValueError for a marker that is
    none of these, or lacks its end.
    """
    def replaced(match: re.Match) -> str:
        if match["name"] not in tables:
            raise ValueError(f"there is no record of the table {match['name']!r}")
        return f"{match['marker']}\n{tables[match['name']](match['row'] or '', match['teacher'] or '')}\n<!-- end -->"

    marker = r"(?P<marker><!-- table (?P<name>\S+)(?: against (?P<row>[^\n]+?))?(?: keeping (?P<teacher>[^\n]+?))? -->)\n(?:(?!<!-- table).)*?<!-- end -->"
    unread = re.search(r"^<!-- table.*", re.sub(marker, "", text, flags=re.DOTALL), re.MULTILINE)
    if unread:
        raise ValueError(f"line {text[:text.index(unread[0])].count(chr(10)) + 1}, {unread[0]!r}: expected <!-- table NAME against ROW keeping ROW -->, "
                         "or a part of it, and a line <!-- end --> before the next table")
    return re.sub(marker, replaced, text, flags=re.DOTALL)
