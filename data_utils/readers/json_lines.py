"""JSON lines: one record a line, which holds one row or several."""
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_utils.readers.rows import Row, download_command
from data_utils.readers.tables import read_lines
from data_utils.tasks import Split, Task


def rows(task: Task, part: Split, path: Path) -> Iterator[Row]:
    """The rows of a .jsonl file; blank lines hold none."""
    lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{path}:1: expected {task.name} {part.name}, found an empty file; "
                         f"fetch it: {download_command(task, path.parent.parent)}")
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: expected a JSON object, found {line[:80]!r} ({error})") from error
        yield from record_rows(task, part, record, f"{path}:{number}")


def record_rows(task: Task, part: Split, record: Mapping, where: str) -> Iterator[Row]:
    """The rows of one record, with every column that is read; ValueError naming `where` and what is missing."""
    aliases, needed = dict(task.aliases), [*task.columns, *([task.label_column] if part.labelled else [])]
    try:
        found = [{aliases.get(name, name): value for name, value in fields.items()} for fields in task.rows(record)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: expected a record of {task.name} as its official files have it, found {str(record)[:80]} "
                         f"({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for fields in found:
        if not set(needed) <= set(fields):
            raise ValueError(f"{where}: expected the columns {needed}, found {list(fields)}")
        yield Row(where, fields)
