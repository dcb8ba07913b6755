"""Splits from the Hugging Face Hub, labels mapped by name."""
import os
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from data_utils.readers.json_lines import record_rows
from data_utils.readers.rows import Row, download_command
from data_utils.tasks import Split, Task

DATASETS = {"glue": "nyu-mll/glue", "superglue": "aps/super_glue", "squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2",
            "imdb": "stanfordnlp/imdb"}
PATIENCE_SECONDS = 5.0


def rows(task: Task, part: Split, data_dir: str | Path) -> Iterator[Row]:
    """The rows of a split; `data_dir` is where the task was looked for before."""
    dataset = _load(task, part, data_dir)
    where = f"{DATASETS[task.suite]}/{task.hub_config} {part.hub}"
    needed = [*task.hub_texts, *(["label"] if _labelled_by_name(task, part) else [])]
    if not set(needed) <= set(dataset.column_names):
        raise ValueError(f"{where}: expected the columns {needed}, found {dataset.column_names}")
    names = _class_names(task, part, dataset, where)
    official = dict(zip(task.hub_texts, task.texts))
    for uid, record in enumerate(dataset.to_list()):  # thirty times as fast as row by row
        label = record.pop("label", None)      # the Hub's MRPC test carries true labels: they are not read
        fields = {official.get(name, name): value for name, value in record.items()}
        if part.labelled and label is not None:
            # -1 is the Hub's mark for "not labelled"; as an index it would name the last class.
            fields[task.label_column] = names[label] if names and 0 <= label < len(names) else str(label)
        yield from record_rows(task, part, fields, f"{where} row {uid}")


def _labelled_by_name(task: Task, part: Split) -> bool:
    """Whether the Hub has the labels in a column; of ReCoRD and SQuAD it has the answers instead."""
    return part.labelled and not task.candidates and not task.spans


def _class_names(task: Task, part: Split, dataset, where: str) -> list[str] | None:
    if task.is_regression or not _labelled_by_name(task, part):
        return None
    names = getattr(dataset.features["label"], "names", None)
    if names is None:
        raise ValueError(f"{where}: expected a column 'label' with class names (ClassLabel), found {dataset.features['label']}")
    return names


def _load(task: Task, part: Split, data_dir: str | Path):
    """The datasets.Dataset of a split; within seconds a ValueError that says what to do where it cannot be had."""
    if not task.suite:
        raise ValueError(f"{task.name} {part.name}: looked for {task.name} in {data_dir} (no such folder), and the Hub has no copy of it; "
                         f"{download_command(task, data_dir)}; or point to a copy: DATA=/path before a script, --data_dir after python")
    source = DATASETS[task.suite]
    ways_on = (f"looked for {task.name} in {data_dir} (no such folder) and on the Hub ({source}, {task.hub_config}). Either fetch it: "
               f"{download_command(task, data_dir)}; or point to a copy: DATA=/path/to/glue before a script, --data_dir after python")
    if not reachable():
        raise ValueError(f"{task.name} {part.name}: the Hub cannot be reached; {ways_on}. HF_HUB_OFFLINE=1 reads the cache of `datasets`")
    import datasets
    try:
        return datasets.load_dataset(source, task.hub_config, split=part.hub)
    except Exception as error:      # datasets, huggingface_hub and their HTTP client raise some twenty types here
        first_line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{task.name} {part.name}: the Hub gave no data ({type(error).__name__}: {first_line}); {ways_on}") from error


def reachable() -> bool:
    """Whether it is worth asking `datasets`: it was told to read its cache alone, or the Hub answers."""
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    return offline or answers()


def answers() -> bool:
    """Whether the Hub (or the proxy before it) accepts a connection. `datasets` alone retries for minutes where nothing answers."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    url = urllib.parse.urlsplit((proxy if "://" in proxy else f"http://{proxy}") if proxy else endpoint)  # as huggingface_hub reads them
    answered = threading.Event()

    def probe() -> None:
        try:
            port = url.port or (80 if url.scheme == "http" else 443)
            with socket.create_connection((url.hostname or "", port), timeout=PATIENCE_SECONDS):
                answered.set()
        except (OSError, ValueError):
            pass

    # In a thread, because a name server that is down ignores the timeout of the connection.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return answered.is_set()
