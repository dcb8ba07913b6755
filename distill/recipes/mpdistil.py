"""MPDistil (Sengupta et al., ICLR 2024): a student learns from a teacher, the teacher from the student, and a policy which
task to study next. mpdistil.md; four fits:

    teacher      labels                                                        on train, without the quiz
    student      (1 - alpha) labels + alpha soft targets + beta [CLS] states   on train, without the quiz
    meta         the teacher's last layer, asked with and against the student  on the quiz (meta_teacher.py)
    curriculum   the student, on quizzes of all tasks that a policy chooses    rewarded on the main task's (curriculum.py)

The quiz is a tenth of every class of train, fixed. Differs from the published code as mpdistil.md 6 resolves its defects:
the student steps after every action, states carry no gradient, dropout is on, the heads of other tasks are trained before
they are used, and what selects is a further tenth of train. --preset paper keeps what was published.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from data_utils.batching import InTurn, TrainStream
from data_utils.draws import HELD_OUT, split_quiz
from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill import workers
from distill.action_space import FOUND, other_tasks
from distill.config import ABOVE_0, BELOW_1, FROM_0, SHARE, TaskConfig, one_of, setting
from distill.curriculum import POLICIES, Curriculum, Settings
from distill.distillation import Distillation
from distill.engine import fit
from distill.evaluate import score, task_info
from distill.layer_maps import layer_pairs
from distill.meta_teacher import REWARDS, HeadLearning, Learning, MetaScores, MetaTeaching, QuizObserver, answers, features, pooled
from distill.meta_teacher import load_features, save_features
from distill.precision import autocast
from distill.presets import SMALL
from distill.recipes import finetune
from distill.rundir import RunDir
from distill.scores import Scores
from distill.splits import quiz_of, read_splits, split_fingerprints
from distill.teacher import LiveTeacher
from distill.teacher_cache import cache_key, cached_teacher
from distill.terms import ClsStates, Labels, SoftProbabilities, SoftTargets, Term
from distill.stages import Stages
from distill.vocabulary import held_vocabulary
from models.checkpoint import load_encoder
from models.encoder import Encoder
from models.heads import POOLINGS, TOKENS
from models.multitask import MultiTask
from models.pretrained import model_fingerprint
from models.truncate import parse_layers, truncate
from models.weights import fingerprint

logger = logging.getLogger(__name__)
QUIZ = "quiz"
SOFT_LOSSES, SCHEDULES, MAIN_POOLS = ("kl", "mse_prob"), ("sequential", "interleaved"), (QUIZ, "train")


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Settings of MPDistil; learning_rate and num_train_epochs are the student's, in the second fit."""

    output_dir: str = setting("./runs/mpdistil", "the run directory; the fits before the last are runs inside it")
    stages_dir: str = setting("", "folder of those fits, for runs to share that differ in what comes after; empty: output_dir")
    model: str = setting("bert-base-uncased", "the teacher before it is fine-tuned: hub id, folder, or minilm")
    student: str = setting("truncate:half", "truncate:N or layers:0,2,4 of the teacher")
    pooling: Annotated[str, one_of((*POOLINGS, TOKENS))] = setting("mean", "what the heads read: cls, first_token or mean")
    head_dropout: Annotated[float, BELOW_1] = setting(0.1, "dropout before a head's last layer")
    tasks: str = setting(FOUND, "the other tasks of the curriculum, joined by commas; found: those of MPDistil's tables that lie in data_dir")
    teacher_learning_rate: Annotated[float, ABOVE_0] = setting(2e-5, "peak learning rate of the teacher")
    teacher_epochs: Annotated[float, ABOVE_0] = setting(3.0, "passes of the teacher over the training set")
    alpha: Annotated[float, SHARE] = setting(0.5, "weight of the soft targets; that of the labels is 1 - alpha")
    beta: Annotated[float, FROM_0] = setting(100.0, "weight of the mean squared difference of normalised [CLS] states")
    temperature: Annotated[float, ABOVE_0] = setting(5.0, "temperature of the soft targets")
    soft_loss: Annotated[str, one_of(SOFT_LOSSES)] = setting("kl", "of the soft targets: kl, or mse_prob, the squared error of probabilities")
    layer_map: str = setting("skip", "layers whose [CLS] states are compared: skip, last, first, uniform, or pairs as 1:2,2:4")
    schedule: Annotated[str, one_of(SCHEDULES)] = setting(
        "sequential", "student, then meta-teacher; or interleaved, epoch by epoch, each with a schedule of its own: the meta-teacher teaches on")
    meta_learning_rate: Annotated[float, ABOVE_0] = setting(1e-3, "learning rate of the meta-teacher's last layer")
    meta_epochs: Annotated[float, ABOVE_0] = setting(10.0, "passes of the meta-teacher over the quiz")
    use_comp_loss: bool = setting(False, "the meta-teacher competes with the student instead of collaborating")
    compete: bool = setting(True, "the student of the curriculum lowers its doubt too; the meta-teacher's, against it, is constant to it")
    policy: Annotated[str, one_of(POLICIES)] = setting("learned", "which task comes next: learned, random, or main (the main task alone)")
    policy_learning_rate: Annotated[float, ABOVE_0] = setting(1e-2, "learning rate of the policy")
    discount: Annotated[float, SHARE] = setting(0.0, "of the rewards of later actions in what one is credited with; 0: its own step's alone")
    reward_function: Annotated[str, one_of(REWARDS)] = setting(
        "binary", "of a quiz example: binary, whether the student beats the meta-teacher, or real, by how much")
    num_episodes: Annotated[int, ABOVE_0] = setting(200, "episodes; after each the policy learns")
    episode_steps: Annotated[int, FROM_0] = setting(0, "actions of an episode at most; 0: a pass over the quiz, one for each of its batches")
    eval_episodes: Annotated[int, ABOVE_0] = setting(10, "evaluate the curriculum's student after every so many episodes")
    episode_batch_size: Annotated[int, ABOVE_0] = setting(8, "examples of a batch of the curriculum")
    episode_learning_rate: Annotated[float, ABOVE_0] = setting(3e-5, "learning rate of the student in the curriculum")
    main_pool: Annotated[str, one_of(MAIN_POOLS)] = setting(
        "quiz", "what the curriculum has of the main task: quiz, as published, which rewards it too; or train, of which the quiz is no part")
    pool_size: Annotated[int, FROM_0] = setting(1000, "examples of another task's quiz that are drawn from, at most; 0: all")
    step_every: Annotated[str, one_of(("action", "episode"))] = setting(
        "action", "the student steps after every action, or episode: once, over all its batches")

    def __post_init__(self):
        super().__post_init__()
        if self.schedule == "interleaved" and self.num_train_epochs % 1:
            raise ValueError(f"--schedule interleaved: --num_train_epochs {self.num_train_epochs:g}: expected whole epochs, since "
                             "student and meta-teacher take turns after each")
        if self.fsdp:
            raise ValueError("--fsdp: MPDistil's fits read and answer with whole models; leave it out")


# paper: the published code (mpdistil.md 2 and 4), its schedule and its selection on dev. Differs: the optimiser starts again
# with every epoch of the interleaved fits; dropout is on; the policy learns as curriculum.py says, but for its rewards.
# small: for minilm, the rates of its own presets; the policy's is ten times the published one, with which 200 steps of AdamW
# cannot move it (test_curriculum.py). Not tuned.
PER_TASK = {"paper": {}, "small": {}}
PRESET_DEFAULTS = {
    "paper": {"train_batch_size": 8, "learning_rate": 3e-5, "num_train_epochs": 10, "teacher_epochs": 10, "lr_scheduler_type": "constant",
              "warmup_ratio": 0.0, "pooling": "cls", "soft_loss": "mse_prob", "layer_map": "first", "schedule": "interleaved",
              "policy_learning_rate": 1e-3, "discount": 0.99, "step_every": "episode", "eval_episodes": 1, "pool_size": 0, "select_on": "dev"},
    "small": {**SMALL, "teacher_learning_rate": 1e-4, "select_on": HELD_OUT},
}


def default_preset(words: dict[str, str]) -> str:
    """`small`; `paper` is for whoever asks for it."""
    return "small"


@dataclass(frozen=True)
class Data:
    """The main task as one model reads it."""

    train: EncodedDataset
    quiz: EncodedDataset
    evaluation: Mapping[str, EncodedDataset]


def facts(cfg: Config, task: Task) -> dict:
    """What a run reads: checksums of all tasks' splits and of the model; the tasks that were found, where they were not named."""
    return _facts(cfg, task, other_tasks(task, cfg.tasks, cfg.data_dir))


def _facts(cfg: Config, task: Task, others: list[Task]) -> dict:
    return {**{f"data {entry.name}": split_fingerprints(entry, cfg) for entry in (task, *others)}, "model": model_fingerprint(cfg.model),
            **({"tasks": [entry.name for entry in others]} if cfg.tasks == FOUND else {})}


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """The four fits; the last student is run_dir/best, the fits before it are runs of their own inside run_dir. Returns the
    scores of the curriculum's best evaluation."""
    others = other_tasks(task, cfg.tasks, cfg.data_dir)
    if not others and cfg.policy != "main":
        raise ValueError(f"--tasks {cfg.tasks}: no task but {task.name} to choose; name others (`python -m distill data tasks` lists them), "
                         "or give --policy main")
    read = _facts(cfg, task, others)
    start = finetune.start(_stage_config(cfg, learning_rate=cfg.teacher_learning_rate, num_train_epochs=cfg.teacher_epochs), task)
    train, evaluation = read_splits(start, task, cfg)
    data = Data(*split_quiz(train), evaluation)
    pools = {task.name: data.train if cfg.main_pool == "train" else data.quiz}
    pools |= {entry.name: quiz_of(start, entry, cfg, cfg.pool_size) for entry in others}
    _settings(cfg).check(task, len(data.quiz))
    run_dir.begin(cfg, read)
    of_main = {name: read[name] for name in (f"data {task.name}", "model")}
    stages = Stages(cfg, RunDir(cfg.stages_dir) if cfg.stages_dir else run_dir, of_main, _unread(cfg))
    teacher = stages.run("teacher", lambda place: _teach(cfg, task, start, data, place))
    states = stages.run("features", lambda place: save_features(place.path, load_encoder(teacher.best), {QUIZ: data.quiz, **data.evaluation}),
                      teacher=fingerprint(teacher.best))
    studied, answered = _study(cfg, task, teacher, load_features(states.path), data, stages)
    torch.manual_seed(cfg.seed)  # the other tasks' heads start alike, whichever fits were made in this sitting
    student = MultiTask(load_encoder(studied.best), [task_info(entry, cfg.pooling) for entry in others])
    if others:
        heads = stages.run("heads", lambda place: _warm_heads(cfg, student, {entry.name: entry for entry in others}, pools, place),
                           **read, student=fingerprint(studied.best))
        student.restore(heads.last)
    before = studied.scores()
    scores = _curriculum(cfg, {entry.name: entry for entry in (task, *others)}, student, before, answered, data, pools, run_dir)
    if scores.selection <= before.selection:
        logger.warning("the curriculum has not bettered its student on %s (%.1f before it, %.1f at best in it): the student before it is %s",
                       scores.selected_on, 100 * before.selection, 100 * scores.selection, studied.best)
    return scores


LATER = {  # settings that a stage does not read; those of the curriculum none does
    "teacher": ("num_train_epochs", "learning_rate", "student", "alpha", "beta", "temperature", "soft_loss", "layer_map", "schedule",
                "meta_learning_rate", "meta_epochs", "use_comp_loss", "tasks", "pool_size"),
    "student": ("meta_learning_rate", "meta_epochs", "use_comp_loss", "tasks", "pool_size"), "meta": ("tasks", "pool_size"),
    "heads": ("meta_epochs", "use_comp_loss"),
}
LATER["features"] = LATER["teacher"]
OF_CURRICULUM = ("output_dir", "stages_dir", "compete", "policy", "policy_learning_rate", "discount", "reward_function", "num_episodes",
                 "eval_episodes", "episode_steps", "episode_batch_size", "episode_learning_rate", "main_pool", "step_every")


def _unread(cfg: Config) -> dict[str, tuple[str, ...]]:
    """By kind of stage, the settings that only later ones read. Interleaved, the student is one."""
    later = {**LATER, "student": ()} if cfg.schedule == "interleaved" else LATER
    return {kind: (*OF_CURRICULUM, *names) for kind, names in later.items()}


def _stage_config(cfg: Config, **changed) -> finetune.Config:
    """The training settings of a fit, with `changed` ones."""
    own = {entry.name: getattr(cfg, entry.name) for entry in fields(finetune.Config) if hasattr(cfg, entry.name)}
    return finetune.Config(**{**own, **changed})


def _teach(cfg: Config, task: Task, teacher: Encoder, data: Data, place: RunDir) -> Scores:
    """The first fit: the teacher, on the labels."""
    stage = _stage_config(cfg, learning_rate=cfg.teacher_learning_rate, num_train_epochs=cfg.teacher_epochs)
    return _fit(stage, task, teacher, finetune.LabelObjective(task), data, place)


def _study(cfg: Config, task: Task, teacher: RunDir, read: Mapping[str, np.ndarray], data: Data, stages: Stages) -> tuple[RunDir, Tensor]:
    """The second and the third fit; interleaved, a pair of them for every epoch, in which the meta-teacher of the epoch before
    teaches. `read`: by split, what the meta-teacher's last layer reads. The best student, the best meta-teacher's answers to the quiz, [N, C]."""
    in_turns = cfg.schedule == "interleaved"
    rounds, epochs, meta_epochs = (int(cfg.num_train_epochs), 1, 1) if in_turns else (1, cfg.num_train_epochs, cfg.meta_epochs)
    learning = _stage_config(cfg, num_train_epochs=epochs)
    asking = _stage_config(cfg, num_train_epochs=meta_epochs, learning_rate=cfg.meta_learning_rate, lr_scheduler_type="constant", warmup_ratio=0.0)
    whole = load_encoder(teacher.best)
    student = truncate(whole, parse_layers(cfg.student, whole.depth))
    students, metas, meta, before = [], [], teacher, ""
    for number in range(rounds):
        ending = f"-{number:02d}" if in_turns else ""
        students.append(stages.run(f"student{ending}", lambda place: _distil(learning, cfg, task, student, meta, data, place),
                                   teacher=fingerprint(meta.best), student=before))
        student, before = load_encoder(students[-1].best), fingerprint(students[-1].best)
        metas.append(stages.run(f"meta{'-competing' if cfg.use_comp_loss else ''}{ending}",
                                lambda place: _ask(asking, cfg, task, load_encoder(meta.best), student, read, data, place),
                                teacher=fingerprint(meta.best), student=before))
        meta = metas[-1]
    studied, asked = (max(runs, key=lambda run: run.scores().selection) for runs in (students, metas))
    return studied, answers(load_encoder(asked.best).eval(), torch.from_numpy(read[QUIZ])).detach()


def _distil(stage: finetune.Config, cfg: Config, task: Task, student: Encoder, signal: RunDir, data: Data, place: RunDir) -> Scores:
    """The second fit: the student, on labels, soft targets and [CLS] states of the run `signal`'s best model."""
    teacher = load_encoder(signal.best)
    pairs = layer_pairs(cfg.layer_map, student.depth, teacher.depth)
    cls = ClsStates(pairs, student, teacher)
    soft: Term = (SoftTargets if cfg.soft_loss == "kl" else SoftProbabilities)(task, cfg.temperature)
    weighted = [(Labels(task), 1 - cfg.alpha), (soft, cfg.alpha), (cls, cfg.beta / (len(pairs) * teacher.width))]
    objective = Distillation(None, weighted)
    key = cache_key(fingerprint(signal.best), "", data.train, cfg, objective.wanted)
    live, reads_all = LiveTeacher(teacher, cfg, objective.wanted), stage.passes(len(data.train)) >= 1
    objective.teacher = cached_teacher(live, data.train, place.cache / key) if reads_all else live
    del teacher, live  # where its outputs are cached
    student.requires_grad_(True)
    return _fit(stage, task, student, objective, data, place)


def _ask(stage: finetune.Config, cfg: Config, task: Task, meta: Encoder, student: Encoder, read: Mapping[str, np.ndarray], data: Data,
         place: RunDir) -> Scores:
    """The third fit: the last layer of the teacher, on the quiz."""
    meta.requires_grad_(False)
    meta.head.out.requires_grad_(True)
    objective = MetaTeaching(task, data.quiz, read[QUIZ], features(student.to(workers.device()), data.quiz), cfg.use_comp_loss)
    stream = TrainStream(data.quiz, task.name, meta.tokenizer.pad_token_id, stage.train_batch_size, stage.seed)
    return fit(meta, objective, stream, stage, place, MetaScores(task, data.evaluation, read))


def _fit(stage: finetune.Config, task: Task, model: Encoder, objective, data: Data, place: RunDir) -> Scores:
    """One of the first two fits, selected like any run."""
    stream = TrainStream(data.train, task.name, model.tokenizer.pad_token_id, stage.train_batch_size, stage.seed)
    with held_vocabulary(stage, model, data.train, data.quiz, *data.evaluation.values()):
        return fit(model, objective, stream, stage, place,
                   lambda encoder, to_beat: score(encoder, task, data.evaluation, to_beat=to_beat))


def _warm_heads(cfg: Config, student: MultiTask, others: dict[str, Task], pools: Mapping[str, EncodedDataset], place: RunDir) -> None:
    """The heads of the other tasks, before they are used: on their quizzes, above the student as it is."""
    student.to(workers.device()).requires_grad_(False)
    with autocast(cfg, workers.device()):
        read = {name: pooled(student, name, pools[name]) for name in others}
    student.heads.requires_grad_(True)
    streams = [TrainStream(pools[name], name, student.tokenizer.pad_token_id, cfg.train_batch_size, cfg.seed) for name in others]
    stage = _stage_config(cfg, learning_rate=cfg.meta_learning_rate, lr_scheduler_type="constant", warmup_ratio=0.0, trim_vocabulary=False)
    fit(student, HeadLearning(others, pools, read), InTurn(streams), stage, place)


def _settings(cfg: Config) -> Settings:
    return Settings(cfg.policy, cfg.episode_batch_size, cfg.episode_steps, cfg.policy_learning_rate, cfg.discount, cfg.step_every == "episode",
                    cfg.seed)


def _curriculum(cfg: Config, tasks: dict[str, Task], student: MultiTask, before: Scores, answered: Tensor, data: Data,
                pools: Mapping[str, EncodedDataset], run_dir: RunDir) -> Scores:
    """The fourth fit: the student, of the scores `before`, on what the policy chooses; `answered`: what the meta-teacher did to the quiz, [N, C]."""
    main = next(iter(tasks))
    observer = QuizObserver(tasks[main], data.quiz, answered, student.width, cfg, cfg.reward_function, cfg.step_every == "episode")
    student.to(workers.device()).requires_grad_(True)
    stream = Curriculum(pools, data.quiz, student.tokenizer.pad_token_id, observer, student, _settings(cfg),
                        lambda record: workers.on_main(partial(run_dir.log, record)))
    steps = cfg.num_episodes * stream.steps_per_epoch
    stage = _stage_config(cfg, max_steps=steps, eval_steps=cfg.eval_episodes * stream.steps_per_epoch,
                          learning_rate=cfg.episode_learning_rate, lr_scheduler_type="constant", warmup_ratio=0.0,
                          train_batch_size=cfg.episode_batch_size)
    with held_vocabulary(stage, student, *pools.values(), data.quiz, *data.evaluation.values()):
        return fit(student, Learning(tasks, cfg.compete), stream, stage, run_dir,
                   lambda model, to_beat: score(model, tasks[main], data.evaluation, to_beat=to_beat), known=before)
