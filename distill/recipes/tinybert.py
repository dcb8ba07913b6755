"""TinyBERT's distillation on a task (Jiao et al. 2020, arXiv 1909.10351): first what is inside, then the answers.

    while progress < intermediate_share    L = w_hidden sum_m MSE(h^S_m W, h^T_g(m)) + w_attention sum_m MSE(a^S_m, a^T_g(m))
    then                                   L = w_kl T^2 KL + w_ce CE

m runs over the embeddings (0) and the student's layers, g is the layer map, a are attention scores before the softmax.
Differs: one learning rate for both parts; no augmented data; W only where widths differ.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from data_utils.tasks import Task
from distill import distillation
from distill.config import FROM_0, PROPER_SHARE, setting
from distill.distillation import DistilConfig, WeightedTerm, distil, label_terms
from distill.layer_maps import layer_pairs
from distill.presets import BASE, BASE_TASKS, LARGE, SMALL, SMALL_TASKS
from distill.rundir import RunDir
from distill.schedules import since, until
from distill.scores import Scores
from distill.terms import AttentionScores, HiddenStates
from models.encoder import Encoder

default_preset, facts = distillation.default_preset, distillation.facts


@dataclass(frozen=True, kw_only=True)
class Config(DistilConfig):
    """Settings of TinyBERT's task distillation."""

    hidden_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the hidden states, the embeddings among them")
    attention_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the attention scores")
    layer_map: str = setting("uniform", "uniform, skip, last, first, top, or pairs student:teacher as 0:0,1:2,2:4")
    intermediate_share: Annotated[float, PROPER_SHARE] = setting(
        0.5, "share of the steps that learns hidden states and attention, before the answers")

    def __post_init__(self):
        super().__post_init__()
        for part, one, other in (("before", "hidden", "attention"), ("after", "ce", "kl")):
            if getattr(self, f"{one}_weight") == getattr(self, f"{other}_weight") == 0:
                raise ValueError(f"--{one}_weight 0 and --{other}_weight 0: the steps {part} --intermediate_share would learn "
                                 "nothing; set one of them above 0")


def _published(intermediate: int, **settings) -> dict:
    """`intermediate` epochs of hidden states and attention, then 3 of answers."""
    return {"num_train_epochs": intermediate + 3, "intermediate_share": intermediate / (intermediate + 3), **settings}


# paper: the paper and its code: 20 epochs of intermediate layers (10 on the large tasks, 50 on CoLA) at a
# constant 5e-5, then 3 of soft targets at T = 1; STS-B's scores are the gold ones. small: as logit_kd; of its few
# epochs a small share goes to the inner layers (with half of the steps CoLA falls far below logit_kd: `report table methods`).
# base: with small's share; base, large: not tuned.
PER_TASK = {
    "paper": {"CoLA": _published(50), "MNLI": _published(10), "QQP": _published(10), "QNLI": _published(10),
              "STS-B": {"ce_weight": 1.0, "kl_weight": 0.0}},
    "small": SMALL_TASKS,
    "base": BASE_TASKS,
    "large": {},
}
PRESET_DEFAULTS = {
    "paper": _published(20, ce_weight=0.0, temperature=1.0, learning_rate=5e-5, lr_scheduler_type="constant",
                        warmup_ratio=0.0),
    "small": {**SMALL, "intermediate_share": 0.15},
    "base": {**BASE, "intermediate_share": 0.15},
    "large": LARGE,
}


def terms(cfg: Config, task: Task, student: Encoder, teacher: Encoder) -> list[WeightedTerm]:
    """Hidden states and attention scores up to cfg.intermediate_share of the steps, the teacher's soft targets and the
    labels from there on."""
    pairs, share = layer_pairs(cfg.layer_map, student.depth, teacher.depth), cfg.intermediate_share
    inside = [(HiddenStates, cfg.hidden_weight), (AttentionScores, cfg.attention_weight)]
    return [*((term(pairs, student, teacher), until(share, weight)) for term, weight in inside if weight),
            *((term, since(share, weight)) for term, weight in label_terms(cfg, task) if weight)]


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores."""
    return distil(cfg, task, run_dir, partial(terms, cfg, task))
