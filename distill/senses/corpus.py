"""The text whose tokens get senses: tokenised once into files, counted on the way, never whole in memory."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_utils.encode import EncodedDataset, encode_texts, sequences
from data_utils.readers import data_fingerprint, has_split, read_examples
from data_utils.tasks import TASKS, Task
from distill.progress import bar
from distill.rundir import write_json

GLUE_CORPUS = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B")  # as published: their train sets, no more

OF_TASKS = ("task", "glue")  # corpora that are train sets
ROWS = 4096  # sequences that are counted and written together


def corpus_texts(corpus: str, task: Task, data_dir: str, text_order: Sequence[int]) -> Iterator[Iterable[tuple[str, ...]]]:
    """The corpus as groups of rows with equally many texts.

    `task`: the task's train set, its texts in the order `text_order`; `glue`: the train sets of the eight GLUE tasks that data_dir holds;
    else a file: a JSON list of [text] or [text, text] (.json), or plain text, a sentence per line.
    """
    if corpus in OF_TASKS:
        yield from (task_texts(entry, "train", data_dir, text_order if entry is task else ()) for entry in corpus_tasks(corpus, task, data_dir))
    elif Path(corpus).suffix == ".json":
        yield from _json_texts(Path(corpus))
    elif Path(corpus).suffix == ".jsonl":
        raise ValueError(f"--corpus {corpus}: expected plain text with a sentence on each line, or one JSON list of texts and pairs (.json), "
                         "not JSON lines")
    else:
        yield _line_texts(Path(corpus))


def corpus_fingerprint(corpus: str, task: Task, data_dir: str) -> str:
    """sha256 (hex) of the file that corpus_texts() reads; of several, over theirs."""
    if corpus not in OF_TASKS:
        with _existing(Path(corpus)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digests = [data_fingerprint(entry, "train", data_dir) for entry in corpus_tasks(corpus, task, data_dir)]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def corpus_tasks(corpus: str, task: Task, data_dir: str) -> list[Task]:
    """Those whose train sets the corpus is, ValueError where none is there; none where it is a file."""
    if corpus != "glue":
        return [task] if corpus == "task" else []
    found = [entry for entry in TASKS if entry.name in GLUE_CORPUS and has_split(entry, "train", data_dir)]
    if not found:
        raise ValueError(f"--corpus glue: {data_dir} holds no train set of {', '.join(GLUE_CORPUS)}; fetch them: python3 "
                         f"data_utils/download_glue_data.py --data_dir {data_dir}")
    return found


def task_texts(task: Task, split: str, data_dir: str, text_order: Sequence[int] = ()) -> list[tuple[str, ...]]:
    """The texts of every sequence of a split; of a pair in `text_order`, where one is given."""
    texts = sequences(read_examples(task, split, data_dir), task.num_choices or 1)
    return [tuple(row[i] for i in text_order) for row in texts] if text_order and not task.num_choices else list(texts)


def split_tokens(task: Task, split: str, data_dir: str, tokenizer, max_length: int, text_order: Sequence[int]) -> np.ndarray:
    """The token ids of a split, read as a corpus is."""
    encoded = encode_texts(task_texts(task, split, data_dir, text_order), tokenizer, max_length)
    return np.fromiter(itertools.chain.from_iterable(ids for ids, _ in encoded), np.int32)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"no corpus {path}: give --corpus task, glue, or a text or JSON file that exists")
    if not os.access(path, os.R_OK):
        raise ValueError(f"the corpus {path} cannot be read: change its permissions, or give another --corpus")
    return path


def _line_texts(path: Path) -> Iterator[tuple[str]]:
    found = False
    with _existing(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: expected UTF-8 text, found the byte {line[error.start]:#x}") from error
            if text:
                found = True
                yield (text,)
    if not found:
        raise ValueError(f"{path} has no text: a corpus has a sentence on each line")


def _json_texts(path: Path) -> Iterator[list[tuple[str, ...]]]:
    try:
        content = json.loads(_existing(path).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON list of [text] or [text, text]: {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a JSON list of [text] or [text, text], but a {type(content).__name__}")
    rows = [(row,) if isinstance(row, str) else tuple(row) if isinstance(row, list) else () for row in content]
    for number, row in enumerate(rows):
        if len(row) not in (1, 2) or not all(isinstance(text, str) for text in row):
            raise ValueError(f"{path}: row {number}: expected [text] or [text, text], found {str(content[number])[:80]}")
    for texts in (1, 2):
        yield [row for row in rows if len(row) == texts]


def tokenise_corpus(corpus: str, task: Task, data_dir: str, tokenizer, max_length: int, vocabulary: int, folder: Path,
                    text_order: Sequence[int] = ()) -> None:
    """Write ids.bin (int32), lengths.npy, second.npy, counts.npy [vocabulary] and corpus.json into `folder`."""
    counts, lengths, second = np.zeros(vocabulary, np.int64), [], []
    checksum = hashlib.sha256()
    with (folder / "ids.bin").open("wb") as file, bar(None, "tokenise", "sequence") as progress_bar:
        for texts in corpus_texts(corpus, task, data_dir, text_order):
            encoded = encode_texts(texts, tokenizer, max_length)
            while rows := list(itertools.islice(encoded, ROWS)):
                ids = np.fromiter(itertools.chain.from_iterable(ids for ids, _ in rows), np.int32)
                file.write(ids.tobytes())
                checksum.update(ids.tobytes())
                counts += np.bincount(ids, minlength=vocabulary)
                lengths += [len(ids) for ids, _ in rows]
                second += [start for _, start in rows]
                progress_bar.update(len(rows))
    if not lengths:
        raise ValueError(f"the corpus {corpus!r} has no text in {data_dir}")
    np.save(folder / "lengths.npy", np.array(lengths, np.int32))
    np.save(folder / "second.npy", np.array(second, np.int32))
    np.save(folder / "counts.npy", counts)
    write_json(folder / "corpus.json", {"sequences": len(lengths), "tokens": int(counts.sum()),
                                        "sha256": checksum.hexdigest()})


def open_corpus(folder: Path) -> tuple[EncodedDataset, np.ndarray]:
    """What tokenise_corpus() wrote: the sequences, their ids mapped from disk, and the counts of the types."""
    lengths = np.load(folder / "lengths.npy")
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    ids = np.memmap(folder / "ids.bin", np.int32, "r")
    dataset = EncodedDataset(uid=np.arange(len(lengths)), ids=ids, offsets=offsets, second=np.load(folder / "second.npy"),
                             target=np.full(len(lengths), -1))
    return dataset, np.load(folder / "counts.npy")
