"""Files on disk in the official layouts, or the Hugging Face Hub, -> list[Example].

    DATA/MRPC/train.tsv      a folder for the task: files are read, the network is never touched
    DATA without MRPC        the Hub, through `datasets`

A row that is not as expected raises ValueError "file:line: ...": nothing is dropped in silence.
"""
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data_utils import demo, squad
from data_utils.readers import hub, json_lines, reviews, squad_json, tables
from data_utils.readers.rows import DEFAULT_DATA_DIR, Row, download_command
from data_utils.tasks import Example, Split, Task, normalise

MAX_WORDS = 5000      # no text of a task comes near

logger = logging.getLogger(__name__)


def read_examples(task: Task, split: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> list[Example]:
    """The examples of `split` in file order, from the task's folder in `data_dir`, else from the Hub.

    The demo task is written to data_dir/demo where it is not there yet. Rows that a ragged task (QQP) leaves out are counted in a
    warning. ValueError: unknown split, data_dir or file not there, a malformed row (file:line), Hub out of reach.
    """
    part = task.split(split)
    rows = read_rows(task, split, data_dir)
    examples = [_example(task, part, uid, row) for uid, row in enumerate(rows)]
    empty = [row.where for row, example in zip(rows, examples) if not all(text.strip() for text in example.texts)]
    if empty:
        logger.warning("%s %s: kept %d rows with an empty text, the first at %s", task.name, split, len(empty), empty[0])
    if task.spans:
        return squad_json.with_known_answers(task, part, rows, examples)
    return _grouped(task, rows, examples)


def read_rows(task: Task, split: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> list[Row]:
    """What read_examples() makes its examples of, row by row."""
    part = task.split(split)
    folder = _folder_or_demo(task, data_dir)
    return list(hub.rows(task, part, data_dir) if folder is None else _rows(task, part, folder))


def find_folder(task: Task, data_dir: str | Path = DEFAULT_DATA_DIR) -> Path | None:
    """The task's folder in `data_dir` (SST-2, sst2, SST_2; AX or diagnostic), None where there is none.

    ValueError where data_dir itself is not there, unless it is the default, and where two folders fit.
    """
    root = Path(data_dir)
    if not root.is_dir():
        if root == Path(DEFAULT_DATA_DIR) and not root.exists():
            return None
        raise ValueError(f"data directory {data_dir} is not a directory; expected one that holds a folder such as {task.name}/. "
                         f"Correct the path, or fetch the data: {download_command(task, data_dir)}")
    spellings = {normalise(name) for name in (task.name, *task.folders)}
    found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".") and normalise(path.name) in spellings)
    exact = [path for path in found if path.name == task.name]
    if len(found) > 1 and not exact:
        raise ValueError(f"{data_dir}: {' and '.join(path.name for path in found)} could both be {task.name}; keep one of them")
    return (exact or found or [None])[0]


def find_file(part: Split, folder: Path) -> Path | None:
    """The file in the task's folder that holds `part`, or a folder where its name has no suffix; None where there is none."""
    paths = [folder / name for name in part.files]
    return next((path for path in paths if (path.is_file() if path.suffix else path.is_dir())), None)


def has_split(task: Task, split: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> bool:
    """Whether the task's folder in `data_dir` holds `split`."""
    folder = find_folder(task, data_dir)
    return folder is not None and bool(_files(task, task.split(split), folder))


def data_fingerprint(task: Task, split: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> str:
    """sha256 (hex) of the file that read_examples reads for `split`.

    For MRPC assembled from Microsoft's files: over their checksums and the split's name; for a folder of reviews: over their
    checksums and names; for Hub data: over the examples.
    """
    part = task.split(split)
    folder = _folder_or_demo(task, data_dir)
    if folder is None:
        digest = hashlib.sha256()
        for number, example in enumerate(read_examples(task, split, data_dir)):
            row = [example.uid, example.texts, example.answers if task.spans else example.target]
            digest.update(f"{', ' if number else '['}{json.dumps(row)}".encode())
        digest.update(b"]")
        return digest.hexdigest()
    digests = [source_fingerprint(task, path) for path in _source_files(task, part, folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join([*digests, split]).encode()).hexdigest()


def source_fingerprint(task: Task, path: Path) -> str:
    """sha256 (hex) of what find_file() found: of a file's content, of a folder of reviews as reviews.py says."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix else reviews.fingerprint(task, path)


def _folder_or_demo(task: Task, data_dir: str | Path) -> Path | None:
    folder = find_folder(task, data_dir)
    if folder is None and task.name == "demo":
        folder = Path(data_dir) / task.name
        try:
            demo.write(folder)
        except OSError as error:
            raise ValueError(f"the demo task could not be written to {folder} ({error}); point the data directory to one that "
                             f"can be written") from error
    return folder


def _files(task: Task, part: Split, folder: Path) -> list[Path]:
    """The files that hold `part`: its own, or for MRPC without it [msr_paraphrase_*.txt, ids of the dev pairs]; [] where none does."""
    path = find_file(part, folder)
    if path:
        return [path]
    if task.name == "MRPC":
        corpus = folder / f"msr_paraphrase_{'train' if part.labelled else 'test'}.txt"
        ids = [folder / name for name in ("dev_ids.tsv", "mrpc_dev_ids.tsv") if (folder / name).is_file()]
        if corpus.is_file() and not part.labelled:
            return [corpus]
        if corpus.is_file() and ids:
            return [corpus, ids[0]]
    return []


def _source_files(task: Task, part: Split, folder: Path) -> list[Path]:
    """_files(); ValueError where there are none."""
    found = _files(task, part, folder)
    if found:
        return found
    remedy = f"remove {folder} and it is written afresh" if task.name == "demo" else f"fetch it: {download_command(task, folder.parent)}"
    expected = " or ".join([str(folder / part.files[0]), *part.files[1:]])
    raise ValueError(f"{task.name} {part.name}: expected {expected}, which is not there; {remedy}")


def _rows(task: Task, part: Split, folder: Path) -> Iterator[Row]:
    """The data rows of `part`."""
    files = _source_files(task, part, folder)
    if files[0].suffix in (".json", ".jsonl"):
        yield from (json_lines if files[0].suffix == ".jsonl" else squad_json).rows(task, part, files[0])
        return
    if not files[0].suffix:
        yield from reviews.rows(task, files[0])
        return
    rows = tables.rows(task, part, files[0])
    if len(files) == 1:
        yield from rows
        return
    members = set(tables.mrpc_members(tables.read_lines(files[0]), tables.read_lines(files[1]), dev=part.name == "dev"))
    yield from (row for index, row in enumerate(rows, start=1) if index in members)      # line 0 is the header


def _example(task: Task, part: Split, uid: int, row: Row) -> Example:
    """An Example from a row's fields."""
    try:
        texts = task.form(row.fields) if task.form else tuple(row.fields[name] for name in task.texts)
        answers = squad.gold_answers(row.fields) if task.spans else None
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from error
    for name, text in zip(task.texts, texts):
        if len(text) > MAX_WORDS and len(text.split()) > MAX_WORDS:
            raise ValueError(f"{row.where}: expected at most {MAX_WORDS} words in column {name!r}, found {len(text.split())}; a line end "
                             f"is missing, or rows were joined: look at this line, or fetch the file again")
    if not part.labelled:
        return Example(uid, texts, None)      # empty test texts stay: a submission has one line per row
    for name, text in zip(task.texts, texts):
        if not text.strip() and not task.ragged:
            raise ValueError(f"{row.where}: expected a text in column {name!r}, found an empty one")
    if task.spans:
        return Example(uid, texts, None, id=row.fields["id"], answers=answers)
    label = row.fields[task.label_column]
    target = _score(task, label, row.where) if task.is_regression else _class_index(task, label, row.where)
    return Example(uid, texts, target, credit=float(row.fields["credit"]) if task.candidates else math.nan)


def _grouped(task: Task, rows: Sequence[Row], examples: list[Example]) -> list[Example]:
    """The examples with their groups, named by the first row of each."""
    if not task.group_by:
        return examples
    if task.group_by == "pairs":
        return [replace(example, group=example.uid - example.uid % 2) for example in examples]
    first: dict[str, int] = {}
    return [replace(example, group=first.setdefault(row.fields[task.group_by], example.uid)) for row, example in zip(rows, examples)]


def _class_index(task: Task, raw_label: str, where: str) -> int:
    known = (task.raw_labels, task.labels, *task.spellings)
    for spellings in known:
        if raw_label in spellings:
            return spellings.index(raw_label)
    raise ValueError(f"{where}: expected a label among {', '.join(dict.fromkeys(name for names in known for name in names))}, found "
                     f"{raw_label!r}")


def _score(task: Task, raw_label: str, where: str) -> float:
    low, high = task.score_range
    try:
        score = float(raw_label)
    except ValueError:
        score = math.nan
    if not low <= score <= high:      # also true of nan
        raise ValueError(f"{where}: expected a score from {low:g} to {high:g}, found {raw_label!r}")
    return score
