"""Submissions: predictions of the test splits, as files that the leaderboards take (data_utils/submission.py)."""

from pathlib import Path

import numpy as np

from data_utils.readers import read_rows
from data_utils.submission import records_text, table_text
from data_utils.tasks import Task
from distill import workers
from distill.evaluate import encode_split, predict
from distill.judging import chosen_rows, predictions
from distill.rundir import write_text
from models.encoder import Encoder


def write_submission(encoder: Encoder, task: Task, data_dir: str, folder: Path, max_length: int = 0) -> list[Path]:
    """Predict every test split of `task` and write its files into `folder` (rank 0 alone); returns their paths.

    ValueError for a task that no leaderboard takes.
    """
    if not task.test_splits:
        raise ValueError(f"no leaderboard takes {task.name}: it has no submission file")
    written = []
    for split in map(task.split, task.test_splits):
        dataset = encode_split(encoder, task, split.name, data_dir, max_length)
        logits = predict(encoder, dataset)
        if task.candidates:
            predicted = np.zeros(len(dataset), np.int64)
            predicted[chosen_rows(logits, encoder.info.labels, dataset.group, task)] = 1
        else:
            predicted = predictions(logits, encoder.info.labels, task)
        if workers.is_main():
            rows = read_rows(task, split.name, data_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for path in (folder / name for name in split.submissions):
                write_text(path, table_text(task, predicted) if path.suffix == ".tsv" else records_text(task, rows, predicted))
                written.append(path)
    return written
