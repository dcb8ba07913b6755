"""Checkpoints that somebody else made: opened for a task, and what their heads read, where they do not say it."""

import logging
from dataclasses import replace

import numpy as np

from data_utils.encode import EncodedDataset
from data_utils.metrics import compute_metrics, selection_score
from data_utils.tasks import Task, get_task
from distill.evaluate import predict
from distill.judging import judged
from distill.scores import Predictions
from models.downloaded import Opened, open_checkpoint
from models.encoder import Encoder

PROBE_ROWS = 200  # dev rows on which an unknown pooling is tried
logger = logging.getLogger(__name__)


def open_for(checkpoint: str, task: Task, tokenizer: str | None = None, pooling: str | None = None) -> Opened:
    """The checkpoint, own or downloaded, that answers `task` (models/downloaded.py), with this `pooling` where one is given. ValueError
    where it was trained on another, or answers in a text are given a pooling."""
    if task.spans and pooling:
        raise ValueError(f"--pooling {pooling}: answers to {task.name} are read at every token; leave it out")
    named = get_task(task.predicted_by or task.name)
    opened = open_checkpoint(checkpoint, named.name, named.version, named.texts, named.labels, tokenizer, named.num_choices, named.spans)
    encoder = opened.encoder
    if encoder.info.task != named.name and not (named.spans and encoder.info.spans):  # any of them answers the others' questions
        raise ValueError(f"{checkpoint} was trained on {encoder.info.task}, not on {named.name}")
    if not pooling:
        return opened
    encoder.info = replace(encoder.info, pooling=pooling)
    return replace(opened, pooling_known=True)


def probe_pooling(encoder: Encoder, task: Task, dataset: EncodedDataset) -> str:
    """The pooling of a checkpoint that does not say it: its format's convention (cls for transformers' folders,
    first_token for published files), unless the other one is clearly better on some dev rows.

    Clearly: by more than two standard errors of the difference, over PROBE_ROWS rows.
    """
    count = min(PROBE_ROWS, len(dataset))
    rows = np.arange(count) * len(dataset) // count  # from all over the split: some are sorted by class
    few = dataset.take(rows)
    found = {}
    for pooling in ("cls", "first_token"):
        tried = encoder.with_head_input("continuous")
        tried.info = replace(tried.info, pooling=pooling)
        found[pooling] = judged(predict(tried, few), encoder.info.labels, few, task)
    usual = encoder.info.pooling
    other = next(pooling for pooling in found if pooling != usual)
    scores = {pooling: selection_score(compute_metrics(task.metrics, answers.predicted, answers.target, answers.group))
              for pooling, answers in found.items()}
    errors = {pooling: row_errors(answers, task) for pooling, answers in found.items()}
    gain = errors[usual] - errors[other]
    clear = gain.mean() > 2 * gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else False
    chosen = other if clear else usual
    logger.warning("the checkpoint does not say what its head reads; on %d dev rows cls scores %.1f, first_token %.1f: "
                   "taking %s%s (--pooling overrides)", len(rows), 100 * scores["cls"], 100 * scores["first_token"],
                   chosen, ", against the format's convention" if clear else "")
    return chosen


def row_errors(answers: Predictions, task: Task) -> np.ndarray:
    """How wrong each row is: 0 or 1 for classes, the squared difference for scores."""
    if task.is_regression:
        return (answers.predicted - answers.target) ** 2
    return (answers.predicted != answers.target).astype(float)
