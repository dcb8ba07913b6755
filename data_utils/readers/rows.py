"""Rows: what every source of a split comes down to."""
from pathlib import Path
from typing import NamedTuple

from data_utils.tasks import Task

DEFAULT_DATA_DIR = "./glue"


class Row(NamedTuple):
    """One data row: where it stands ("file:line") and its fields by official column name."""
    where: str
    fields: dict[str, str]


def download_command(task: Task, data_dir: str | Path) -> str:
    """The command that fetches the task into `data_dir`; what to do by hand where nobody hosts it by itself."""
    if not task.suite:
        return f"put {' and '.join(split.files[0] for split in task.splits)} into {Path(data_dir) / task.name}"
    where = "" if Path(data_dir) == Path(DEFAULT_DATA_DIR) else f" --data_dir {data_dir}"
    return f"python3 data_utils/download_glue_data.py{where} --tasks {task.name}"
