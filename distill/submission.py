"""Submission files: predictions of the unlabelled test splits in the leaderboard's format."""

from pathlib import Path

import numpy as np

from data_utils.tasks import Task
from distill import workers
from distill.evaluate import encode_split, predict, predictions
from distill.rundir import write_text
from models.encoder import Encoder


def write_submission(encoder: Encoder, task: Task, data_dir: str, folder: Path, max_length: int = 0) -> list[Path]:
    """Predict every test split of `task` and write `index<TAB>prediction` files into `folder` (rank 0 alone);
    returns their paths."""
    written = []
    for split in task.test_splits:
        dataset = encode_split(encoder, task, split, data_dir, max_length)
        predicted = predictions(predict(encoder, dataset), encoder.info.labels, task)
        if workers.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / task.split(split).submission, submission_text(task, predicted))
            written.append(folder / task.split(split).submission)
    return written


def submission_text(task: Task, predicted: np.ndarray) -> str:
    """The file's content: class names as the leaderboard spells them, scores with 3 decimals inside the legal range."""
    if task.is_regression:
        values = [f"{value:.3f}" for value in np.clip(predicted, *task.score_range)]
    else:
        values = [task.raw_labels[index] for index in predicted]
    return "index\tprediction\n" + "".join(f"{index}\t{value}\n" for index, value in enumerate(values))
