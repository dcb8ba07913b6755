"""fit(): the only training loop. Read it from top to bottom: that is the order in which a step runs."""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from distill import workers
from distill.config import TrainConfig
from distill.interrupts import Cut, Stop, signals
from distill.objective import Objective
from distill.optim import build_optimizer, clip_gradients
from distill.pace import Pace
from distill.precision import autocast, check_precision
from distill.progress import bar
from distill.rundir import RunDir, read_json, write_folder, write_json
from distill.scales import scale_warning
from distill.schedules import BETA1, LEARNING_RATE
from distill.scores import Scores, save_predictions
from distill.sharding import Alone, full_state_dict, parallelise
from distill.trainer_state import load_last, resume, save_last

LOWEST_SCALE = 2.0 ** -14  # of a loss in float16: 30 halvings after the first
SETTLED = 10  # steps after which terms are compared: a student that starts as its teacher differs from it by next to nothing
logger = logging.getLogger(__name__)


class NonFiniteLossError(ValueError):
    """A loss or gradient that is not a number, found before the update; the message names step and terms."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the run was saved and the same command goes on with it."""


class StepModule(nn.Module):
    """Student and objective as the one module that is trained, saved and spread over the ranks."""

    def __init__(self, student: nn.Module, objective: Objective):
        super().__init__()
        self.student = student
        self.objective = objective

    def forward(self, batch, progress: float) -> dict[str, torch.Tensor]:
        return self.objective(self.student, batch, progress)


@dataclass
class Training:
    """All that changes while fit() runs; what last/ holds."""

    module: StepModule
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    stream: object
    step: int = 0
    unscored: bool = False  # the step's evaluation is still to be made: a signal may cut it off
    best: Scores | None = None
    latest: Scores | None = None
    examples: int = 0
    tokens: int = 0
    term_sums: dict[str, torch.Tensor] = field(default_factory=dict)  # since the last line of the log
    term_counts: dict[str, int] = field(default_factory=dict)


def total_steps(cfg: TrainConfig, stream) -> int:
    """Optimiser steps of the whole run."""
    return cfg.max_steps or max(1, round(cfg.num_train_epochs * stream.steps_per_epoch))


def fit(student: nn.Module, objective: Objective, stream, cfg: TrainConfig, run_dir: RunDir,
        evaluate: Callable[[nn.Module, float], Scores] | None = None, known: Scores | None = None) -> Scores | None:
    """Train `student` (in place; with cfg.fsdp it stays sharded) on `objective` over `stream`, from where run_dir/last stands.

    Every epoch or `eval_steps`, `evaluate(student, to_beat)` is asked for Scores; those that do not beat `to_beat`, the best
    selection so far, may lack what selects nothing. The student with the best selection goes to run_dir/best by its export()
    (the last one, where there is no `evaluate`), the state to go on from to run_dir/last by its save(). Returns the best scores.
    `known`: those of the student as it starts, for the log, where it need not be scored.

    Exact: the step's gradient does not depend on micro-batches or ranks beyond rounding; the random draws of a step
    are a function of (seed, step, rank); a resumed run equals an undisturbed one bit for bit on a CPU.
    Errors: NonFiniteLossError before the update; Interrupted after a signal, which ends a step first, not an evaluation; the state
    is saved.
    """
    device, steps = workers.device(), total_steps(cfg, stream)
    check_precision(cfg, device)
    module = StepModule(student, objective)
    last = load_last(module, run_dir, cfg.save_total_limit)
    replica = parallelise(module, cfg.fsdp)
    run = Training(module, build_optimizer(cfg.optimizer, module, cfg.learning_rate, cfg.weight_decay),
                   torch.amp.GradScaler(device.type, enabled=cfg.fp16), stream)
    if last:
        resume(run, last)
    del last  # the optimiser's state, whole, on every rank
    if cfg.compile:
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # layers that note what they project are not run as those that do not
        student.compile(dynamic=True)  # few graphs for all lengths
    eval_every = cfg.eval_steps or stream.steps_per_epoch
    save_every = cfg.save_steps or eval_every
    started, pace = time.monotonic() - run_dir.logged_seconds(), Pace(cfg)
    with bar(steps, "train", "step", run.step) as progress_bar, signals(cfg.save_minutes, run.step) as stop:
        if evaluate and run.step == 0 and (known or cfg.eval_on_start):
            _log_scores(run, known or _score(run, replica, evaluate, stop), run_dir)
        ends = run.step >= steps and not run.unscored
        while not ends:
            if not run.unscored:
                pace.note(*_step(run, replica, cfg, steps))
                progress_bar.update()
                if run.step % cfg.logging_steps == 0 or run.step == steps:
                    _log(run, objective, run_dir, cfg, steps, {**pace.take(), "seconds": round(time.monotonic() - started, 3)})
                run.unscored = evaluate is not None and (run.step % eval_every == 0 or run.step == steps)
            if run.unscored:
                with pace.apart(), contextlib.suppress(Cut):
                    _evaluate(run, replica, evaluate, run_dir, stop)
            ends = stop.asked(run.step) or run.step == steps
            if ends or stop.due or run.step % save_every == 0:
                with pace.apart():
                    save_last(run, run_dir, cfg.save_total_limit)
        if stop.heard():  # during the last step too: other runs may follow
            raise Interrupted(f"stopped by {stop.reason} after step {run.step} of {steps}; saved in {run_dir.last}: "
                              "the same command goes on from there")
    return _best(run_dir) if evaluate else _export(student, run_dir)


def _step(run: Training, replica: Alone, cfg: TrainConfig, steps: int) -> tuple[int, float]:
    """One step of the optimiser; returns the real tokens that it read, and the operations of its matrix products."""
    objective, stream, progress = run.module.objective, run.stream, run.step / steps
    _seed_step(cfg.seed, run.step)
    run.module.train()
    batch = stream.next()
    stream.prepare()
    _set_learning_rate(run.optimizer, cfg, run.step, steps)
    counts, weights = objective.counts(batch), objective.weights(progress)
    sums = _accumulate(run, replica, weights, counts, batch, cfg, progress)
    work = batch.tokens, objective.flops(batch)  # counted while a GPU is still at it; the update waits for it
    _update(run, sums, cfg)
    run.step += 1
    stream.observe(run.module.student, run.step, {name: value / max(counts[name], 1) for name, value in sums.items()})
    _note_terms(run, sums, counts, weights, batch)
    return work


def _seed_step(seed: int, step: int) -> None:
    """Dropout and other draws of a step depend on (seed, step, rank) alone: nothing to save, nothing to disturb."""
    (state,) = np.random.SeedSequence([seed, step, workers.rank()]).generate_state(1, np.uint64)
    torch.manual_seed(int(state >> np.uint64(1)))


def _set_learning_rate(optimizer: torch.optim.Optimizer, cfg: TrainConfig, step: int, steps: int) -> None:
    warmup = min(cfg.warmup_steps / steps, 0.99) if cfg.warmup_steps else cfg.warmup_ratio
    progress = (step + 1) / (steps + 1)  # never 0: every step moves
    for group in optimizer.param_groups:
        group["lr"] = cfg.learning_rate * LEARNING_RATE[cfg.lr_scheduler_type](progress, warmup)
        if cfg.lr_scheduler_type in BETA1:
            group["betas"] = (BETA1[cfg.lr_scheduler_type](progress, warmup), group["betas"][1])


def _accumulate(run: Training, replica: Alone, weights: dict[str, float], counts: dict[str, int], batch,
                cfg: TrainConfig, progress: float) -> dict[str, torch.Tensor]:
    """Backward over this rank's micro-batches of the step; returns the sums of the terms on this rank.

    The loss is sum_k weight_k * sum_k / count_k with the counts of the whole step. Gradients are averaged over ranks, so
    each rank multiplies by their number; they are exchanged on the last micro-batch only.
    """
    device, world = workers.device(), workers.world()
    micro_batches = _micro_batches(batch, cfg.max_tokens or workers.batch_tokens())
    totals: dict[str, torch.Tensor] = {}
    for index, (micro, present) in enumerate(micro_batches):
        with replica.exchange(index == len(micro_batches) - 1):
            with autocast(cfg, device):
                sums = replica(micro.to(device), progress)
            sums = {name: present * value for name, value in sums.items()}
            loss = sum(world * weights[name] / max(counts[name], 1) * value for name, value in sums.items())
            run.scaler.scale(loss).backward()
        for name, value in sums.items():
            totals[name] = totals.get(name, 0) + value.detach()
    return totals


def _micro_batches(batch, max_tokens: int) -> list[tuple[object, bool]]:
    """This rank's micro-batches, as many as every rank has, since a pass of a sharded module is one of all ranks. False:
    it only fills up, at weight zero. Rank 0, with the longest of every `world` examples, needs the most."""
    share = batch.shard(workers.rank(), workers.world())
    own = share.split(max_tokens) if share else []
    most = own if workers.is_main() else batch.shard(0, workers.world()).split(max_tokens)
    missing = len(most) - len(own)
    return [(micro, True) for micro in own] + missing * [(batch.select([0]), False)]


def _update(run: Training, sums: dict[str, torch.Tensor], cfg: TrainConfig) -> None:
    """Clip and step; stop before the update where a term or the gradient is not finite (fp16: the scaler skips, and stops where no
    scale would do)."""
    run.scaler.unscale_(run.optimizer)
    norm = clip_gradients(run.module.parameters(), cfg.max_grad_norm)
    total = workers.summed(sum(sums.values())) if cfg.fp16 else sum(sums.values())  # else every rank's is in the norm
    if not torch.isfinite(total if cfg.fp16 else total + norm):
        terms = ", ".join(f"{name} {value.item():g}" for name, value in sums.items())
        raise NonFiniteLossError(f"step {run.step + 1}: the loss or its gradient is not finite (sums of the terms: "
                                 f"{terms}; gradient norm {norm.item():g}); no update was made. Lower --learning_rate, "
                                 "or train without --fp16")
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if cfg.fp16 and run.scaler.get_scale() < LOWEST_SCALE:
        raise NonFiniteLossError(f"step {run.step + 1}: the gradient is not finite at any scale of the loss, of which the last was "
                                 f"{run.scaler.get_scale():g}: nothing is learned. Train without --fp16, or lower --learning_rate")
    run.optimizer.zero_grad(set_to_none=True)


def _note_terms(run: Training, sums: dict[str, torch.Tensor], counts: dict[str, int], weights: dict[str, float], batch) -> None:
    for name in (name for name in sums if weights[name]):  # without a weight a term may not have been computed
        run.term_sums[name] = run.term_sums.get(name, 0) + sums[name]
        run.term_counts[name] = run.term_counts.get(name, 0) + counts[name]
    run.examples += len(batch)
    run.tokens += batch.tokens


def _log(run: Training, objective: Objective, run_dir: RunDir, cfg: TrainConfig, steps: int, times: dict) -> None:
    """One line of log.jsonl: each term (its mean since the last line over the steps in which it had a weight, unweighted),
    each weight, rate, speed."""
    totals = workers.total({name: float(value) for name, value in run.term_sums.items()})
    if workers.is_main():
        terms = {name: total / max(run.term_counts[name], 1) for name, total in totals.items()}
        weights = objective.weights((run.step - 1) / steps)
        run_dir.log({"step": run.step, "progress": run.step / steps, "terms": terms, "weights": weights,
                     "learning_rate": run.optimizer.param_groups[0]["lr"], "examples": run.examples, "tokens": run.tokens, **times})
        line_before = (run.step - 1) // cfg.logging_steps * cfg.logging_steps
        if line_before < min(SETTLED, steps) <= run.step:
            _warn_of_scales(terms, weights, cfg)
    run.term_sums, run.term_counts, run.examples, run.tokens = {}, {}, 0, 0


def _warn_of_scales(terms: dict[str, float], weights: dict[str, float], cfg: TrainConfig) -> None:
    """Say where two terms are so far apart that one may not matter; the settings that weigh them are known by their names."""
    warning = scale_warning(terms, weights, [name for name in vars(cfg) if name.endswith("_weight")])
    if warning:
        logger.warning(warning)


def _score(run: Training, replica: Alone, evaluate, stop: Stop) -> Scores:
    """The student's scores. Training goes on bit for bit as if they had not been asked for. Cut where a signal cut it off."""
    run.module.student.eval()
    with torch.no_grad(), replica.assembled(), stop.cutting():
        return evaluate(run.module.student, run.best.selection if run.best else -math.inf)


def _log_scores(run: Training, scores: Scores, run_dir: RunDir) -> None:
    if workers.is_main():
        run_dir.log({"step": run.step, "scores": scores.values, **({"heldout": scores.terms} if scores.terms else {})})


def _evaluate(run: Training, replica: Alone, evaluate, run_dir: RunDir, stop: Stop) -> None:
    """Score the student; keep it as best/ where it beats all before."""
    student = run.module.student
    run.latest = scores = _score(run, replica, evaluate, stop)
    run.unscored = False
    _log_scores(run, scores, run_dir)
    if run.best is None or scores.selection > run.best.selection:
        run.best, state = scores, full_state_dict(student.state_dict())
        workers.on_main(lambda: write_folder(run_dir.best, lambda folder: _fill_best(folder, student, state, scores)))


def _best(run_dir: RunDir) -> Scores:
    """What lies in best/: where a run was cut off, that may be better than what it went on from, and than all that came after."""
    return Scores.from_json(read_json(run_dir.best / "scores.json"))


def _export(student: nn.Module, run_dir: RunDir) -> None:
    """The student as it is now is best/."""
    state = full_state_dict(student.state_dict())
    workers.on_main(lambda: write_folder(run_dir.best, lambda folder: student.export(folder, state)))


def _fill_best(folder, student: nn.Module, state: dict[str, torch.Tensor], scores: Scores) -> None:
    student.export(folder, state)
    write_json(folder / "scores.json", scores.to_json())
    if scores.predictions:
        save_predictions(scores.predictions, folder / "predictions.npz")
