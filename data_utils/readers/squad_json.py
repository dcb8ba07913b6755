"""Files in SQuAD's format: articles of paragraphs of questions, in one JSON object."""
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data_utils.readers.json_lines import record_rows
from data_utils.readers.rows import Row, download_command
from data_utils.tasks import Example, Split, Task

logger = logging.getLogger(__name__)


def rows(task: Task, part: Split, path: Path) -> Iterator[Row]:
    """The rows of a .json file, a question each."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:      # of UTF-8 as of JSON; both say where
        raise ValueError(f"{path}: expected {task.name} {part.name} as one JSON object in UTF-8 ({error}); it may be truncated, fetch "
                         f"it: {download_command(task, path.parent.parent)}") from error
    found = False
    for article, paragraph, record in _paragraphs(path, content):
        for row in record_rows(task, part, record, f"{path}: data[{article}].paragraphs[{paragraph}]"):
            found = True
            yield row
    if not found:
        raise ValueError(f"{path}: expected {task.name} {part.name}, found no question; fetch it: "
                         f"{download_command(task, path.parent.parent)}")


def _paragraphs(path: Path, content) -> Iterator[tuple[int, int, dict]]:
    """(number of the article, number of the paragraph, paragraph)."""
    place = ""
    try:
        for article, entry in enumerate(content["data"]):
            place = f"data[{article}]"
            yield from ((article, number, record) for number, record in enumerate(entry["paragraphs"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path}: expected {{"data": [{{"paragraphs": [...]}}, ...]}}, SQuAD\'s format, found another one at '
                         f"{place or 'the top'} ({type(error).__name__}: {error})") from error


def with_known_answers(task: Task, part: Split, rows: Sequence[Row], examples: list[Example]) -> list[Example]:
    """The examples, those of a copy whose answers were all taken out without any: `answers` None.

    Copies of TyDiQA's dev set are handed out so. ValueError where the task's questions all have answers and some here have none.
    """
    bare = [row for row, example in zip(rows, examples, strict=True) if not example.answers]
    if task.unanswerable or not bare or not part.labelled:
        return examples
    if len(bare) == len(examples):
        logger.warning("%s %s: every answer is empty, they were taken out of this copy: it can be answered, not scored",
                       task.name, part.name)
        return [replace(example, answers=None) for example in examples]
    raise ValueError(f"{bare[0].where}, question {bare[0].fields['id']}: expected an answer, found none or an empty one "
                     f"({len(bare)} such questions of {len(examples)}); every question of {task.name} has one, SQuAD2 is for data with "
                     "some that have none")
