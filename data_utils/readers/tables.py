"""Tab-separated tables.

The official files are plain lines: a quotation mark is a character like any other, so the csv module's quoting, which silently merges
rows, is not used. Columns are found by header name.
"""
import logging
from collections.abc import Iterator
from pathlib import Path

from data_utils.readers.rows import Row, download_command
from data_utils.tasks import Split, Task

INDEX = "idx"  # the column of a row's number, for a submission
logger = logging.getLogger(__name__)


def rows(task: Task, part: Split, path: Path) -> Iterator[Row]:
    """The rows of a TSV file; short rows of a ragged task are left out, counted and said."""
    lines = read_lines(path)
    if not lines:
        raise ValueError(f"{path}:1: expected {task.name} {part.name}, found an empty file; "
                         f"fetch it: {download_command(task, path.parent.parent)}")
    needed = [*task.columns, *([task.label_column] if part.labelled else [])]
    aliases = dict(task.aliases)
    names = [aliases.get(name.strip(), name.strip()) for name in lines[0].split("\t")]
    first = 1
    if not set(needed) <= set(names):
        if not part.columns:
            raise ValueError(f"{path}:1: expected a header with the columns {needed}, found {names}")
        names, first = list(part.columns), 0
    if len(lines) == first:
        raise ValueError(f"{path}:1: expected rows below the header, found none; the file is incomplete")
    kept, short = {*needed, INDEX}, []  # MNLI has parses beside its texts
    for number, line in enumerate(lines[first:], start=first + 1):
        fields = line.split("\t")
        if len(fields) < len(names) and task.ragged and part.labelled:
            short.append(number)
        elif len(fields) != len(names):
            raise ValueError(f"{path}:{number}: expected {len(names)} tab-separated fields {names}, found {len(fields)}: {line[:80]!r}")
        else:
            yield Row(f"{path}:{number}", {name: field for name, field in zip(names, fields) if name in kept})
    if short:
        logger.warning("%s: left out %d rows with fewer than %d fields, the first in line %d", path, len(short), len(names), short[0])


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends and without a byte-order mark; ValueError "file:line" for other bytes.

    Only \\n and \\r\\n end a line: str.splitlines would also cut at U+2028, which occurs in texts.
    """
    lines = read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_text(path: Path) -> str:
    """The content of a UTF-8 file without a byte-order mark; ValueError "file:line" for other bytes."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ValueError(f"{path}:{line}: expected UTF-8, found byte 0x{data[error.start]:02x} at position {column} of the line; "
                         f"convert the file to UTF-8") from error


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
