"""Patient knowledge distillation (Sun et al. 2019, arXiv 1908.09355): [CLS] states of several layers, beside the logits.

    L = w_ce CE + w_kl T^2 KL + w_cls sum over layer pairs (i, j) of || h^S_i / |h^S_i| - h^T_j / |h^T_j| ||^2     h at [CLS]
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from data_utils.tasks import Task
from distill import distillation
from distill.config import FROM_0, setting
from distill.distillation import DistilConfig, WeightedTerm, distil, label_terms
from distill.layer_maps import layer_pairs
from distill.presets import BASE, BASE_TASKS, LARGE, SMALL, SMALL_TASKS
from distill.rundir import RunDir
from distill.scores import Scores
from distill.terms import ClsStates
from models.encoder import Encoder

default_preset, facts = distillation.default_preset, distillation.facts


@dataclass(frozen=True, kw_only=True)
class Config(DistilConfig):
    """Settings of patient distillation."""

    cls_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the [CLS] states")
    layer_map: str = setting("skip", "skip, last, uniform, first, top, or pairs student:teacher as 1:2,2:4")


# paper: the grid of arXiv 1908.09355, 4.3 (T in {5, 10, 20}, alpha in {0.2, 0.5, 0.7}, beta in {10, 100, 500, 1000}, rates
# in {5e-5, 2e-5, 1e-5}, 4 epochs of batches of 32), the middle of each, as the best are not published. Beta 100 belongs to a
# mean over 768 units and 5 layers, as its code takes it (and one of KL over the classes, which is a sum here). Its students
# start from pre-trained layers: --student MODEL --student_layers truncate:half.
# small, base: as logit_kd. large: not tuned.
PER_TASK = {"paper": {}, "small": SMALL_TASKS, "base": BASE_TASKS, "large": {}}
PRESET_DEFAULTS = {
    "paper": {"temperature": 10.0, "ce_weight": 0.5, "kl_weight": 0.5, "cls_weight": 100 / (768 * 5), "learning_rate": 2e-5,
              "num_train_epochs": 4},
    "small": SMALL,
    "base": BASE,
    "large": LARGE,
}


def terms(cfg: Config, task: Task, student: Encoder, teacher: Encoder) -> list[WeightedTerm]:
    """The labels, the teacher's soft targets, its [CLS] states."""
    pairs = layer_pairs(cfg.layer_map, student.depth, teacher.depth)
    return [*label_terms(cfg, task), (ClsStates(pairs, student, teacher), cfg.cls_weight)]


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores."""
    return distil(cfg, task, run_dir, partial(terms, cfg, task))
