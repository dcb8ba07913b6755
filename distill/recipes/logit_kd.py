"""Knowledge distillation on logits (Hinton et al. 2015, arXiv 1503.02531): labels, and the teacher's soft targets.

    L = w_ce CE(student, labels) + w_kl T^2 KL(softmax(teacher / T) || softmax(student / T))
"""

from dataclasses import dataclass
from functools import partial

from data_utils.tasks import Task
from distill import distillation
from distill.distillation import DistilConfig, WeightedTerm, distil, label_terms
from distill.presets import BASE, BASE_TASKS, LARGE, SMALL, SMALL_TASKS, SPAN_TASKS
from distill.rundir import RunDir
from distill.scores import Scores
from models.encoder import Encoder

default_preset, facts = distillation.default_preset, distillation.facts


@dataclass(frozen=True, kw_only=True)
class Config(DistilConfig):
    """Settings of distillation on logits."""


# paper: the KD rows of patient distillation (arXiv 1908.09355, 4.3) searched T in {5, 10, 20}, alpha in {0.2, 0.5, 0.7}
# and rates in {5e-5, 2e-5, 1e-5} over 4 epochs of batches of 32; the middle of each, as the best are not published.
# On answers in a text: the second distillation of DistilBERT (arXiv 1910.01108, its published code).
# small: as sense_kd. base, large: not tuned. On answers in a text all weigh the terms as published.
SECOND = {"ce_weight": 0.5, "kl_weight": 0.5, "temperature": 2.0}
PUBLISHED_SECOND = {**SECOND, "learning_rate": 5e-5, "train_batch_size": 8, "num_train_epochs": 3}
PER_TASK = {"paper": dict.fromkeys(SPAN_TASKS, PUBLISHED_SECOND), "small": {**SMALL_TASKS, **dict.fromkeys(SPAN_TASKS, SECOND)},
            "base": {**BASE_TASKS, **{name: {**BASE_TASKS[name], **SECOND} for name in SPAN_TASKS}},
            "large": dict.fromkeys(SPAN_TASKS, SECOND)}
PRESET_DEFAULTS = {
    "paper": {"temperature": 10.0, "ce_weight": 0.5, "kl_weight": 0.5, "learning_rate": 2e-5, "num_train_epochs": 4},
    "small": SMALL,
    "base": BASE,
    "large": LARGE,
}


def terms(cfg: Config, task: Task, student: Encoder, teacher: Encoder) -> list[WeightedTerm]:
    """The labels, the teacher's soft targets."""
    return label_terms(cfg, task)


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores."""
    return distil(cfg, task, run_dir, partial(terms, cfg, task))
