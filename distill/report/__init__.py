"""Records of finished runs. A record is one line of scripts/results.jsonl: one metric of one system on one task and split,
for one seed. README's tables are rendered from records; no number there is typed by hand.
"""

import fcntl
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from data_utils.tasks import TEXT
from distill.config import digest, split_words, value_of, without
from distill.report.kept import is_of_best, only_selects
from distill.report.policies import LATEST, METRIC, SPLIT, TABLES, policy_of
from distill.rundir import RunDir, SaveError, read_json, stage_of, write_text
from distill.seeds import FOLDER, SEED
from distill.senses import similarity_of
from models.weights import fingerprint, stored_parameters

Kind = TypeVar("Kind")
DIGITS = 16  # of a checksum
UNTRAINED = "constant"  # the recipe of what nothing was drawn for: its seed says nothing


@dataclass(frozen=True)
class Record:
    """One number and all that is needed to make it again.

    table: where it belongs; row: the system; value: a fraction or correlation; stderr: bootstrap over the n examples;
    parameters: of the model, embeddings included, None where best/ is not all that answered; reading: which reading of
    `evaluate --output` it is, "" for the run's own scores; stage: the run inside the command's run whose scores they are, "" for the
    last; selected_on: the split that chose among the evaluations, of which there were so many, "" and 0 where it is not known; steps, tokens: of pre-training, or of that of the model
    it starts from, how many it took and how many real ones they read; similarity: how the senses were chosen that it was trained with
    or read through, "" where none were; data: the first digits of the checksum of what was scored, "" where it is not known.
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
    parameters: int | None = None
    reading: str = ""
    stage: str = ""
    selected_on: str = ""
    evaluations: int = 0
    steps: int = 0
    tokens: int = 0
    similarity: str = ""
    data: str = ""

    @property
    def key(self) -> tuple:
        """What the record is about: table, row, task, split, metric and seed."""
        return self.table, self.row, self.task, self.split, self.metric, self.seed

    @property
    def id(self) -> str:
        """Eight hex digits that name the record: a function of its key."""
        return hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:8]


def read_records(path: Path, kind: type[Kind] = Record) -> list[Kind]:
    """The records in a file of JSON lines; ValueError with file and line for one that is not a record."""
    if not path.is_file():
        raise ValueError(f"no records {path}: `report add` writes them")
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            records.append(kind(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a record ({error})") from error
    return records


def write_records(path: Path, new: Sequence[Kind]) -> None:
    """Add records; one that says the same as an old one (its kind's `key`) replaces it. ValueError where the old one is of a model of
    another size: a table holds one.

    Programs that run side by side may add to the same file: each waits for its turn.
    """
    with _turn(path.parent):
        old = read_records(path, type(new[0])) if path.exists() else []
        records = {record.key: record for record in old}
        for record in new:
            _check_same_model(records.get(record.key), record, path)
            records[record.key] = record
        write_text(path, "".join(json.dumps(_content(record), separators=(",", ":")) + "\n" for record in records.values()))


def _check_same_model(old, new, path: Path) -> None:
    sizes = [getattr(record, "parameters", None) for record in (old, new)]
    if all(sizes) and sizes[0] != sizes[1]:
        raise ValueError(f"{path} has {new.row} on {new.task}, seed {new.seed}, in the table {new.table} with a model of {sizes[0]:,} parameters, this one "
                         f"has {sizes[1]:,}: record it in another file (RECORDS before a script, --records after `report`), or as another row")


def _content(record) -> dict:
    """The fields of a record; those that came later only where they say something, so that old lines stay as they are."""
    return {entry.name: getattr(record, entry.name) for entry in fields(record)
            if entry.default is MISSING or getattr(record, entry.name) != entry.default}


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


def records_of(run: Path, table: str, row: str, scores: dict | None = None, reading: str = "") -> list[Record]:
    """The records of a finished run directory: its best scores, or `scores`, which is the `reading` of a file that
    `evaluate --output` wrote, maybe of another task than the run's. Of pre-training: the share of held-out masked words that it
    finds; none where no words were learned. Of a curriculum also its policy_of(), in a table of its own: without an error, and n the
    number of episodes. ValueError where the run is not finished, or the scores are another checkpoint's."""
    if not (run / "DONE").exists():
        raise ValueError(f"{run} is not finished: run its command again")
    if scores and scores.get("checkpoint", weights := fingerprint(run / "best")) != weights:
        raise ValueError(f"the scores are of a checkpoint with weights {scores['checkpoint']}, {run} has {weights}: evaluate it again")
    config, origin, own = (read_json(run / name) for name in ("config.json", "origin.json", "scores.json"))
    pretrained = is_pretrained(run / "best")
    task = {"task": TEXT.name, "version": TEXT.version} if pretrained else read_json(run / "best" / "task.json")
    scores = scores or own
    words = of_one_seed(origin["command"], config["seed"])
    parameters = stored_parameters(run / "best" / "model.safetensors")
    source = "" if config.get("random_init") else config.get("model") or config.get("student", "")
    steps, tokens = pretraining_of(run if pretrained else Path(source).parent)
    similarity = scores.get("similarity") or config.get("similarity") or (similarity_of(origin["senses"]) if "senses" in origin else "")

    def record(key: str, value: float) -> Record:
        split, metric = key.split("/")
        return Record(
            table=table, row=row, task=scores.get("task", task["task"]), task_version=scores.get("version", task["version"]), split=split,
            metric=metric, value=value, n=scores["counts"][key], stderr=scores["errors"][key], seed=config["seed"], recipe=without(words, ["preset"])[2],
            command=portable(words), commit=origin["commit"], config=digest(config), device=origin["device"], seconds=own["seconds"],
            parameters=parameters if is_of_best(key) else None, reading=reading, stage=stage_of(run), selected_on=RunDir(run).scores().selected_on,
            evaluations=RunDir(run).evaluations(), steps=steps, tokens=tokens, similarity=similarity, data=data_of(scores if "data" in scores else origin, task["task"], split))

    found = [record(key, value) for key, value in scores["values"].items() if pretrained or not only_selects(key.split("/")[0])]
    policy = policy_of(run, task["task"]).values() if found and not reading else ()
    return [*found, *(replace(found[0], table=table + TABLES, split=SPLIT, metric=METRIC, value=value, n=LATEST, stderr=0.0, selected_on="",
                      evaluations=0, data="")
                      for value in policy)]


def data_of(notes: dict, task: str, split: str) -> str:
    """The first digits of the checksum of `split`, as origin.json or `evaluate --output` notes it; "" where they do not."""
    return (notes.get("data") or notes.get(f"data {task}") or {}).get(split.partition(",")[0], "")[:DIGITS]


def is_pretrained(folder: Path) -> bool:
    """Whether the checkpoint `folder` of a run was pre-trained: it answers no task."""
    return (folder / "config.json").is_file() and not (folder / "task.json").is_file()


def pretraining_of(run: Path) -> tuple[int, int]:
    """Steps and real tokens of the pre-training in `run`; zeros where there was none."""
    lines = [line for line in RunDir(run).logged() if "tokens" in line] if is_pretrained(run / "best") else []
    return max((line["step"] for line in lines), default=0), sum(line["tokens"] for line in lines)


def of_one_seed(words: Sequence[str], seed: int) -> list[str]:
    """A command of `train ... --seeds 0 1 2` as the command of one of its seeds."""
    words = split_words(words)
    if "--seeds" not in words:
        return words
    start = end = words.index("--seeds")
    while end + 1 < len(words) and not words[end + 1].startswith("--"):
        end += 1
    words[start:end + 1] = ["--seed", str(seed)]
    if folder := value_of(words, "output_dir"):
        words = [*without(words, ["output_dir"]), "--output_dir", str(Path(folder, f"{FOLDER}{seed}"))]
    return [word.replace(SEED, str(seed)) for word in words]


def portable(words: Sequence[str]) -> str:
    """The command as a reader would type it: absolute paths cut to their last two parts, a seed's and a checkpoint's folder not counted."""
    short = [re.sub(rf"^/.*?([^/]+/[^/]+(/{FOLDER}\d+)?(/best)?)$", r"\1", word) for word in words[1:]]
    return shlex.join(["python", "-m", "distill", *short])
