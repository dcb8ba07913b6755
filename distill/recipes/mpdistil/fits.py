"""The four fits of MPDistil, and that of the other tasks' heads before they are used."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from torch import Tensor

from data_utils.batching import InTurn, TrainStream
from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill import workers
from distill.curriculum import Curriculum, CurriculumSettings
from distill.distillation import Distillation
from distill.engine import fit
from distill.evaluate import score
from distill.layer_maps import layer_pairs
from distill.meta_teacher import HeadLearning, Learning, MetaScores, MetaTeaching, QuizObserver, answers, features, pooled
from distill.precision import autocast
from distill.recipes import finetune
from distill.recipes.mpdistil.settings import Config
from distill.rundir import RunDir
from distill.scores import Scores
from distill.stages import Stages, seed_of
from distill.task_fit import fit_on_task
from distill.teacher import LiveTeacher
from distill.teacher_cache import cache_key, cached_teacher
from distill.terms import ClsStates, Labels, SoftProbabilities, SoftTargets, Term
from distill.vocabulary import held_vocabulary
from models.checkpoint import load_encoder
from models.encoder import Encoder
from models.multitask import MultiTask
from models.truncate import parse_layers, truncate
from models.weights import fingerprint

QUIZ = "quiz"
CONSTANT = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0, "warmup_steps": 0}


@dataclass(frozen=True)
class Data:
    """The main task as one model reads it."""

    train: EncodedDataset
    quiz: EncodedDataset
    evaluation: Mapping[str, EncodedDataset]


def stage_name(cfg: Config, kind: str, number: int | None = None) -> str:
    """Of a stage, in the round `number` where there are several: competing meta-teachers are others, and so is the student that they teach."""
    competing = cfg.use_comp_loss and (kind == "meta" or cfg.in_turns)
    return f"{kind}{'-competing' if competing else ''}{'' if number is None or not cfg.in_turns else f'-{number:02d}'}"


def stage_config(cfg: Config, **changed) -> finetune.Config:
    """The training settings of a fit, with `changed` ones."""
    own = {entry.name: getattr(cfg, entry.name) for entry in fields(finetune.Config) if hasattr(cfg, entry.name)}
    return finetune.Config(**{**own, **changed})


def fit_teacher(cfg: Config, task: Task, teacher: Encoder, data: Data, run_dir: RunDir) -> Scores:
    """The first fit: the teacher, on the labels."""
    stage = stage_config(cfg, learning_rate=cfg.teacher_learning_rate, num_train_epochs=cfg.teacher_epochs)
    return fit_on_task(teacher, finetune.LabelObjective(task), task, data.train, data.evaluation, stage, run_dir)


def fit_student_and_meta(cfg: Config, task: Task, teacher: RunDir, read: Mapping[str, np.ndarray], data: Data, stages: Stages) -> tuple[RunDir, Tensor]:
    """The second and the third fit; interleaved, a pair of them for every epoch, in which the meta-teacher of the epoch before
    teaches. `read`: by split, what the meta-teacher's last layer reads. The best student, the best meta-teacher's answers to the quiz, [N, C]."""
    whole = load_encoder(teacher.best)
    student = truncate(whole, parse_layers(cfg.student, whole.depth))
    students, metas, checksum = [], [teacher], ""
    for number in range(int(cfg.num_train_epochs) if cfg.in_turns else 1):
        students.append(_student_stage(cfg, task, metas[-1], student, checksum, data, stages, number))
        student, checksum = load_encoder(students[-1].best), fingerprint(students[-1].best)
        metas.append(_meta_stage(cfg, task, metas[-1], student, checksum, read, data, stages, number))
    studied, asked = (max(runs, key=lambda run: run.scores().selection) for runs in (students, metas[1:]))
    return studied, answers(load_encoder(asked.best).eval(), torch.from_numpy(read[QUIZ])).detach()


def _student_stage(cfg: Config, task: Task, signal: RunDir, student: Encoder, checksum: str, data: Data, stages: Stages, number: int) -> RunDir:
    """The second fit: the student, on labels, soft targets and [CLS] states of the run `signal`'s best model. `checksum`: the
    student's, where it has been trained."""
    stage = stage_config(cfg, num_train_epochs=1 if cfg.in_turns else cfg.num_train_epochs, seed=seed_of(cfg.seed, number))
    return stages.run(stage_name(cfg, "student", number), lambda run_dir: _fit_student(stage, cfg, task, student, signal, data, run_dir),
                      teacher=fingerprint(signal.best), student=checksum)


def _meta_stage(cfg: Config, task: Task, meta: RunDir, student: Encoder, checksum: str, read: Mapping[str, np.ndarray], data: Data,
                stages: Stages, number: int) -> RunDir:
    """The third fit: the last layer of the run `meta`'s best model, on the quiz, with or against `student`."""
    stage = stage_config(cfg, num_train_epochs=1 if cfg.in_turns else cfg.meta_epochs, max_steps=0, learning_rate=cfg.meta_learning_rate,
                         seed=seed_of(cfg.seed, number), **CONSTANT)
    return stages.run(stage_name(cfg, "meta", number), lambda run_dir: _fit_meta(stage, cfg, task, load_encoder(meta.best), student, read, data, run_dir),
                      teacher=fingerprint(meta.best), student=checksum)


def _fit_student(stage: finetune.Config, cfg: Config, task: Task, student: Encoder, signal: RunDir, data: Data, run_dir: RunDir) -> Scores:
    teacher = load_encoder(signal.best)
    soft: Term = (SoftTargets if cfg.soft_loss == "kl" else SoftProbabilities)(task, cfg.temperature)
    weighted = [(Labels(task), 1 - cfg.alpha), (soft, cfg.alpha)]
    if cfg.beta:
        pairs = layer_pairs(cfg.layer_map, student.depth, teacher.depth)
        weighted.append((ClsStates(pairs, student, teacher), cfg.beta / (len(pairs) * teacher.width)))
    objective = Distillation(None, weighted)
    key = cache_key(f"{fingerprint(signal.best)} {teacher.info}", "", data.train, cfg, objective.wanted)
    live, cached = LiveTeacher(teacher, cfg, objective.wanted), workers.one_machine() and stage.passes(len(data.train)) >= 1
    objective.teacher = cached_teacher(live, data.train, run_dir.cache / key) if cached else live
    del teacher, live  # where its outputs are cached
    student.requires_grad_(True)
    return fit_on_task(student, objective, task, data.train, data.evaluation, stage, run_dir)


def _fit_meta(stage: finetune.Config, cfg: Config, task: Task, meta: Encoder, student: Encoder, read: Mapping[str, np.ndarray], data: Data,
              run_dir: RunDir) -> Scores:
    meta.requires_grad_(False)
    meta.head.out.requires_grad_(True)
    objective = MetaTeaching(task, data.quiz, read[QUIZ], features(student.to(workers.device()), data.quiz), cfg.use_comp_loss)
    stream = TrainStream(data.quiz, task.name, meta.tokenizer.pad_token_id, stage.train_batch_size, stage.seed)
    return fit(meta, objective, stream, stage, run_dir, MetaScores(task, data.evaluation, read))


def warm_heads(cfg: Config, student: MultiTask, others: dict[str, Task], pools: Mapping[str, EncodedDataset], run_dir: RunDir) -> None:
    """The heads of the other tasks, before they are used: on their quizzes, above the student as it is."""
    student.to(workers.device()).requires_grad_(False)
    with autocast(cfg, workers.device()):
        read = {name: pooled(student, name, pools[name]) for name in others}
    student.heads.requires_grad_(True)
    streams = [TrainStream(pools[name], name, student.tokenizer.pad_token_id, cfg.train_batch_size, cfg.seed) for name in others]
    stage = stage_config(cfg, max_steps=0, learning_rate=cfg.meta_learning_rate, trim_vocabulary=False, **CONSTANT)
    fit(student, HeadLearning(others, pools, read), InTurn(streams), stage, run_dir)


def episodes(cfg: Config) -> CurriculumSettings:
    """How the curriculum goes."""
    return CurriculumSettings(cfg.policy, cfg.episode_batch_size, cfg.episode_steps, cfg.policy_learning_rate, cfg.discount,
                              cfg.step_every == "episode", cfg.seed)


def curriculum(cfg: Config, tasks: dict[str, Task], student: MultiTask, before: Scores, answered: Tensor, data: Data,
               pools: Mapping[str, EncodedDataset], run_dir: RunDir) -> Scores:
    """The fourth fit: the student, of the scores `before`, on what the policy chooses; `answered`: what the meta-teacher did to the quiz, [N, C]."""
    main = next(iter(tasks))
    observer = QuizObserver(tasks[main], data.quiz, answered, student.width, cfg, cfg.reward_function, cfg.step_every == "episode")
    student.to(workers.device()).requires_grad_(True)
    stream = Curriculum(pools, data.quiz, student.tokenizer.pad_token_id, observer, student, episodes(cfg),
                        lambda record: workers.on_main(partial(run_dir.log, record)))
    steps = cfg.num_episodes * stream.steps_per_epoch
    stage = stage_config(cfg, max_steps=steps, eval_steps=cfg.eval_episodes * stream.steps_per_epoch,
                          learning_rate=cfg.episode_learning_rate, train_batch_size=cfg.episode_batch_size, **CONSTANT)
    with held_vocabulary(stage, student, *pools.values(), data.quiz, *data.evaluation.values()):
        return fit(student, Learning(tasks, cfg.compete), stream, stage, run_dir,
                   lambda model, to_beat: score(model, tasks[main], data.evaluation, to_beat=to_beat), known=before)
