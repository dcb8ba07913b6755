"""Whole fine-tuning runs: the engine's dev score and time against transformers' Trainer's, over seeds."""

import itertools
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from data_utils.batching import TrainStream
from data_utils.tasks import get_task
from distill import workers
from distill.bench.corpus import encoder_for, sentences
from distill.bench.timing import OTHERS_AT_MOST, Comparison, OtherLoad
from distill.bench.training import BATCH, LEARNING_RATE, padded, train_with_transformers, transformers_model
from distill.config import TrainConfig
from distill.engine import fit
from distill.evaluate import dev_splits, score
from distill.recipes.finetune import LabelObjective
from distill.report.paired import needed
from distill.rundir import RunDir
from distill.scores import mean_and_error
from distill.vocabulary import held_vocabulary

EPOCHS, WARMUP, WEIGHT_DECAY, MAX_GRAD_NORM = 3.0, 0.1, 0.01, 1.0


def comparisons(cfg) -> Iterator[Comparison]:
    """cfg.rounds seeds of each side, at least 2; the scores after the last epoch differ by noise at most."""
    runs = Runs(cfg, range(1, 1 + max(cfg.rounds, 2)))
    yield Comparison(f"fine-tuning on {cfg.task}, whole runs", "transformers' Trainer, dynamic padding, float32", "examples",
                     runs.ours.__next__, runs.theirs.__next__, runs.check)


class Runs:
    """Runs of both sides from the same weights, with the same rate, schedule, epochs and batch size. `check` makes them,
    `ours` and `theirs` give their work and time again."""

    def __init__(self, cfg, seeds: range):
        self.cfg, self.task, self.seeds = cfg, get_task(cfg.task), seeds
        self.encoder = encoder_for(cfg, self.task, pooling="cls").to(workers.device())
        self.pad_id = self.encoder.tokenizer.pad_token_id
        self.data = sentences(cfg, self.encoder, self.task)
        self.dev = dev_splits(self.encoder, self.task, cfg.data_dir)
        self.start = {name: tensor.clone() for name, tensor in self.encoder.state_dict().items()}
        self.timings: tuple[list, list] = ([], [])
        self.ours, self.theirs = (itertools.cycle(timings) for timings in self.timings)

    def check(self) -> str:
        scores, watch = ([], []), OtherLoad()
        for seed in self.seeds:
            for side, found, timings in zip((self.engine_run, self.trainer_run), scores, self.timings):
                seconds = side(seed)
                timings.append((EPOCHS * len(self.data), seconds))
                found.append(100 * score(self.encoder, self.task, self.dev).selection)
        (ours, our_error), (theirs, their_error) = map(mean_and_error, scores)
        said = (f"{len(self.seeds)} seeds, dev score after the last epoch {ours:.1f} ± {our_error:.1f} against "
                f"{theirs:.1f} ± {their_error:.1f}")
        allowed = needed(2 * len(self.seeds) - 2)
        if abs(ours - theirs) > allowed * np.hypot(our_error, their_error):
            raise ValueError(f"{said}: expected a difference within {allowed:.1f} standard errors")
        return f"{said}{', disturbed by other programs' if watch.share() > OTHERS_AT_MOST else ''}"

    def engine_run(self, seed: int) -> float:
        self.encoder.load_state_dict(self.start)
        stream = TrainStream(self.data, self.task.name, self.pad_id, BATCH, seed)
        settings = TrainConfig(learning_rate=LEARNING_RATE, num_train_epochs=EPOCHS, train_batch_size=BATCH, warmup_ratio=WARMUP,
                               weight_decay=WEIGHT_DECAY, max_grad_norm=MAX_GRAD_NORM, seed=seed, bf16=self.cfg.bf16,
                               fp16=self.cfg.fp16)
        with tempfile.TemporaryDirectory() as folder, held_vocabulary(settings, self.encoder, self.data):
            started = time.perf_counter()
            fit(self.encoder, LabelObjective(self.task), stream, settings, RunDir(folder))
            return time.perf_counter() - started

    def trainer_run(self, seed: int) -> float:
        self.encoder.load_state_dict(self.start)
        model = transformers_model(self.encoder)
        steps = EPOCHS * -(-len(self.data) // BATCH)
        started = time.perf_counter()
        train_with_transformers(model, len(self.data), lambda rows: padded(self.data, np.array(rows), self.pad_id, 0),
                                num_train_epochs=EPOCHS, warmup_steps=round(WARMUP * steps), weight_decay=WEIGHT_DECAY,
                                max_grad_norm=MAX_GRAD_NORM, seed=seed)
        seconds = time.perf_counter() - started
        self.encoder.load_named(model.state_dict(), "transformers' model")
        return seconds
