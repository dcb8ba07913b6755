"""Sense distillation: a student learns to pick the teacher's sense of every token (Wang et al. 2025, arXiv 2504.06036).

    L = w_sense (1/|T|) sum_{t in T} CE(softmax_j <S_{w_t,j}, h_t>, y_t)  +  w_ce L_labels  +  w_kl L_soft  +  w_rel L_relations

T: tokens whose type has senses S_w, special tokens excluded; h_t the student's last hidden state, y_t the sense that the
teacher's hidden state is nearest to. The teacher runs once: its choices are cached, a byte per token. L_relations, of weight 0
unless one is given, is relation_kd's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from data_utils.tasks import Task
from distill import distillation, workers
from distill.config import ABOVE_0, FROM_0, FROM_1, one_of, setting
from distill.distillation import DistilConfig, WeightedTerm, distil, label_terms
from distill.layer_maps import relation_pair
from distill.presets import BASE, BASE_TASKS, LARGE, SMALL, SMALL_TASKS
from distill.rundir import RunDir
from distill.scores import Scores
from distill.senses.dictionary import SenseDictionary
from distill.terms import Relations, Senses
from models.encoder import Encoder
from models.heads import SIMILARITIES, SenseLookup

default_preset = distillation.default_preset


@dataclass(frozen=True, kw_only=True)
class Config(DistilConfig):
    """Settings of a sense distillation run."""

    senses: str = setting("./runs/senses", "the teacher's sense dictionary")
    head_input: Annotated[str, one_of(("continuous", "senses"))] = setting(
        "continuous", "what the head reads: continuous states, or the chosen senses")
    sense_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the sense loss")
    special_senses: bool = setting(False, "train the senses of [CLS] and [SEP] too")
    similarity: Annotated[str, one_of(("", *SIMILARITIES))] = setting(
        "", "how a state's sense is chosen: distance or dot; empty: as the dictionary says")
    sense_temperature: Annotated[float, ABOVE_0] = setting(1.0, "temperature of the sense loss")
    soft_senses: bool = setting(False, "learn the teacher's whole distribution over senses, not its choice alone")
    relation_weight: Annotated[float, FROM_0] = setting(0.0, "weight of relation_kd's relations, beside the senses")
    relation_heads: Annotated[int, FROM_1] = setting(48, "relation heads, a divisor of both widths")


# paper: the published code (github.com/Qitong-Wang/SenseDictionary), DeBERTa-v3, global batch 192, Ranger-AdaBelief under one
# cycle, the sense loss alone, head frozen.
# small: head input and terms as README's table of choices found them best for minilm. sense_alone and
# labels_alone are its controls, which leave terms out.
PER_TASK = {
    "paper": {
        "CoLA": {"learning_rate": 1e-3, "num_train_epochs": 40},
        "MNLI": {"learning_rate": 1e-3},
        "MRPC": {"learning_rate": 2e-3},
        "QNLI": {"learning_rate": 1e-3},
        "QQP": {"learning_rate": 5e-4},
        "RTE": {"learning_rate": 2e-3, "num_train_epochs": 40},
        "SST-2": {"learning_rate": 5e-4},
        "STS-B": {"learning_rate": 2e-3},
    },
    "small": SMALL_TASKS,
    "sense_alone": SMALL_TASKS,
    "labels_alone": SMALL_TASKS,
    "base": BASE_TASKS,
    "large": {},
}
PRESET_DEFAULTS = {
    "paper": {"optimizer": "ranger_adabelief", "lr_scheduler_type": "one_cycle", "weight_decay": 5e-4,
              "max_grad_norm": 0.0, "train_batch_size": 192, "num_train_epochs": 20, "learning_rate": 1e-3,
              "head_input": "senses", "similarity": "dot", "ce_weight": 0.0, "kl_weight": 0.0, "freeze_head": True},
    "small": SMALL,
    "sense_alone": {**SMALL, "ce_weight": 0.0, "kl_weight": 0.0},
    "labels_alone": {**SMALL, "sense_weight": 0.0, "kl_weight": 0.0},
    "base": BASE,
    "large": LARGE,
}


def terms(cfg: Config, task: Task, student: Encoder, teacher: Encoder, lookup: SenseLookup) -> list[WeightedTerm]:
    """The teacher's senses, the labels, the teacher's soft targets; and its relations, where they are weighted."""
    tokenizer = student.tokenizer
    special_ids = () if cfg.special_senses else (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    found = [(Senses(lookup, special_ids, cfg.sense_temperature, teacher.depth if cfg.soft_senses else 0), cfg.sense_weight),
             *label_terms(cfg, task)]
    if cfg.relation_weight:
        relations = Relations(relation_pair(student.depth, teacher.depth), cfg.relation_heads, student, teacher)
        found.append((relations, cfg.relation_weight))
    return found


def facts(cfg: Config, task: Task) -> dict:
    """What a run reads, the dictionary too."""
    return distillation.facts(cfg, task, SenseDictionary.load(cfg.senses))


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores."""
    dictionary = SenseDictionary.load(cfg.senses)
    lookup = dictionary.lookup(workers.device(), cfg.similarity)
    return distil(cfg, task, run_dir, partial(terms, cfg, task, lookup=lookup), dictionary, lookup, cfg.head_input)
