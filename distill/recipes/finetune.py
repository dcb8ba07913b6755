"""Fine-tune an encoder on a task's labels: the teacher of every method, and the control beside every student."""

from dataclasses import dataclass
from typing import Annotated

import torch

from data_utils.tasks import Task
from distill.config import BELOW_1, TaskConfig, one_of, setting
from distill.evaluate import note_reading, task_info
from distill.objective import Objective
from distill.presets import BASE, BASE_TASKS, SMALL, SMALL_TASKS, preset_of
from distill.rundir import RunDir
from distill.scores import Scores
from distill.splits import read_splits, split_fingerprints
from distill.task_fit import fit_on_task
from distill.terms import Labels
from models.encoder import Encoder
from models.heads import POOLINGS, TOKENS
from models.pretrained import load_config, model_fingerprint, pretrained_encoder
from models.truncate import parse_layers, truncate


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Settings of a fine-tuning run."""

    output_dir: str = setting("./runs/teacher", "the run directory")
    model: str = setting("microsoft/deberta-v3-large", "hub id, folder, or minilm (the offline encoder)")
    random_init: bool = setting(False, "fresh weights of its shape, not its own: the control without pre-training")
    layers: str = setting("all", "layers to keep of it: all, truncate:N, truncate:half, layers:0,2,4")
    pooling: Annotated[str, one_of((*POOLINGS, TOKENS))] = setting(
        "cls", "what the head reads: cls, first_token or mean; tokens (each of them) for answers in a text, by default")
    head_dropout: Annotated[float, BELOW_1] = setting(0.1, "dropout before the last layer of the head")


# paper: the teachers of arXiv 2504.06036 (its published code), DeBERTa-v3-large, first_token pooling. Differs: torch's AdamW, with
# bias correction; texts are cut at their end, theirs at a random one; QNLI's question comes first, theirs second (models/import_checkpoint.py
# reads their checkpoints in their order).
# small: for minilm (22 M parameters). Its rate was held against 2e-4 (MRPC, CoLA, STS-B) and 5e-5 (MRPC, CoLA), one seed
# each: ahead on MRPC (accuracy, 2 and 4 points), level on the others (`python -m distill report table settings`).
PER_TASK = {
    "paper": {
        "CoLA": {"num_train_epochs": 10, "warmup_steps": 50, "learning_rate": 5.5e-6, "head_dropout": 0.1},
        "MNLI": {"num_train_epochs": 2, "warmup_steps": 500, "learning_rate": 7e-6, "train_batch_size": 64,
                 "head_dropout": 0.3},
        "MRPC": {"num_train_epochs": 6, "warmup_steps": 50, "learning_rate": 6e-6, "head_dropout": 0.2},
        "QNLI": {"num_train_epochs": 6, "warmup_steps": 200, "learning_rate": 7e-6, "train_batch_size": 64,
                 "head_dropout": 0.2},
        "QQP": {"num_train_epochs": 6, "warmup_steps": 1000, "learning_rate": 1e-5, "train_batch_size": 64,
                "head_dropout": 0.2},
        "RTE": {"num_train_epochs": 6, "warmup_steps": 50, "learning_rate": 1e-5, "head_dropout": 0.3},
        "SST-2": {"num_train_epochs": 8, "warmup_steps": 500, "learning_rate": 6e-6, "head_dropout": 0.1},
        "STS-B": {"num_train_epochs": 4, "warmup_steps": 50, "learning_rate": 7e-6, "head_dropout": 0.1},
    },
    "base": BASE_TASKS,
    "small": SMALL_TASKS,
}
PRESET_DEFAULTS = {"paper": {"pooling": "first_token", "num_train_epochs": 6, "learning_rate": 7e-6},
                   "base": BASE,
                   "small": {**SMALL, "pooling": "mean"}}


def default_preset(words: dict[str, str]) -> str:
    """By the width of the model's hidden states: `paper`, `base`, or `small` below both."""
    return preset_of(load_config(words.get("model", Config.model)).hidden_size, large="paper")


class LabelObjective(Objective):
    """The loss on the labels: `ce` (classes), `span_ce` (answers in a text, per window) or `mse` (scores), per example."""

    def __init__(self, task: Task):
        super().__init__()
        self.labels = Labels(task)

    def counts(self, batch):
        return {self.labels.name: self.labels.count(batch)}

    def weights(self, progress):
        return {self.labels.name: 1.0}

    def forward(self, student, batch, progress):
        return {self.labels.name: self.labels.loss(student(batch).logits, batch.target).sum()}


def start(cfg: Config, task: Task) -> Encoder:
    """What is fine-tuned, before the first step: cfg.layers of cfg.model, and a new head."""
    torch.manual_seed(cfg.seed)
    encoder = pretrained_encoder(cfg.model, task_info(task, cfg.pooling), cfg.head_dropout, cfg.random_init)
    note_reading(encoder, task, cfg.max_length, cfg.windows)
    return truncate(encoder, parse_layers(cfg.layers, encoder.depth))


def facts(cfg: Config, task: Task) -> dict:
    """What start() and the data are made from: checksums of the splits, and of the weights where they are not fresh."""
    return {"data": split_fingerprints(task, cfg), **({} if cfg.random_init else {"model": model_fingerprint(cfg.model)})}


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Fine-tune cfg.model on `task`; best/ and last/ in run_dir. Returns the scores of the best epoch."""
    encoder = start(cfg, task)
    train, evaluation = read_splits(encoder, task, cfg)
    run_dir.begin(cfg, facts(cfg, task))
    return fit_on_task(encoder, LabelObjective(task), task, train, evaluation, cfg, run_dir)
