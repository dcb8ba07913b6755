"""What a user may set of MPDistil."""

from dataclasses import dataclass
from typing import Annotated

from distill.action_space import FOUND
from distill.config import ABOVE_0, BELOW_1, FROM_0, SHARE, TaskConfig, one_of, setting
from distill.curriculum import POLICIES
from distill.meta_teacher import REWARDS
from models.heads import POOLINGS, TOKENS

SOFT_LOSSES, SCHEDULES, MAIN_POOLS = ("kl", "mse_prob"), ("sequential", "interleaved"), ("quiz", "train")


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Settings of MPDistil; learning_rate and num_train_epochs are the student's, in the second fit."""

    output_dir: str = setting("./runs/mpdistil", "the run directory; the fits before the last are runs inside it")
    stages_dir: str = setting("", "folder of those fits, for runs to share that differ in what comes after; empty: output_dir")
    model: str = setting("google-bert/bert-base-uncased", "the teacher before it is fine-tuned: hub id, folder, or minilm")
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
    compete: bool = setting(True, "the curriculum's student also minimises 1 - p(label), its competitive term")
    policy: Annotated[str, one_of(POLICIES)] = setting("learned", "which task comes next: learned, random, or main (the main task alone)")
    policy_learning_rate: Annotated[float, ABOVE_0] = setting(1e-2, "learning rate of the policy")
    discount: Annotated[float, SHARE] = setting(0.0, "discount of later rewards in the return of an action; 0: its own reward alone")
    reward_function: Annotated[str, one_of(REWARDS)] = setting(
        "binary", "of a quiz example: binary, whether the student beats the meta-teacher, or real, by how much")
    num_episodes: Annotated[int, ABOVE_0] = setting(200, "episodes; after each the policy learns")
    episode_steps: Annotated[int, FROM_0] = setting(0, "actions of an episode at most; 0: a pass over the quiz, one for each of its batches")
    eval_episodes: Annotated[int, ABOVE_0] = setting(10, "evaluate the curriculum's student after every so many episodes")
    episode_batch_size: Annotated[int, ABOVE_0] = setting(8, "examples of a batch of the curriculum")
    episode_learning_rate: Annotated[float, ABOVE_0] = setting(3e-5, "learning rate of the student in the curriculum")
    main_pool: Annotated[str, one_of(MAIN_POOLS)] = setting(
        "quiz", "what the curriculum has of the main task: quiz, as published, which rewards it too; or train, which leaves the quiz out")
    pool_size: Annotated[int, FROM_0] = setting(1000, "examples of another task's quiz that are drawn from, at most; 0: all")
    step_every: Annotated[str, one_of(("action", "episode"))] = setting(
        "action", "the student steps after every action, or episode: once, over all its batches")

    @property
    def in_turns(self) -> bool:
        """Whether student and meta-teacher take turns after each epoch."""
        return self.schedule == "interleaved"

    def __post_init__(self):
        super().__post_init__()
        if self.in_turns and self.num_train_epochs % 1:
            raise ValueError(f"--schedule interleaved: --num_train_epochs {self.num_train_epochs:g}: expected whole epochs, since "
                             "student and meta-teacher take turns after each")
        if self.in_turns and self.max_steps:
            raise ValueError("--schedule interleaved: student and meta-teacher take turns after each epoch; leave --max_steps out")
        if self.fsdp:
            raise ValueError("--fsdp: MPDistil's fits read and answer with whole models; leave it out")
