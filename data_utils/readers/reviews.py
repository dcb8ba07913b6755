"""Reviews as aclImdb has them once it is unpacked: a folder for each class, a file for each review.

    train/neg/127_4.txt      number 127 of its class, rated 4 of 10; a document, whatever lines it has

Rows are in the order of the classes (neg, then pos) and in each by that number, whatever order the file system has. What else lies
beside the folders of the classes (unsup, *.feat) is no part of the task.
"""
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from data_utils.readers.rows import Row, download_command
from data_utils.readers.tables import read_text
from data_utils.tasks import Task

NAME = re.compile(r"(\d+)_\d+\.txt")


def rows(task: Task, folder: Path) -> Iterator[Row]:
    """The rows of the folder of a split; `where` is the file. ValueError for what is not as described above."""
    (column,) = task.columns
    for label, path in _files(task, folder):
        yield Row(str(path), {column: read_text(path), task.label_column: label})


def fingerprint(task: Task, folder: Path) -> str:
    """sha256 (hex) of what `sha256sum CLASS/FILE ...` prints of the files in the order of the rows."""
    digest = hashlib.sha256()
    for label, path in _files(task, folder):
        digest.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {label}/{path.name}\n".encode())
    return digest.hexdigest()


def _files(task: Task, folder: Path) -> Iterator[tuple[str, Path]]:
    """(class, file) of every review."""
    remedy = f"fetch it: {download_command(task, folder.parent.parent)}"
    for label in task.raw_labels:
        place = folder / label
        names = [path.name for path in place.iterdir()] if place.is_dir() else []
        if not names:
            raise ValueError(f"{place}: expected a folder with the reviews of the class {label!r}, found "
                             f"{'an empty one' if place.is_dir() else 'none'}; the data is incomplete: {remedy}")
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(f"{place / name}: expected only reviews, named NUMBER_RATING.txt; remove other files, or {remedy}")
        for name in sorted(names, key=lambda name: (int(NAME.fullmatch(name)[1]), name)):
            yield label, place / name
