"""One record again: its command with today's paths, into a folder of its own, and the number beside the recorded one."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_utils.tasks import TEXT
from distill.config import split_words, value_of, without
from distill.report import Record, data_of, read_records
from distill.report.policies import SPLIT, policy_of
from distill.rundir import RunDir, origin, read_json
from distill.senses import READINGS

CHECKED = {"teacher": "TEACHER", "senses": "SENSES", "model": "MODEL", "student": "STUDENT", "corpus": "CORPUS"}  # paths, variables for others
OF_THE_HUB = ("model", "student")  # may be: the paths of ours end in BEST
BEST = "best"
DROPPED = ("output_dir", "cache_dir", "stages_dir")   # places of the first run


def find_record(records: Sequence[Record], given: str) -> Record:
    """The record with the id `given`; ValueError where there is none."""
    for record in records:
        if record.id == given:
            return record
    raise ValueError(f"no record has the id {given!r}: `python -m distill report ids` lists them")


def words_of(record: Record) -> list[str]:
    """The words of its command after `python -m distill`."""
    return split_words(shlex.split(record.command)[3:])


def command(record: Record, paths: Mapping[str, str], out: Path) -> list[str]:
    """The words that make the record again in `out`, read from `paths` (setting -> path: data_dir and those of CHECKED; "": as recorded)."""
    words = words_of(record)
    used = {name: path for name, path in paths.items() if path and (value_of(words, name) or name == "data_dir" and record.task != TEXT.name)}
    words = without(words, (*DROPPED, *used)) + [word for name, path in used.items() for word in (f"--{name}", path)]
    if words[0] == "report":
        return ["report", "--records", str(out / "records.jsonl"), *words[1:]]
    return [*words, "--output_dir", str(out)]


def missing(record: Record, records: Sequence[Record], paths: Mapping[str, str]) -> list[str]:
    """A line for every path that the record's number is made from and that is not here: what to set, and what makes it."""
    words, lines = words_of(record), []
    for name, variable in CHECKED.items():
        recorded = value_of(words, name)
        path = paths.get(name) or recorded
        if recorded and not Path(path).exists() and (name not in OF_THE_HUB or Path(path).name == BEST):
            lines.append(f"--{name} {path} is not here: set {variable} to {_maker(name, record, records, recorded)}")
    return lines


def _maker(name: str, record: Record, records: Sequence[Record], path: str) -> str:
    """What makes that which a command of `record` read from `path`, its --`name`."""
    if name == "senses":
        return f"what `{shlex.join(['python', '-m', 'distill', *_build(record)])} --teacher ...` makes of that teacher"
    if name == "corpus":
        return "what `python -m distill data pack` makes of that text"
    runs = [f"`sh scripts/reproduce.sh {run.id}` makes ({run.row}, seed {run.seed})" for run in runs_behind(name, record, records, path)]
    return f"the folder {BEST}/ of what {' or '.join(runs or ['a run made that is not among these records'])}"


def runs_behind(name: str, record: Record, records: Sequence[Record], path: str) -> list[Record]:
    """The records, one per command, of the run in whose best/ a command of `record` found its --`name`, such as its teacher.

    Recorded paths are cut, so there may be several; fine-tuned ones, those in a folder called `name`, those beside its own folder, and
    those of its seed come before all others.
    """
    folder, own = Path(path.removesuffix(f"/{BEST}")), Path(value_of(words_of(record), "output_dir"))
    made: dict[str, tuple[Record, Path]] = {}
    for other in sorted(records, key=lambda other: other.reading):  # a run's own scores first
        place = Path(value_of(words_of(other), "output_dir"))
        if other.table == record.table and other.task in (record.task, TEXT.name) and other.command != record.command and _same_end(folder, place):
            made.setdefault(other.command, (other, place))
    likely = list(made.values())
    for test in (lambda other, place: other.recipe == "finetune", lambda other, place: name in place.parts, lambda other, place: place.parent.name == own.parent.name,
                 lambda other, place: other.seed == record.seed):
        likely = [pair for pair in likely if test(*pair)] or likely
    return [other for other, _ in likely]


def _same_end(one: Path, other: Path) -> bool:
    """Whether the shorter path is how the longer one ends."""
    return all(a == b for a, b in zip(reversed(one.parts), reversed(other.parts)))


def reproduce(record: Record, records: Sequence[Record], paths: Mapping[str, str], out: Path) -> str:
    """Run the record's command into `out` (again after an interruption: it goes on) and say how the number compares.

    ValueError where an input is missing, where the command fails, and where the number is off by more than its standard
    error.
    """
    lines = missing(record, records, paths)
    if lines:
        raise ValueError(f"{record.id} was made by `{record.command}`; {'; '.join(lines)}")
    out.mkdir(parents=True, exist_ok=True)
    _run(command(record, paths, out))
    if record.reading:
        _read_again(record, paths, out)
    value, facts = score_of(record, out), origin([])
    difference, allowed = 100 * (value - record.value), 100 * record.stderr
    said = (f"{record.row}, {record.task} {record.split}, {record.metric}, seed {record.seed}\n"
            f"recorded {100 * record.value:.2f}  ({record.device}, commit {record.commit})\n"
            f"now      {100 * value:.2f}  ({facts['device']}, commit {facts['commit']})\n"
            f"{_other_data(record, out)}difference {difference:+.2f}, standard error of the recorded number {allowed:.2f}: ")
    if record.split == SPLIT:
        return f"{said}a policy has none, judge for yourself"
    if abs(difference) > allowed + 1e-9:
        raise ValueError(f"{said}not reproduced")
    return f"{said}reproduced"


def _other_data(record: Record, out: Path) -> str:
    """A line where other data was scored than for the record, "" where it was the same, or it is not known."""
    if not record.data:
        return ""
    if words_of(record)[0] == "report":
        now = _again(record, out).data
    else:
        notes = read_json(out / "readings.json")[record.reading] if record.reading else read_json(out / record.stage / "origin.json")
        now = data_of(notes, record.task, record.split)
    return f"other data: {record.task} {record.split} has the checksum {now} ... here, {record.data} ... there\n" if now != record.data else ""


def _read_again(record: Record, paths: Mapping[str, str], out: Path) -> None:
    """Score the run on the record's task; through senses those that it was trained with, or those of its own states, as of any teacher."""
    senses, data = paths.get("senses") or value_of(words_of(record), "senses"), ["--data_dir", paths["data_dir"]]
    if record.reading == READINGS["senses"] and not senses:
        senses = str(out / "senses")
        _run([*_build(record), "--teacher", str(out / "best"), *data, "--output_dir", senses])
    _run(["evaluate", record.task, "--checkpoint", str(out), *(["--senses", senses, *_similarity(record)] if senses else []), *data,
          "--output", str(out / "readings.json")])


def _build(record: Record) -> list[str]:
    return ["senses", "build", record.task, *_similarity(record)]


def _similarity(record: Record) -> list[str]:
    """How the record's senses were chosen; older records do not say it and mean the default."""
    return ["--similarity", record.similarity] if record.similarity else []


def _run(words: Sequence[str]) -> None:
    print(shlex.join(["python", "-m", "distill", *words]), flush=True)
    status = subprocess.run([sys.executable, "-m", "distill", *words]).returncode
    if status:
        raise ValueError(f"the command above ended with status {status}: see what it said")


def _again(record: Record, out: Path) -> Record:
    """The record that a `report` command wrote into `out`."""
    return find_record(read_records(out / "records.jsonl"), record.id)


def score_of(record: Record, out: Path) -> float:
    """The number that the record is about, as it was made again in `out`."""
    if words_of(record)[0] == "report":
        return _again(record, out).value
    scores = read_json(out / "readings.json")[record.reading]["values"] if record.reading else {
        **RunDir(out / record.stage).scores().values, **policy_of(out / record.stage, record.task)}
    key = f"{record.split}/{record.metric}"
    if key not in scores:
        raise ValueError(f"the run in {out} has no {key}, only {', '.join(scores)}: other metrics or splits were in use at commit "
                         f"{record.commit}")
    return scores[key]
