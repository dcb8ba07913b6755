"""Rounds of the real engine: a few steps of fit(), as recipes call it, counted by its own log."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence

from data_utils.batching import BatchStream
from data_utils.encode import EncodedDataset
from distill.config import TrainConfig
from distill.engine import fit
from distill.objective import Objective
from distill.rundir import RunDir
from distill.vocabulary import held_vocabulary
from models.trunk import Trunk

SKIPPED = 1  # steps at the start of a round that are not counted


def engine_round(student: Trunk, objective: Objective, stream: BatchStream, steps: int, datasets: Sequence[EncodedDataset] = (),
                 **settings) -> tuple[list, list]:
    """Train `steps` steps from where `stream` stands. Returns the real tokens and the seconds of each counted step."""
    tokens, before = [], stream.state_dict()
    for _ in range(steps):
        tokens.append(stream.next().tokens)
    stream.load_state_dict(before)
    log = logged(student, objective, stream, steps, datasets, **settings)
    ends = [line["seconds"] for line in log]
    return tokens[SKIPPED:], [end - start for start, end in zip(ends[SKIPPED - 1:], ends[SKIPPED:])]


def logged(student: Trunk, objective: Objective, stream: BatchStream, steps: int, datasets: Sequence[EncodedDataset] = (),
           **settings) -> list[dict]:
    """The log of `steps` steps of fit(), a line per step. `datasets`: all that the stream reads, where the vocabulary is trimmed to it."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir(folder)
        cfg = TrainConfig(max_steps=steps, logging_steps=1, trim_vocabulary=bool(datasets), **settings)
        with quiet(), held_vocabulary(cfg, student, *datasets):
            fit(student, objective, stream, cfg, run_dir)
        return [json.loads(line) for line in run_dir.log_file.read_text().splitlines()]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what a run tells its user: rounds are many, and their losses mean nothing."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
