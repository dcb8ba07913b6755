"""Submission files: the leaderboards' formats, and whether a file is in its format.

    GLUE, .tsv          index<TAB>prediction under a header, scores with three decimals
    SuperGLUE, .jsonl   {"idx": 0, "label": "true"}, one object a row; ReCoRD one a query, its label the chosen entity's text;
                        MultiRC one a paragraph: {"idx": 0, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 1}]}]}}
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_utils.readers import read_rows
from data_utils.readers.rows import Row
from data_utils.readers.tables import read_lines
from data_utils.tasks import Task

MULTIRC_INDEX = ("paragraph_idx", "question_idx", "answer_idx")
Index = tuple[int, ...]  # (row,), (query,) or (paragraph, question, answer)


class Answer(NamedTuple):
    """One answer in a submission: what it answers, the label, and where it stands."""

    index: Index
    label: str | int
    where: str


def table_text(task: Task, predicted: np.ndarray) -> str:
    """A GLUE file's content: class names as the leaderboard spells them, scores with 3 decimals inside the legal range."""
    if task.is_regression:
        values = [f"{value:.3f}" for value in np.clip(predicted, *task.score_range)]
    else:
        values = [task.raw_labels[index] for index in predicted]
    return "index\tprediction\n" + "".join(f"{index}\t{value}\n" for index, value in enumerate(values))


def records_text(task: Task, rows: Sequence[Row], predicted: np.ndarray) -> str:
    """A SuperGLUE file's content for the rows of a split and their classes; of candidates, those of class 1 are chosen."""
    found = zip(_indices(task, rows), rows, predicted, strict=True)
    if task.candidates:
        records = [{"idx": index[0], "label": row.fields["entity"]} for index, row, chosen in found if chosen]
    elif len(_index_fields(task)) == 3:
        records = list(_nested([(index, spelled(task, value)) for index, _, value in found]))
    else:
        records = [{"idx": index[0], "label": spelled(task, value)} for index, _, value in found]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def check_submission(task: Task, path: Path, data_dir: str) -> int:
    """How many answers the submission file `path` holds, all of them in their format: one to everything that the test split
    in `data_dir` asks, in its order.

    ValueError naming the line and what was expected there.
    """
    split = next((split for split in task.splits if path.name in split.submissions), None)
    if split is None:
        names = [name for split in task.splits for name in split.submissions]
        raise ValueError(f"{path}: expected a file called {' or '.join(names) or '(no leaderboard takes the task)'}")
    table = path.suffix == ".tsv"
    asked = _asked(task, read_rows(task, split.name, data_dir), table)
    answers = list(_table_answers(path) if table else _record_answers(task, path))
    if len(answers) != len(asked):
        raise ValueError(f"{path}: expected {len(asked)} answers, one to each of {task.name} {split.name}, found {len(answers)}")
    for answer, (index, legal) in zip(answers, asked, strict=True):
        if repr(answer.index) != repr(index):  # true is not 1, nor is 1.0
            raise ValueError(f"{answer.where}: expected the answer to {_said(index)}, found that to {_said(answer.index)}")
        if task.is_regression:
            _check_score(task, answer)
        elif repr(answer.label) not in map(repr, legal):
            raise ValueError(f"{answer.where}: expected a label among {', '.join(map(repr, legal))}, found {answer.label!r}")
    return len(answers)


def _asked(task: Task, rows: Sequence[Row], table: bool) -> list[tuple[Index, tuple[str | int, ...]]]:
    """What a submission answers, in order, and the legal labels of each."""
    if not task.candidates:
        legal = task.raw_labels if table else tuple(spelled(task, index) for index in range(task.num_labels))
        return [(index, legal) for index in _indices(task, rows)]
    entities: dict[Index, tuple[str, ...]] = {}
    for index, row in zip(_indices(task, rows), rows, strict=True):
        entities[index] = (*entities.get(index, ()), row.fields["entity"])
    return list(entities.items())


def _index_fields(task: Task) -> tuple[str, ...]:
    """The columns that say what a row answers."""
    return MULTIRC_INDEX if set(MULTIRC_INDEX) <= set(task.fields) else ("query_idx",) if task.candidates else ("idx",)


def _indices(task: Task, rows: Sequence[Row]) -> list[Index]:
    """The official index of every row; its number where the file has none."""
    return [tuple(int(row.fields.get(name, number)) for name in _index_fields(task)) for number, row in enumerate(rows)]


def spelled(task: Task, index: int) -> str | int:
    """A class as SuperGLUE's files spell it: words as strings, 0 and 1 as numbers."""
    label = (task.submitted_labels or task.raw_labels)[index]
    return int(label) if label.isdigit() else label


def _nested(answers: Sequence[tuple[Index, str | int]]) -> Iterator[dict]:
    """The answers to all questions of each paragraph, as one record."""
    paragraphs: dict[int, dict[int, list[dict]]] = {}
    for (paragraph, question, answer), label in answers:
        paragraphs.setdefault(paragraph, {}).setdefault(question, []).append({"idx": answer, "label": label})
    for paragraph, questions in paragraphs.items():
        yield {"idx": paragraph, "passage": {"questions": [{"idx": index, "answers": found} for index, found in questions.items()]}}


def _table_answers(path: Path) -> Iterator[Answer]:
    lines = read_lines(path)
    if not lines or lines[0] != "index\tprediction":
        raise ValueError(f"{path}:1: expected the header 'index<TAB>prediction', found {lines[0][:80] if lines else 'an empty file'!r}")
    for number, line in enumerate(lines[1:], start=2):
        index, tab, label = line.partition("\t")
        if not tab or not index.isdigit():
            raise ValueError(f"{path}:{number}: expected a row number, a tab and a label, found {line[:80]!r}")
        yield Answer((int(index),), label, f"{path}:{number}")


def _record_answers(task: Task, path: Path) -> Iterator[Answer]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
            if len(_index_fields(task)) == 3:
                found = [((record["idx"], question["idx"], answer["idx"]), answer["label"])
                         for question in record["passage"]["questions"] for answer in question["answers"]]
            else:
                found = [((record["idx"],), record["label"])]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where}: expected a record as {task.name}'s leaderboard takes it, found {line[:80]!r} "
                             f"({type(error).__name__}: {error})") from error
        yield from (Answer(index, label, where) for index, label in found)


def _check_score(task: Task, answer: Answer) -> None:
    low, high = task.score_range
    try:
        legal = low <= float(answer.label) <= high
    except ValueError:
        legal = False
    if not legal:
        raise ValueError(f"{answer.where}: expected a score from {low:g} to {high:g}, found {answer.label!r}")


def _said(index: Index) -> str:
    return ", ".join(map(str, index))
