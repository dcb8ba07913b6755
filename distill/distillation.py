"""Distilling a fine-tuned teacher on its task: what all such recipes share. A recipe adds its terms and their settings."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from data_utils.tasks import Task
from distill import workers
from distill.config import ABOVE_0, FROM_0, TaskConfig, check_weights, setting
from distill.evaluate import check_length, note_reading
from distill.objective import Objective
from distill.precision import check_precision
from distill.presets import preset_of
from distill.rundir import RunDir, read_json
from distill.schedules import Weight
from distill.scores import Scores
from distill.senses.dictionary import DICTIONARY, SenseDictionary
from distill.splits import read_splits, split_fingerprints, train_split, warn_of_seen
from distill.task_fit import fit_on_task
from distill.teacher import LiveTeacher, NoTeacher, Teacher, Wanted
from distill.teacher_cache import cache_bytes, cache_key, cached_teacher, sense_type
from distill.terms import Labels, SoftTargets, Term
from models.checkpoint import checkpoint_config, load_encoder
from models.encoder import Encoder
from models.heads import SenseLookup
from models.outputs import Outputs
from models.pretrained import model_fingerprint, pretrained_encoder
from models.truncate import adapt, is_layer_spec, parse_layers, truncate
from models.weights import fingerprint

WeightedTerm = tuple[Term, float | Weight]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DistilConfig(TaskConfig):
    """What every recipe reads that distils a teacher on its task."""

    output_dir: str = setting("./runs/student", "the run directory")
    teacher: str = setting("./runs/teacher/best", "checkpoint folder of the teacher")
    student: str = setting("truncate:half", "truncate:N, uniform:N or layers:0,2,4 of the teacher, or a hub id, folder or minilm")
    student_layers: str = setting("all", "layers to keep of a student that is a model of its own: all, truncate:N, uniform:N, layers:0,2")
    ce_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the loss on the labels")
    kl_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the teacher's soft targets (for regression: squared error)")
    temperature: Annotated[float, ABOVE_0] = setting(2.0, "temperature of the soft targets")
    freeze_head: bool = setting(False, "keep the teacher's head as it is")
    cache_dir: str = setting("", "folder of the teacher's cached outputs, for runs to share; empty: output_dir, until the run ends")
    max_cache_gib: Annotated[float, FROM_0] = setting(16.0, "run the teacher at every step where its cached outputs would take more")

    def __post_init__(self):
        super().__post_init__()
        check_weights(self)
        if self.student_layers != "all" and is_layer_spec(self.student):
            raise ValueError(f"--student_layers {self.student_layers}: --student {self.student} already names layers, the "
                             "teacher's; give one of the two")


def default_preset(words: dict[str, str]) -> str:
    """By the width of the teacher's hidden states: `large`, `base`, or `small` below both; `paper` is for whoever asks for it."""
    return preset_of(checkpoint_config(words.get("teacher", DistilConfig.teacher)).hidden_size)


def facts(cfg: DistilConfig, task: Task, senses: SenseDictionary | None = None) -> dict:
    """What a run reads: checksums of the splits, of the teacher's weights, and of the student's where it is not cut from the teacher; what
    the teacher's head is; of `senses` the provenance and the table."""
    return {"data": split_fingerprints(task, cfg), "teacher": fingerprint(Path(cfg.teacher)), "teacher's head": read_json(Path(cfg.teacher) / "task.json"),
            **({} if is_layer_spec(cfg.student) else {"student": model_fingerprint(cfg.student)}),
            **({"senses": dict(senses.provenance), DICTIONARY: senses.digest()} if senses else {})}


class Distillation(Objective):
    """A weighted sum of terms; one is not computed while its weight is 0."""

    def __init__(self, teacher: Teacher | None, terms: Sequence[WeightedTerm]):
        super().__init__()
        self.teacher = teacher
        self.terms = torch.nn.ModuleDict({term.name: term for term, weight in terms if weight})
        self.term_weights = {term.name: weight for term, weight in terms if weight}

    @property
    def wanted(self) -> Wanted:
        """What the terms read of the teacher."""
        found = Wanted()
        for term in self.terms.values():
            found |= term.wanted
        return found

    def counts(self, batch):
        return {name: term.count(batch) for name, term in self.terms.items()}

    def weights(self, progress):
        return {name: weight(progress) if callable(weight) else weight for name, weight in self.term_weights.items()}

    def forward(self, student, batch, progress):
        teacher = self.teacher(batch)  # first: what it looks up by the batch would wait for the student's pass on a GPU
        return self.sums(student(batch), teacher, batch, self.weights(progress))

    def sums(self, student: Outputs, teacher: Outputs, batch, weights: dict[str, float]) -> dict[str, Tensor]:
        """The sum of each term over a micro-batch, of what both gave for it."""
        return {name: student.nothing + value for name, value in self.bare_sums(student, teacher, batch, weights).items()}

    def bare_sums(self, student: Outputs, teacher: Outputs, batch, weights: dict[str, float]) -> dict[str, Tensor]:
        """sums(), functions of nothing but the parameters that a term reads."""
        return {name: term(student, teacher, batch) if weights[name] else 0.0 * sum(map(torch.sum, term.parameters()))
                for name, term in self.terms.items()}


def label_terms(cfg: DistilConfig, task: Task) -> list[WeightedTerm]:
    """The labels and the teacher's soft targets."""
    return [(Labels(task), cfg.ce_weight), (SoftTargets(task, cfg.temperature), cfg.kl_weight)]


def build_student(cfg: DistilConfig, teacher: Encoder) -> Encoder:
    """The student that cfg.student names, its head the teacher's."""
    if is_layer_spec(cfg.student):
        student = truncate(teacher, parse_layers(cfg.student, teacher.depth))
    else:
        student = pretrained_encoder(cfg.student, teacher.info, teacher.head.dropout.p)
        student = adapt(truncate(student, parse_layers(cfg.student_layers, student.depth)), teacher)
    student.requires_grad_(True)
    student.head.requires_grad_((cfg.ce_weight > 0 or cfg.kl_weight > 0) and not cfg.freeze_head)
    return student


def distil(cfg: DistilConfig, task: Task, run_dir: RunDir, terms: Callable[[Encoder, Encoder], Sequence[WeightedTerm]],
           senses: SenseDictionary | None = None, lookup: SenseLookup | None = None, head_input: str = "continuous") -> Scores:
    """Distil cfg.teacher into cfg.student on `task`; best/ and last/ in run_dir. Returns the best epoch's scores.

    `terms(student, teacher)` gives what is minimised; `senses`, their `lookup` and `head_input` are for recipes that read
    senses.
    ValueError where teacher, senses, student and terms do not fit each other.
    """
    check_precision(cfg, workers.device())
    torch.manual_seed(cfg.seed)
    teacher = load_encoder(cfg.teacher)
    if teacher.info.task != task.name:
        raise ValueError(f"the teacher {cfg.teacher} was trained on {teacher.info.task}, not on {task.name}: train one "
                         f"with `sh r1_teacher_model.sh {task.name}`")
    if teacher.info.labels != task.labels:
        raise ValueError(f"the teacher {cfg.teacher} has its labels as {', '.join(teacher.info.labels)}, {task.name} as {', '.join(task.labels)}: "
                         f"`python -m distill convert {task.name} {cfg.teacher} FOLDER` brings them into order")
    read_by_run = facts(cfg, task, senses)
    weights = read_by_run["teacher"]
    if senses is not None:
        senses.check_teacher(weights, teacher.depth)
    student = build_student(cfg, teacher).with_head_input(head_input, lookup)
    note_reading(student, task, cfg.max_length, cfg.windows)
    objective = Distillation(None, terms(student, teacher))
    same_vocabulary = student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    if (objective.wanted.of_tokens or task.spans) and not same_vocabulary:
        who, others = (task.name, "") if task.spans else ("this recipe", "logit_kd and pkd compare whole examples and remain possible; or ")
        raise ValueError(f"the student {cfg.student} has another vocabulary than the teacher, and {who} compares their tokens one by one: "
                         f"{others}take a student with the teacher's vocabulary, or --student truncate:N")
    warn_of_seen(Path(cfg.teacher), cfg)
    train, evaluation = read_splits(student, task, cfg)
    read = train if same_vocabulary else train_split(teacher, task, cfg)
    check_length(teacher, int(read.lengths.max()))
    run_dir.begin(cfg, read_by_run)
    key = cache_key(f"{weights} {teacher.info}", f"{senses.digest()} {lookup.similarity} {sense_type(lookup)}" if senses else "", read, cfg, objective.wanted)
    live = LiveTeacher(teacher, cfg, objective.wanted, lookup)
    objective.teacher = cached_or_live(live, read, Path(cfg.cache_dir or run_dir.cache) / key, cfg, same_vocabulary)
    del teacher, live  # where its outputs are cached, so that the student has its memory too
    return fit_on_task(student, objective, task, train, evaluation, cfg, run_dir)


def cached_or_live(live: LiveTeacher, dataset, folder: Path, cfg: DistilConfig, same_vocabulary: bool) -> Teacher:
    """The teacher's outputs computed once over all examples; none where none are read (labels alone). It runs at every step where
    why_live() says so. `same_vocabulary`: it reads the batches of the student."""
    if live.wanted == Wanted():
        return NoTeacher()
    if why := why_live(live, dataset, cfg, same_vocabulary):
        logger.info("the teacher runs at every step: %s", why)
        return live
    return cached_teacher(live, dataset, folder)


def why_live(live: LiveTeacher, dataset, cfg: DistilConfig, same_vocabulary: bool) -> str:
    """Why the teacher's outputs are not cached, "" where they are. One of another vocabulary reads other batches than the student: it can
    only be cached."""
    if same_vocabulary and not workers.one_machine():
        return "on several machines no file is written by all"
    size = cache_bytes(live, dataset) / 2**30
    if (live.wanted.of_tokens or live.encoder.info.spans) and size > cfg.max_cache_gib:
        return f"its outputs would take {size:.1f} GiB (--max_cache_gib {cfg.max_cache_gib:g})"
    if same_vocabulary and workers.device().type == "cuda" and (live.wanted.hidden or live.wanted.projections) and not cfg.cache_dir:
        return "a GPU computes states faster than they are read (--cache_dir FOLDER keeps them all the same)"
    if same_vocabulary and cfg.passes(len(dataset)) < 1 and not cfg.cache_dir:
        return "the run is shorter than one epoch"
    return ""
