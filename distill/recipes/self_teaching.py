"""Self-teaching: one network whose last layer teaches an earlier one, while it learns the labels itself.

    L = CE(p_T, labels) + w_kl [KL(p_S || p_T) + KL(p_T || p_S)] + w_student_ce CE(p_S, labels)

p_T, p_S: softmax of the logits after the last layer (the teacher exit) and after layer k (the student exit), from one pass; for
scores, squared errors. Gradually: the student that a stage exports, its head too, is the next stage's whole network:

    24,20,16,12         network          teacher exit   student exit
    OUT/stage-24-20     24 layers        24             20
    OUT/stage-20-16     its first 20     20             16
    OUT                 their first 16   16             12

Layers and heads above a stage's teacher exit are gone. Differs: heads have two layers, not one; a stage begins with its
predecessor's best epoch, not its last, and with an optimiser of its own; and what the published programs did against their paper
is not done: exits one layer below their numbers, heads not promoted, padding in the mean, pairs run together into one text.
Source: the code and paper in github.com/tianjianl/self_supervised_sp23, efficient-distillation.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill.config import FROM_0, check_weights, setting
from distill.losses import span_symmetric_kl, squared_error, symmetric_kl
from distill.objective import Objective
from distill.presets import preset_of
from distill.recipes import finetune
from distill.rundir import RunDir
from distill.scores import Scores
from distill.splits import read_splits
from distill.stages import seed_of
from distill.task_fit import fit_on_task
from distill.terms import Labels
from models.checkpoint import load_encoder
from models.encoder import Encoder
from models.exits import TwoExits, outline
from models.pretrained import load_config
from models.truncate import truncate
from models.weights import fingerprint, parameter_counts

Exits = tuple[int, int]  # the layers after which teacher and student answer
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(finetune.Config):
    """Settings of a self-teaching run."""

    output_dir: str = setting("./runs/self_taught", "the run directory")
    model: str = setting("google-bert/bert-base-uncased", "hub id, folder, or minilm (the offline encoder)")
    schedule: str = setting("all,half", "exits, each the teacher of the next: numbers of layers, all or half of them; 24,20,16,12")
    kl_weight: Annotated[float, FROM_0] = setting(0.5, "weight of the divergence between the exits (for scores: squared error)")
    student_ce_weight: Annotated[float, FROM_0] = setting(0.0, "weight of the loss on the labels at the student exit")
    detach_teacher: bool = setting(False, "the divergence moves the student alone (stop-gradient)")
    eval_on_start: bool = setting(True, "evaluate before the first step too; logged, never kept as the best")

    def __post_init__(self):
        super().__post_init__()
        check_weights(self)


def threefold(settings: dict) -> dict:
    """`settings` with three times the epochs, where they name any."""
    return {name: 3 * value if name == "num_train_epochs" else value for name, value in settings.items()}


# base, large: Table 7 of the paper; its code: AdamW at a constant rate, without warm-up or clipping, mean
# pooling, no dropout before the heads. Differs: biases and LayerNorm do not decay. STS-B, MNLI and WNLI have no published
# settings. small: for minilm, finetune's own, in each stage. long: the steps of three such stages in one, the control of gradual
# schedules.
BASE = {"RTE": {"max_length": 512}, "MRPC": {"learning_rate": 1e-5, "max_length": 512}, "CoLA": {"max_length": 256},
        "SST-2": {"max_length": 512}, "QNLI": {"learning_rate": 5e-6, "max_length": 256}, "QQP": {"max_length": 256}}
LARGE = {"RTE": {"learning_rate": 1e-5}, "MRPC": {"learning_rate": 2e-5}, "QNLI": {"learning_rate": 3e-6}}
PUBLISHED = {"learning_rate": 3e-6, "num_train_epochs": 10, "train_batch_size": 16, "lr_scheduler_type": "constant",
             "warmup_ratio": 0.0, "max_grad_norm": 0.0, "weight_decay": 0.01, "pooling": "mean", "head_dropout": 0.0}
PER_TASK = {"base": BASE, "large": {task: BASE[task] | LARGE.get(task, {}) for task in BASE}, "small": finetune.PER_TASK["small"],
            "long": {task: threefold(own) for task, own in finetune.PER_TASK["small"].items()}}
PRESET_DEFAULTS = {"base": PUBLISHED, "large": PUBLISHED, "small": finetune.PRESET_DEFAULTS["small"],
                   "long": threefold(finetune.PRESET_DEFAULTS["small"])}


facts = finetune.facts


def default_preset(words: dict[str, str]) -> str:
    """By the width of the model's hidden states: `large`, `base`, or `small` below both."""
    return preset_of(load_config(words.get("model", Config.model)).hidden_size)


def parse_schedule(spec: str, depth: int) -> list[Exits]:
    """The stages of a `depth`-layer network: (24, 20), (20, 16), (16, 12) for 24,20,16,12. ValueError for what is none."""
    words = spec.split(",")
    named = {"all": depth, "half": depth // 2}
    layers = [named[word] if word in named else int(word) for word in words if word in named or re.fullmatch(r"\d+", word)]
    falling = layers == sorted(set(layers), reverse=True)
    if not (len(words) == len(layers) > 1 and falling and layers[0] <= depth and layers[-1] > 0):
        raise ValueError(f"--schedule {spec}: expected two exits or more, falling, from {depth} (the model's layers) down to 1, as "
                         f"all,half or {depth},{depth - 1}: the first teaches the second, the second the third")
    return list(zip(layers, layers[1:]))


class SelfTeaching(Objective):
    """The labels at the teacher exit, the divergence between the exits, the labels at the student exit; per example."""

    def __init__(self, cfg: Config, task: Task):
        super().__init__()
        self.labels, self.detach_teacher = Labels(task), cfg.detach_teacher
        of_classes = span_symmetric_kl if task.spans else symmetric_kl
        self.divergence = score_divergence if task.is_regression else of_classes
        wanted = {self.labels.name: 1.0, "kl": cfg.kl_weight, f"student_{self.labels.name}": cfg.student_ce_weight}
        self.term_weights = {name: weight for name, weight in wanted.items() if weight}

    def counts(self, batch):
        return dict.fromkeys(self.term_weights, len(batch))

    def weights(self, progress):
        return self.term_weights

    def forward(self, student: TwoExits, batch, progress):
        exits = student(batch).exits
        taught, teacher = exits[student.layer], exits[student.depth]
        terms = {self.labels.name: self.labels.loss(teacher, batch.target),
                 "kl": self.divergence(taught, teacher.detach() if self.detach_teacher else teacher),
                 f"student_{self.labels.name}": self.labels.loss(taught, batch.target)}
        return {name: terms[name].sum() for name in self.term_weights}


def score_divergence(one_B1: Tensor, other_B1: Tensor) -> Tensor:
    """What symmetric_kl is for classes: the squared error between scores [B, 1] twice -> [B], the same both ways. Gradient to both."""
    return squared_error(one_B1, other_B1.squeeze(-1))


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Teach cfg.model through the exits of cfg.schedule on `task`. The last student is run_dir/best, the stages before it are
    runs of their own inside run_dir. Returns the scores of the last stage's best epoch."""
    network = finetune.start(cfg, task)
    stages = parse_schedule(cfg.schedule, network.depth)
    network = truncate(network, tuple(range(stages[0][0])))
    train, evaluation = read_splits(network, task, cfg)
    read = facts(cfg, task)
    run_dir.begin(cfg, read)
    *before, (_, last) = stages
    logger.info("student: %d parameters (%d in embeddings)", *parameter_counts(outline(network, last).state_dict()))
    for number, (above, below) in enumerate(before):
        place = run_dir.stage(f"{above}-{below}")
        if not place.is_done():
            place.begin(replace(cfg, output_dir=str(place.path), schedule=f"{above},{below}"), read)
            place.finish_stage(fit_stage(network, below, of_stage(cfg, number), task, place, train, evaluation).to_json())
        network = load_encoder(place.best)
        read = {**read, "stage before": fingerprint(place.best)}
    return fit_stage(network, last, of_stage(cfg, len(before)), task, run_dir, train, evaluation)


def of_stage(cfg: Config, number: int) -> Config:
    """The settings of stage `number`, which has an order of the examples and dropout of its own."""
    return replace(cfg, seed=seed_of(cfg.seed, number))


def fit_stage(network: Encoder, layer: int, cfg: Config, task: Task, run_dir: RunDir, train: EncodedDataset,
              evaluation: Mapping[str, EncodedDataset]) -> Scores:
    """One stage: an exit after `layer` learns from the last layer of `network`. Returns its best epoch's scores, and those
    that the teacher exit had then."""
    student = TwoExits(network, layer)
    readings = {name: lambda outputs, exit=exit: outputs.exits[exit]
                for name, exit in (("", layer), (", teacher exit", student.depth))}
    logger.info("layer %d teaches layer %d", student.depth, layer)
    return fit_on_task(student, SelfTeaching(cfg, task), task, train, evaluation, cfg, run_dir, readings)
