"""MPDistil (Sengupta et al., ICLR 2024): a student learns from a teacher, the teacher from the student, and a policy which
task to study next. Four fits:

    teacher      labels                                                        on train, without the quiz
    student      (1 - alpha) labels + alpha soft targets + beta [CLS] states   on train, without the quiz
    meta         the teacher's last layer, asked with and against the student  on the quiz (meta_teacher.py)
    curriculum   the student, on quizzes of all tasks that a policy chooses    rewarded on the main task's (curriculum.py)

The quiz is a tenth of every class of train, fixed. Differs from the published code (github.com/notmyname16/MPDistil), which leaves the
policy nothing to learn from: the student steps after every action, states carry no gradient, dropout is on, the heads of other tasks
are trained before they are used, and what selects is a further tenth of train. --preset paper keeps what was published, but for what
is said beside it.
"""

import logging
from collections.abc import Sequence

import torch

from data_utils.draws import HELD_OUT, split_quiz
from data_utils.tasks import Task
from distill.action_space import other_tasks, space_facts
from distill.evaluate import task_info
from distill.layer_maps import layer_pairs
from distill.meta_teacher import load_features, save_features
from distill.presets import BASE, LARGE, SMALL, preset_of
from distill.recipes import finetune
from distill.recipes.mpdistil.fits import QUIZ, Data, curriculum, episodes, fit_student_and_meta, fit_teacher, stage_config, stage_name, warm_heads
from distill.recipes.mpdistil.settings import Config
from distill.rundir import RunDir
from distill.scores import Scores
from distill.splits import quiz_of, read_splits
from distill.stages import Stages
from models.checkpoint import load_encoder
from models.multitask import MultiTask
from models.pretrained import load_config, model_fingerprint
from models.truncate import parse_layers
from models.weights import fingerprint

logger = logging.getLogger(__name__)

# paper: the published code, its schedule and its selection on dev. Differs: the optimiser starts again
# with every epoch of the interleaved fits; dropout is on; the other tasks' heads are trained first; the policy learns as curriculum.py
# says, but for its rewards; scores are weighed as meta_teacher.py says.
# small: for minilm, the rates of its own presets; the policy's is ten times the published one, with which 200 steps of AdamW
# cannot move it (test_curriculum.py). Not tuned.
# base, large: by the teacher's width; published rates for BERT-base, those of r1's large encoders. Not tuned.
PER_TASK = {"paper": {}, "small": {}, "base": {}, "large": {}}
PRESET_DEFAULTS = {
    "paper": {"train_batch_size": 8, "learning_rate": 3e-5, "num_train_epochs": 10, "teacher_epochs": 10, "lr_scheduler_type": "constant",
              "warmup_ratio": 0.0, "max_length": 128, "pooling": "cls", "soft_loss": "mse_prob", "layer_map": "first", "schedule": "interleaved",
              "policy_learning_rate": 1e-3, "discount": 0.99, "step_every": "episode", "eval_episodes": 1, "pool_size": 0, "select_on": "dev"},
    "small": {**SMALL, "teacher_learning_rate": 1e-4, "select_on": HELD_OUT},
    "base": {**BASE, "learning_rate": 3e-5, "select_on": HELD_OUT},
    "large": {**LARGE, "teacher_epochs": LARGE["num_train_epochs"], "teacher_learning_rate": LARGE["learning_rate"], "select_on": HELD_OUT},
}


def default_preset(words: dict[str, str]) -> str:
    """By the width of the model's hidden states: `large`, `base`, or `small` below both; `paper` is for whoever asks for it."""
    return preset_of(load_config(words.get("model", Config.model)).hidden_size)


def facts(cfg: Config, task: Task) -> dict:
    """What a run reads: of all tasks, and of the model."""
    return {**space_facts(task, other_tasks(task, cfg.tasks, cfg.data_dir), cfg), "model": model_fingerprint(cfg.model)}


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """The four fits; the last student is run_dir/best, the fits before it are runs of their own inside run_dir. Returns the
    scores of the curriculum's best evaluation."""
    others = other_tasks(task, cfg.tasks, cfg.data_dir)
    if not others and cfg.policy != "main":
        raise ValueError(f"--tasks {cfg.tasks}: no task but {task.name} to choose; name others (`python -m distill data tasks` lists them), "
                         "or give --policy main")
    read = {**space_facts(task, others, cfg), "model": model_fingerprint(cfg.model)}
    start = finetune.start(stage_config(cfg, learning_rate=cfg.teacher_learning_rate, num_train_epochs=cfg.teacher_epochs), task)
    train, evaluation = read_splits(start, task, cfg)
    data = Data(*split_quiz(train), evaluation)
    pools = {task.name: data.train if cfg.main_pool == "train" else data.quiz}
    pools |= {entry.name: quiz_of(start, entry, cfg, cfg.pool_size) for entry in others}
    _check_fit(cfg, task, others, start.depth, len(data.quiz))
    run_dir.begin(cfg, read)
    of_main = {name: read[name] for name in ("task", f"data {task.name}", "model")}
    stages = Stages(cfg, RunDir(cfg.stages_dir) if cfg.stages_dir else run_dir, of_main, _unread(cfg))
    teacher = stages.run("teacher", lambda place: fit_teacher(cfg, task, start, data, place))
    states = stages.run("features", lambda place: save_features(place.path, load_encoder(teacher.best), {QUIZ: data.quiz, **data.evaluation}),
                      teacher=fingerprint(teacher.best))
    studied, answered = fit_student_and_meta(cfg, task, teacher, load_features(states.path), data, stages)
    torch.manual_seed(cfg.seed)  # the other tasks' heads start alike, whichever fits were made in this sitting
    student = MultiTask(load_encoder(studied.best), [task_info(entry, cfg.pooling) for entry in others])
    if others:
        heads = stages.run(stage_name(cfg, "heads"), lambda place: warm_heads(cfg, student, {entry.name: entry for entry in others}, pools, place),
                           **read, student=fingerprint(studied.best))
        student.restore(heads.last)
    before = studied.scores()
    scores = curriculum(cfg, {entry.name: entry for entry in (task, *others)}, student, before, answered, data, pools, run_dir)
    if scores.selection <= before.selection:
        logger.warning("the curriculum has not bettered its student on %s (%.1f before it, %.1f at best in it): the student before it is %s",
                       scores.selected_on, 100 * before.selection, 100 * scores.selection, studied.best)
    return scores


def _check_fit(cfg: Config, task: Task, others: Sequence[Task], depth: int, asked: int) -> None:
    """ValueError for what would end a later fit: a teacher of `depth` layers, a quiz of `asked` examples. What changes nothing is said."""
    if others and not cfg.num_train_epochs:
        raise ValueError("--num_train_epochs 0: the other tasks' heads are trained for so many passes over their quizzes; give more, "
                         "--max_steps bounds the student all the same")
    episodes(cfg).check(task, asked)
    kept = parse_layers(cfg.student, depth)
    if cfg.beta:
        layer_pairs(cfg.layer_map, len(kept), depth)
    if cfg.in_turns and cfg.meta_epochs != Config.meta_epochs:
        logger.warning("--meta_epochs %g is not read: interleaved, the meta-teacher makes a pass over the quiz after each epoch", cfg.meta_epochs)
    if cfg.use_comp_loss and not cfg.in_turns and (cfg.policy != "learned" or cfg.reward_function == "real" and cfg.step_every == "action"):
        logger.warning("--use_comp_loss True: another meta-teacher, and the same student: %s", "the policy is not rewarded" if cfg.policy != "learned"
                       else "of real rewards the meta-teacher's part is the same before a step and after it")


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
    """By kind of stage, the settings that only later ones read. Interleaved, a student reads what the meta-teacher before it does."""
    later = {**LATER, "student": LATER["meta"]} if cfg.in_turns else LATER
    return {kind: (*OF_CURRICULUM, *names) for kind, names in later.items()}
