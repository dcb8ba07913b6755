"""MiniLMv2's relation distillation (Wang et al. 2021, arXiv 2012.15828), on a task.

    L = w_relation sum over x in {queries, keys, values} of (1 / (tokens A_r)) sum_i,h KL(R^T_hi(x) || R^S_hi(x))
        + w_ce CE + w_kl T^2 KL             R_h(x) = softmax(x_h x_h^T / sqrt(d_r)), A_r relation heads of width d_r

of one teacher layer and the student's last; widths and numbers of attention heads may differ.
Differs: divided by the tokens of the step, not by those of each example.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from data_utils.tasks import Task
from distill import distillation
from distill.config import FROM_0, FROM_1, setting
from distill.distillation import DistilConfig, WeightedTerm, distil, label_terms
from distill.layer_maps import relation_pair
from distill.presets import BASE, BASE_TASKS, LARGE, SMALL, SMALL_TASKS
from distill.rundir import RunDir
from distill.scores import Scores
from distill.terms import Relations
from models.encoder import Encoder

default_preset, facts = distillation.default_preset, distillation.facts


@dataclass(frozen=True, kw_only=True)
class Config(DistilConfig):
    """Settings of relation distillation."""

    relation_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the relations")
    relation_heads: Annotated[int, FROM_1] = setting(48, "relation heads, a divisor of both widths")
    teacher_layer: Annotated[int, FROM_0] = setting(0, "whose relations are learned; 0: the last, the 21st of 24")


# paper: its pre-training (relations alone, as the authors say of more terms that they lower results; AdamW at 6e-4,
# 4,000 steps of warm-up of 400,000). It was made for pre-training text; on a task, fine-tune its student afterwards.
# small, base: as logit_kd. large: not tuned; 64 heads as for teachers of that width.
PER_TASK = {"paper": {}, "small": SMALL_TASKS, "base": BASE_TASKS, "large": {}}
PRESET_DEFAULTS = {
    "paper": {"ce_weight": 0.0, "kl_weight": 0.0, "learning_rate": 6e-4, "warmup_ratio": 0.01, "train_batch_size": 256},
    "small": SMALL,
    "base": BASE,
    "large": {**LARGE, "relation_heads": 64},
}


def terms(cfg: Config, task: Task, student: Encoder, teacher: Encoder) -> list[WeightedTerm]:
    """The labels, the teacher's soft targets, its relations."""
    pair = relation_pair(student.depth, teacher.depth, cfg.teacher_layer)
    return [*label_terms(cfg, task), (Relations(pair, cfg.relation_heads, student, teacher), cfg.relation_weight)]


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores."""
    return distil(cfg, task, run_dir, partial(terms, cfg, task))
