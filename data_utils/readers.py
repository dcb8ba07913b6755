"""Files on disk in the official GLUE layout, or the Hugging Face Hub, -> list[Example].

    DATA/MRPC/train.tsv      a folder for the task: files are read, the network is never touched
    DATA without MRPC        the Hub, through `datasets`

The official files are plain tab-separated lines: a quotation mark is a character like any other, so the csv module's quoting, which
silently merges rows, is not used. Columns are found by header name. A row that is not as expected raises ValueError "file:line: ...":
nothing is dropped in silence.
"""
import hashlib
import json
import logging
import math
import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Iterator, NamedTuple

from data_utils import demo
from data_utils.tasks import Example, Split, Task, normalise

DEFAULT_DATA_DIR = "./glue"
HUB_DATASET = "nyu-mll/glue"
HUB_PATIENCE_SECONDS = 5.0
MAX_WORDS = 5000      # no text of a task comes near

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """One data row: where it stands ("file:line") and its fields by official column name."""
    where: str
    fields: dict[str, str]


def read_examples(task: Task, split: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> list[Example]:
    """The examples of `split` in file order, from the task's folder in `data_dir`, else from the Hub.

    The demo task is written to data_dir/demo where it is not there yet. Rows that a ragged task (QQP) leaves out are counted in a
    warning. ValueError: unknown split, data_dir or file not there, a malformed row (file:line), Hub out of reach.
    """
    part = task.split(split)
    folder = _folder_or_demo(task, data_dir)
    if folder is None:
        return _read_hub(task, part, data_dir)
    examples, empty, first_empty = [], 0, ""
    for row in _rows(task, part, folder):
        example = _example(task, part, len(examples), tuple(row.fields[name] for name in task.texts),
                           row.fields.get(task.label_column), row.where)
        if any(not text.strip() for text in example.texts):
            empty, first_empty = empty + 1, first_empty or row.where
        examples.append(example)
    if empty:
        logger.warning("%s %s: kept %d rows with an empty text, the first at %s", task.name, split, empty, first_empty)
    return examples


def find_folder(task: Task, data_dir: str | Path = DEFAULT_DATA_DIR) -> Path | None:
    """The task's folder in `data_dir` (SST-2, sst2, SST_2; AX or diagnostic), None where there is none.

    ValueError where data_dir itself is not there, unless it is the default, and where two folders fit.
    """
    root = Path(data_dir)
    if not root.is_dir():
        if root == Path(DEFAULT_DATA_DIR) and not root.exists():
            return None
        raise ValueError(f"data directory {data_dir} is not a directory; expected one that holds a folder such as {task.name}/. "
                         f"Correct the path, or fetch the data: {_download_command(task, data_dir)}")
    spellings = {normalise(name) for name in (task.name, *task.folders)}
    found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".") and normalise(path.name) in spellings)
    exact = [path for path in found if path.name == task.name]
    if len(found) > 1 and not exact:
        raise ValueError(f"{data_dir}: {' and '.join(path.name for path in found)} could both be {task.name}; keep one of them")
    return (exact or found or [None])[0]


def data_fingerprint(task: Task, split: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> str:
    """sha256 (hex) of the file that read_examples reads for `split`.

    For MRPC assembled from Microsoft's files: over their checksums and the split's name; for Hub data: over the examples.
    """
    part = task.split(split)
    folder = _folder_or_demo(task, data_dir)
    if folder is None:
        examples = [[example.uid, example.texts, example.target] for example in _read_hub(task, part, data_dir)]
        return hashlib.sha256(json.dumps(examples).encode()).hexdigest()
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in _source_files(task, part, folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join([*digests, split]).encode()).hexdigest()


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


def _source_files(task: Task, part: Split, folder: Path) -> list[Path]:
    """The files that hold `part`: its own, or for MRPC without it [msr_paraphrase_*.txt, ids of the dev pairs]."""
    path = folder / part.file
    if path.is_file():
        return [path]
    if task.name == "MRPC":
        corpus = folder / f"msr_paraphrase_{'train' if part.labelled else 'test'}.txt"
        ids = [folder / name for name in ("dev_ids.tsv", "mrpc_dev_ids.tsv") if (folder / name).is_file()]
        if corpus.is_file() and not part.labelled:
            return [corpus]
        if corpus.is_file() and ids:
            return [corpus, ids[0]]
    remedy = f"remove {folder} and it is written afresh" if task.name == "demo" else f"fetch it: {_download_command(task, folder.parent)}"
    raise ValueError(f"{task.name} {part.name}: expected {path}, which is not there; {remedy}")


def _download_command(task: Task, data_dir: str | Path) -> str:
    where = "" if Path(data_dir) == Path(DEFAULT_DATA_DIR) else f" --data_dir {data_dir}"
    return f"python3 data_utils/download_glue_data.py{where} --tasks {task.name}"


def _rows(task: Task, part: Split, folder: Path) -> Iterator[Row]:
    """The data rows of `part`."""
    files = _source_files(task, part, folder)
    rows = _table(task, part, files[0])
    if len(files) == 1:
        yield from rows
        return
    members = set(mrpc_members(read_lines(files[0]), read_lines(files[1]), dev=part.name == "dev"))
    yield from (row for index, row in enumerate(rows, start=1) if index in members)      # line 0 is the header


def mrpc_members(corpus: list[str], dev_ids: list[str], dev: bool) -> list[int]:
    """Indices of the lines of Microsoft's corpus (header first, 4076 pairs) that are GLUE's dev set, or, with dev=False, its train set.

    ValueError where a dev id is not in the corpus.
    """
    dev_pairs = {tuple(line.split("\t")[:2]) for line in dev_ids}
    pairs = [tuple(line.split("\t")[1:3]) for line in corpus]
    absent = dev_pairs.difference(pairs)
    if absent:
        raise ValueError(f"MRPC: {len(absent)} of the {len(dev_pairs)} dev pairs, e.g. {sorted(absent)[0]}, are not in the corpus of "
                         f"{len(corpus) - 1} pairs; expected the complete msr_paraphrase_train.txt of 4076 pairs, ids in columns 2 and 3")
    return [index for index, pair in enumerate(pairs) if index > 0 and (pair in dev_pairs) == dev]


def _table(task: Task, part: Split, path: Path) -> Iterator[Row]:
    """The rows of a TSV file; short rows of a ragged task are left out, counted and said."""
    lines = read_lines(path)
    if not lines:
        raise ValueError(f"{path}:1: expected {task.name} {part.name}, found an empty file; "
                         f"fetch it: {_download_command(task, path.parent.parent)}")
    needed = [*task.texts, *([task.label_column] if part.labelled else [])]
    aliases = dict(task.aliases)
    names = [aliases.get(name.strip(), name.strip()) for name in lines[0].split("\t")]
    first = 1
    if not set(needed) <= set(names):
        if not part.columns:
            raise ValueError(f"{path}:1: expected a header with the columns {needed}, found {names}")
        names, first = list(part.columns), 0
    if len(lines) == first:
        raise ValueError(f"{path}:1: expected rows below the header, found none; the file is incomplete")
    short = []
    for number, line in enumerate(lines[first:], start=first + 1):
        fields = line.split("\t")
        if len(fields) < len(names) and task.ragged and part.labelled:
            short.append(number)
        elif len(fields) != len(names):
            raise ValueError(f"{path}:{number}: expected {len(names)} tab-separated fields {names}, found {len(fields)}: {line[:80]!r}")
        else:
            yield Row(f"{path}:{number}", dict(zip(names, fields)))
    if short:
        logger.warning("%s: left out %d rows with fewer than %d fields, the first in line %d", path, len(short), len(names), short[0])


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends and without a byte-order mark; ValueError "file:line" for other bytes.

    Only \\n and \\r\\n end a line: str.splitlines would also cut at U+2028, which occurs in texts.
    """
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ValueError(f"{path}:{line}: expected UTF-8, found byte 0x{data[error.start]:02x} at position {column} of the line; "
                         f"convert the file to UTF-8") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _example(task: Task, part: Split, uid: int, texts: tuple[str, ...], raw_label: str | float | None, where: str) -> Example:
    """An Example from the texts and the label as the source spells it; `where` names the row in errors."""
    for name, text in zip(task.texts, texts):
        if len(text) > MAX_WORDS and len(text.split()) > MAX_WORDS:
            raise ValueError(f"{where}: expected at most {MAX_WORDS} words in column {name!r}, found {len(text.split())}; a line end is "
                             f"missing, or rows were joined: look at this line, or fetch the file again")
    if not part.labelled:
        return Example(uid, texts, None)      # empty test texts stay: a submission has one line per row
    for name, text in zip(task.texts, texts):
        if not text.strip() and not task.ragged:
            raise ValueError(f"{where}: expected a text in column {name!r}, found an empty one")
    return Example(uid, texts, _score(task, raw_label, where) if task.is_regression else _class_index(task, raw_label, where))


def _class_index(task: Task, raw_label: str, where: str) -> int:
    for spellings in (task.raw_labels, task.labels):
        if raw_label in spellings:
            return spellings.index(raw_label)
    raise ValueError(f"{where}: expected a label among {', '.join(dict.fromkeys([*task.raw_labels, *task.labels]))}, found {raw_label!r}")


def _score(task: Task, raw_label: str | float, where: str) -> float:
    low, high = task.score_range
    try:
        score = float(raw_label)
    except ValueError:
        score = math.nan
    if not low <= score <= high:      # also true of nan
        raise ValueError(f"{where}: expected a score from {low:g} to {high:g}, found {raw_label!r}")
    return score


def _read_hub(task: Task, part: Split, data_dir: str | Path) -> list[Example]:
    """The examples of a split of nyu-mll/glue, labels mapped by name."""
    dataset = _load_hub(task, part, data_dir)
    where = f"{HUB_DATASET}/{task.hub_config} {part.hub}"
    needed = [*task.hub_texts, *(["label"] if part.labelled else [])]
    if not set(needed) <= set(dataset.column_names):
        raise ValueError(f"{where}: expected the columns {needed}, found {dataset.column_names}")
    labels: list = list(dataset["label"]) if part.labelled else [None] * len(dataset)      # the Hub's MRPC test carries true labels
    if part.labelled and not task.is_regression:
        names = getattr(dataset.features["label"], "names", None)
        if names is None:
            raise ValueError(f"{where}: expected a column 'label' with class names (ClassLabel), found {dataset.features['label']}")
        # -1 is the Hub's mark for "not labelled"; as an index it would name the last class.
        labels = [names[label] if 0 <= label < len(names) else str(label) for label in labels]
    texts = zip(*(list(dataset[name]) for name in task.hub_texts))
    return [_example(task, part, uid, row, label, f"{where} row {uid}") for uid, (row, label) in enumerate(zip(texts, labels))]


def _load_hub(task: Task, part: Split, data_dir: str | Path):
    """The datasets.Dataset of a split; within seconds a ValueError that says what to do where it cannot be had."""
    ways_on = (f"looked for {task.name} in {data_dir} (no such folder) and on the Hub ({HUB_DATASET}, {task.hub_config}). Either fetch it: "
               f"{_download_command(task, data_dir)}; or point to a copy: DATA=/path/to/glue before a script, --data_dir after python")
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    if not offline and not _hub_answers():
        raise ValueError(f"{task.name} {part.name}: the Hub cannot be reached; {ways_on}. HF_HUB_OFFLINE=1 reads the cache of `datasets`")
    import datasets
    try:
        return datasets.load_dataset(HUB_DATASET, task.hub_config, split=part.hub)
    except Exception as error:      # datasets, huggingface_hub and their HTTP client raise some twenty types here
        first_line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{task.name} {part.name}: the Hub gave no data ({type(error).__name__}: {first_line}); {ways_on}") from error


def _hub_answers() -> bool:
    """Whether the Hub (or the proxy before it) accepts a connection. `datasets` alone retries for minutes where nothing answers."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    url = urllib.parse.urlsplit(urllib.request.getproxies().get("https") or endpoint)
    answered = threading.Event()

    def probe() -> None:
        try:
            port = url.port or (80 if url.scheme == "http" else 443)
            with socket.create_connection((url.hostname or "", port), timeout=HUB_PATIENCE_SECONDS):
                answered.set()
        except (OSError, ValueError):
            pass

    # In a thread, because a name server that is down ignores the timeout of the connection.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE_SECONDS)
    return answered.is_set()
