"""Sense distillation: a student learns to pick the teacher's sense of every token (arXiv 2504.06036; skd.md 3).

    L = w_sense (1/|T|) sum_{t in T} CE(softmax_j <S_{w_t,j}, h_t>, y_t)  +  w_ce L_labels  +  w_kl L_soft

T: tokens whose type has senses S_w, special tokens excluded; h_t the student's last hidden state, y_t the sense that the
teacher's hidden state is nearest to. The teacher runs once: its choices are cached, a byte per token.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from data_utils.batching import TrainStream
from data_utils.readers import data_fingerprint
from data_utils.tasks import Task
from distill import workers
from distill.config import TrainConfig, setting
from distill.engine import fit
from distill.evaluate import dev_splits, encode_split, score
from distill.losses import cross_entropy, sense_cross_entropy, soft_score, soft_targets, squared_error
from distill.objective import Objective
from distill.rundir import RunDir
from distill.scores import Scores
from distill.senses.dictionary import SenseDictionary
from distill.teacher import LiveTeacher, Teacher, cache_key, cached_teacher
from distill.vocabulary import held_vocabulary
from models.checkpoint import checkpoint_config, load_encoder
from models.encoder import Encoder
from models.heads import SenseLookup
from models.pretrained import pretrained_encoder
from models.truncate import adapt, is_layer_spec, parse_layers, truncate
from models.weights import fingerprint


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Settings of a sense distillation run."""

    output_dir: str = setting("./runs/student", "the run directory")
    data_dir: str = setting("./glue", "folder of the tasks; the hub is asked where ./glue is missing")
    teacher: str = setting("./runs/teacher/best", "checkpoint folder of the teacher")
    senses: str = setting("./runs/senses", "the teacher's sense dictionary")
    student: str = setting("truncate:half", "truncate:N or layers:0,2,4 of the teacher, or a hub id, folder or minilm")
    head_input: str = setting("continuous", "what the head reads: continuous states, or the chosen senses")
    sense_weight: float = setting(1.0, "weight of the sense loss")
    ce_weight: float = setting(1.0, "weight of the loss on the labels")
    kl_weight: float = setting(1.0, "weight of the teacher's soft targets (for scores: squared error)")
    temperature: float = setting(2.0, "temperature of the soft targets")
    freeze_head: bool = setting(False, "keep the teacher's head as it is")
    special_senses: bool = setting(False, "train the senses of [CLS] and [SEP] too")
    max_length: int = setting(0, "tokens per example; 0: the task's own")
    cache_dir: str = setting("", "folder for the teacher's cached outputs, to share between runs; empty: in output_dir")

    def __post_init__(self):
        super().__post_init__()
        if self.head_input not in ("continuous", "senses"):
            raise ValueError(f"--head_input {self.head_input}: expected continuous or senses")
        if min(self.sense_weight, self.ce_weight, self.kl_weight) < 0 or \
                max(self.sense_weight, self.ce_weight, self.kl_weight) == 0:
            raise ValueError("--sense_weight, --ce_weight, --kl_weight: expected none below 0, and one above it")
        if self.temperature <= 0:
            raise ValueError(f"--temperature {self.temperature}: expected a number above 0")
        if self.max_length < 0:
            raise ValueError(f"--max_length {self.max_length}: expected 0 or more")


# paper: skd.md 3.3, DeBERTa-v3, global batch 192, Ranger-AdaBelief under one cycle, the sense loss alone, head frozen.
# small: head input and terms as README's table of choices found them best for minilm; the rate is its teacher's.
# sense_alone and labels_alone are its controls, which leave terms out. large: not tuned, no weights of such a teacher
# could be had; the rate that r1's large encoders need.
LONG_TASK = {"num_train_epochs": 1, "learning_rate": 5e-5}  # as the teacher's
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
    "small": {"SST-2": LONG_TASK},
    "sense_alone": {"SST-2": LONG_TASK},
    "labels_alone": {"SST-2": LONG_TASK},
    "large": {},
}
SMALL = {"num_train_epochs": 3, "learning_rate": 1e-4}
PRESET_DEFAULTS = {
    "paper": {"optimizer": "ranger_adabelief", "lr_scheduler_type": "one_cycle", "weight_decay": 5e-4,
              "max_grad_norm": 0.0, "train_batch_size": 192, "num_train_epochs": 20, "learning_rate": 1e-3,
              "head_input": "senses", "ce_weight": 0.0, "kl_weight": 0.0, "freeze_head": True},
    "small": SMALL,
    "sense_alone": {**SMALL, "ce_weight": 0.0, "kl_weight": 0.0},
    "labels_alone": {**SMALL, "sense_weight": 0.0, "kl_weight": 0.0},
    "large": {"num_train_epochs": 6, "learning_rate": 1e-5},
}
LARGE_WIDTH = 1024


def default_preset(words: dict[str, str]) -> str:
    """`large` for students cut from teachers this wide, `small` for the others; `paper` is for whoever asks for it."""
    return "large" if checkpoint_config(words.get("teacher", Config.teacher)).hidden_size >= LARGE_WIDTH else "small"


class SenseObjective(Objective):
    """The terms `sense` (tokens), `ce` or `mse` and `kl` (examples); a term of weight 0 is not computed."""

    def __init__(self, cfg: Config, task: Task, teacher: Teacher, lookup: SenseLookup, special_ids: list[int]):
        super().__init__()
        self.teacher, self.lookup, self.temperature = teacher, lookup, cfg.temperature
        self.label_term, self.label_loss = ("mse", squared_error) if task.is_regression else ("ce", cross_entropy)
        self.is_regression = task.is_regression
        weights = {"sense": cfg.sense_weight, self.label_term: cfg.ce_weight, "kl": cfg.kl_weight}
        self.term_weights = {name: weight for name, weight in weights.items() if weight > 0}
        learned = lookup.offsets[1:] > lookup.offsets[:-1]
        learned[[token for token in special_ids if token < len(learned)]] = cfg.special_senses
        self.register_buffer("learned", learned, persistent=False)
        self._learned = learned.clone()  # on the CPU, where batches are counted

    def sense_tokens(self, batch, learned: torch.Tensor) -> torch.Tensor:
        """T as a mask [B, T]: real tokens of a type whose senses are learned."""
        inside = batch.input_ids.clamp(max=len(learned) - 1)
        return learned[inside] & (batch.input_ids < len(learned)) & batch.attention_mask.bool()

    def counts(self, batch):
        return {name: int(self.sense_tokens(batch, self._learned).sum()) if name == "sense" else len(batch)
                for name in self.term_weights}

    def weights(self, progress):
        return self.term_weights

    def forward(self, student, batch, progress):
        found, target = student(batch), self.teacher(batch)
        sums = {}
        if "sense" in self.term_weights:
            chosen = self.sense_tokens(batch, self.learned)
            scores_MK = self.lookup.scores(found.hidden[-1][chosen], batch.input_ids[chosen])
            sums["sense"] = sense_cross_entropy(scores_MK, target.senses[chosen]).sum()
        if self.label_term in self.term_weights:
            sums[self.label_term] = self.label_loss(found.logits, batch.target).sum()
        if "kl" in self.term_weights:
            soft = soft_score(found.logits, target.logits) if self.is_regression else \
                soft_targets(found.logits, target.logits, self.temperature)
            sums["kl"] = soft.sum()
        return sums


def build_student(cfg: Config, teacher: Encoder, lookup: SenseLookup) -> Encoder:
    """The student that cfg.student names, its head the teacher's."""
    if is_layer_spec(cfg.student):
        student = truncate(teacher, parse_layers(cfg.student, teacher.depth))
    else:
        student = adapt(pretrained_encoder(cfg.student, teacher.info, teacher.head.dropout.p), teacher)
        if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise ValueError(f"the student {cfg.student} has another vocabulary than the teacher: senses belong to the "
                             "teacher's types; take a student with its vocabulary, or --student truncate:N")
    trains_head = (cfg.ce_weight > 0 or cfg.kl_weight > 0) and not cfg.freeze_head
    student.requires_grad_(True)
    student.head.requires_grad_(trains_head)
    return student.with_head_input(cfg.head_input, lookup)


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores."""
    torch.manual_seed(cfg.seed)
    teacher = load_encoder(cfg.teacher)
    if teacher.info.task != task.name:
        raise ValueError(f"the teacher {cfg.teacher} was trained on {teacher.info.task}, not on {task.name}: train one "
                         f"with `sh r1_teacher_model.sh {task.name}`")
    dictionary = SenseDictionary.load(cfg.senses)
    lookup = dictionary.lookup(workers.device())
    student = build_student(cfg, teacher, lookup)
    train = encode_split(student, task, "train", cfg.data_dir, cfg.max_length)
    dev = dev_splits(student, task, cfg.data_dir, cfg.max_length)
    weights = fingerprint(Path(cfg.teacher))
    run_dir.begin(cfg, {"data": {split: data_fingerprint(task, split, cfg.data_dir) for split in ("train", *dev)},
                        "teacher": weights, "senses": dict(dictionary.provenance)})
    live = LiveTeacher(teacher, lookup, cfg)
    key = cache_key(weights, dictionary.digest(), train, cfg)
    cached = cached_teacher(live, train, Path(cfg.cache_dir or run_dir.path / "cache") / key)
    special = [student.tokenizer.cls_token_id, student.tokenizer.sep_token_id, student.tokenizer.pad_token_id]
    objective = SenseObjective(cfg, task, cached, lookup, special)
    stream = TrainStream(train, task.name, student.tokenizer.pad_token_id, cfg.train_batch_size, cfg.seed)
    with held_vocabulary(cfg, student, train, *dev.values()):
        return fit(student, objective, stream, cfg, run_dir, lambda model: score(model, task, dev))
