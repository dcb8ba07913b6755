"""python -m distill evaluate TASK --checkpoint PATH [--senses PATH] ...: score a checkpoint, own or downloaded."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_utils.metrics import compute_metrics, selection_score
from data_utils.readers import DEFAULT_DATA_DIR
from data_utils.tasks import Task, get_task
from distill import workers
from distill.evaluate import dev_splits, judged, predict, score
from distill.rundir import write_json
from distill.scores import Predictions, Scores
from distill.senses.dictionary import SenseDictionary
from distill.submission import write_submission
from models.downloaded import open_checkpoint
from models.encoder import Encoder
from models.heads import POOLINGS, SIMILARITIES

PROBE_ROWS = 200  # dev rows on which an unknown pooling is tried
logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Score a checkpoint on the dev splits of a task, plain and, with --senses, read through its senses."""
    parser = argparse.ArgumentParser(prog="python -m distill evaluate", allow_abbrev=False)
    parser.add_argument("task")
    parser.add_argument("--checkpoint", required=True, help="run directory, checkpoint folder, .bin or .ckpt file")
    parser.add_argument("--senses", help="sense dictionary: the folder r2 made, .safetensors or .kmeanspkl")
    parser.add_argument("--similarity", choices=SIMILARITIES, help="how a state's sense is chosen, instead of as the dictionary says")
    parser.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks")
    parser.add_argument("--tokenizer", help="spm.model, or its folder, for a downloaded file that lies without one")
    parser.add_argument("--pooling", choices=POOLINGS, help="what the head reads, where the checkpoint does not say it")
    parser.add_argument("--max_length", type=int, default=0, help="tokens per example; 0: the task's own")
    parser.add_argument("--submission", help="folder for the leaderboard's files: predictions of the test splits")
    parser.add_argument("--output", help="JSON file for the scores")
    given = parser.parse_args(words)
    task = get_task(given.task)
    named = get_task(task.predicted_by or task.name)
    opened = open_checkpoint(given.checkpoint, named.name, named.version, named.texts, named.labels, given.tokenizer,
                             named.num_choices)
    encoder = opened.encoder.to(workers.device())
    if encoder.info.task != named.name:
        raise ValueError(f"{given.checkpoint} was trained on {encoder.info.task}, not on {named.name}")
    if given.pooling:
        encoder.info = replace(encoder.info, pooling=given.pooling)
    if given.similarity and not given.senses:
        raise ValueError(f"--similarity {given.similarity}: it says how --senses are read, and none are given")
    lookup = SenseDictionary.load(given.senses).lookup(workers.device(), given.similarity) if given.senses else encoder.senses
    if not task.dev_splits:
        if not given.submission:
            raise ValueError(f"{task.name} has no labelled split: give --submission FOLDER to write its predictions")
        readings = {}
    else:
        datasets = dev_splits(encoder, task, given.data_dir, given.max_length)
        if not (given.pooling or opened.pooling_known):
            encoder.info = replace(encoder.info, pooling=probe_pooling(encoder, task, next(iter(datasets.values()))))
        readings = {"continuous states": score(encoder.with_head_input("continuous"), task, datasets)}
        if lookup is not None:
            readings["chosen senses"] = score(encoder.with_head_input("senses", lookup), task, datasets)
    if workers.is_main():
        for reading, scores in readings.items():
            print(line(given.checkpoint, task, reading, scores))
        if given.output:
            write_json(Path(given.output), {reading: scores.to_json() for reading, scores in readings.items()})
    if given.submission:
        own = encoder if encoder.info.head_input == "continuous" else encoder.with_head_input("senses", lookup)
        for path in write_submission(own, task, given.data_dir, Path(given.submission), given.max_length):
            logger.info("wrote %s", path)


def line(checkpoint: str, task: Task, reading: str, scores: Scores) -> str:
    """One printed line: metric value +- bootstrap standard error in percent, and the number of examples."""
    values = "  ".join(f"{name} {100 * value:.2f} +- {100 * scores.errors[name]:.2f} (n={scores.counts[name]})"
                       for name, value in scores.values.items())
    return f"{checkpoint}  {task.name}, head reads {reading}: {values}"


def probe_pooling(encoder: Encoder, task: Task, dataset) -> str:
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
