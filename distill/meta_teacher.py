"""MPDistil's meta-teacher and what the student is measured against it (Sengupta et al., ICLR 2024).

The meta-teacher is the teacher with another last layer: the encoder stays as it is, and what the last layer reads of an
example, by teacher (t) and student (s), is computed once.

    collaborative   1/2 CE(f(t), y) + 1/2 CE(f(s), y)
    competitive     CE(f(t), y) + doubt(f(t), y) - doubt(f(s), y)        doubt: 1 - p(y)

For scores: squared errors in place of CE, absolute errors in place of doubt. Differs: doubt is 1 - p(y) where the code has
-p(y), which moves the sum by a constant; scores are taken as shares of their range, so that STS-B's squared errors weigh five times less
against its absolute ones than there.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_utils.batching import Batch
from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill import workers
from distill.curriculum import LOSS
from distill.evaluate import predict
from distill.judging import score_answers
from distill.losses import absolute_error, cross_entropy, doubt, squared_error
from distill.objective import Objective
from distill.precision import autocast
from distill.rundir import write_folder
from distill.scores import Scores
from models.encoder import Encoder
from models.multitask import MultiTask
from models.weights import check_checksums

REWARDS = ("binary", "real")
FEATURES, FEATURES_FILE = "features", "features.npz"


def features(encoder: Encoder, dataset: EncodedDataset) -> np.ndarray:
    """What the head's last layer reads of every example: [N, choices, D]."""
    def read(outputs):
        return encoder.head.features(outputs.pooled).unflatten(0, (-1, encoder.info.choices or 1))
    return predict(encoder, dataset, read)


def save_features(place: Path, teacher: Encoder, splits: Mapping[str, EncodedDataset]) -> None:
    """Write the features() of every split below the folder `place`: the meta-teacher's too, whose last layer alone is another."""
    teacher.to(workers.device())
    read = {split: features(teacher, dataset) for split, dataset in splits.items()}
    workers.on_main(lambda: write_folder(place / FEATURES, lambda folder: np.savez(folder / FEATURES_FILE, **read)))


def load_features(place: Path) -> dict[str, np.ndarray]:
    """What save_features() wrote there; ValueError where it is damaged."""
    check_checksums(place / FEATURES)
    with np.load(place / FEATURES / FEATURES_FILE) as arrays:
        return dict(arrays)


def answers(meta: Encoder, features_NCD: Tensor) -> Tensor:
    """Logits [N, C] of the last layer over features()."""
    return meta.head.classify(features_NCD.flatten(0, 1)).view(len(features_NCD), -1)


def pooled(student: MultiTask, task: str, dataset: EncodedDataset) -> np.ndarray:
    """What a head reads of every example of `task`: [N, choices, D]."""
    choices = student.infos[task].choices or 1
    return predict(student, dataset, lambda outputs: outputs.pooled.unflatten(0, (-1, choices)), task)


class Known(nn.Module):
    """What was computed once of every example of a dataset: forward(batch) -> [B, ...]."""

    def __init__(self, dataset: EncodedDataset, found: np.ndarray):
        super().__init__()
        self.row_of = {int(uid): row for row, uid in enumerate(dataset.uid)}
        self.register_buffer("found", torch.from_numpy(found), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        return self.found[torch.tensor([self.row_of[uid] for uid in batch.uid.tolist()], device=self.found.device)]


class TaskLoss:
    """How wrong a task's answers are, for classes and for regression alike."""

    def __init__(self, task: Task):
        low, high = task.score_range or (0, 1)
        self.span = high - low
        self.is_regression = task.is_regression

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, or the squared error of scores as shares of their range: [B]."""
        return squared_error(logits / self.span, target / self.span) if self.is_regression else cross_entropy(logits, target)

    def doubt(self, logits: Tensor, target: Tensor) -> Tensor:
        """One less the probability of the right class, or the absolute error as a share of the range: [B]."""
        return absolute_error(logits, target) / self.span if self.is_regression else doubt(logits, target)


class MetaTeaching(Objective):
    """The last layer of the meta-teacher's head, over examples whose features() are known of teacher and student."""

    def __init__(self, task: Task, quiz: EncodedDataset, teacher: np.ndarray, student: np.ndarray, compete: bool):
        super().__init__()
        self.task_loss, self.compete = TaskLoss(task), compete
        self.teacher, self.student = Known(quiz, teacher), Known(quiz, student)
        self.term_weights = {"teacher": 1.0, "teacher_doubt": 1.0, "student_doubt": -1.0} if compete else {"teacher": 0.5, "student": 0.5}

    def counts(self, batch):
        return dict.fromkeys(self.term_weights, len(batch))

    def weights(self, progress):
        return self.term_weights

    def forward(self, meta: Encoder, batch, progress):
        own, its = (answers(meta, known(batch)) for known in (self.teacher, self.student))
        terms = {"teacher": self.task_loss.loss(own, batch.target), "student": self.task_loss.loss(its, batch.target),
                 "teacher_doubt": self.task_loss.doubt(own, batch.target), "student_doubt": self.task_loss.doubt(its, batch.target)}
        return {name: terms[name].sum() for name in self.term_weights}


class MetaScores:
    """Scores the meta-teacher after every pass of its last layer, over the features() of every split."""

    def __init__(self, task: Task, splits: Mapping[str, EncodedDataset], read: Mapping[str, np.ndarray]):
        self.task, self.splits = task, splits
        self.read = {split: torch.from_numpy(read[split]).to(workers.device()) for split in splits}

    def __call__(self, meta: Encoder, to_beat: float) -> Scores:
        def answer(split: str) -> dict[str, np.ndarray]:
            return {"": answers(meta, self.read[split]).cpu().numpy()}

        return score_answers(answer, meta.info.labels, self.task, self.splits, to_beat=to_beat)


class Learning(Objective):
    """The student's own loss in the curriculum: the labels of whichever task, and its doubt of them where it competes."""

    def __init__(self, tasks: dict[str, Task], compete: bool):
        super().__init__()
        self.task_losses = {name: TaskLoss(task) for name, task in tasks.items()}
        self.term_weights = {LOSS: 1.0, "doubt": 1.0} if compete else {LOSS: 1.0}

    def counts(self, batch):
        return dict.fromkeys(self.term_weights, len(batch))

    def weights(self, progress):
        return self.term_weights

    def forward(self, student: MultiTask, batch: Batch, progress):
        logits, task_loss = self.logits(student, batch), self.task_losses[batch.task]
        others = [student.head_of(task) for task in student.infos if task != batch.task]
        idle = 0.0 * sum(parameter.sum() for head in others for parameter in head.parameters())  # ranks wait for all gradients
        terms = {LOSS: task_loss.loss(logits, batch.target), "doubt": task_loss.doubt(logits, batch.target)}
        return {name: terms[name].sum() + idle for name in self.term_weights}

    def logits(self, student: MultiTask, batch: Batch) -> Tensor:
        """The answers to `batch`, [B, C]."""
        return student(batch).logits


class HeadLearning(Learning):
    """The same loss of the heads alone, above a student that stands still: what they read, pooled(), is known of every example."""

    def __init__(self, tasks: dict[str, Task], pools: Mapping[str, EncodedDataset], read: Mapping[str, np.ndarray]):
        super().__init__(tasks, compete=False)
        self.known = nn.ModuleDict({name: Known(pools[name], read[name]) for name in tasks})

    def logits(self, student: MultiTask, batch: Batch) -> Tensor:
        return student.answer_as(batch.task, self.known[batch.task](batch).flatten(0, 1))


class QuizObserver:
    """A curriculum's view of a student on the main task's quiz (an Observer).

    View: the mean over the quiz examples of what the head's last layer reads, by its width. `fixed`: a fixed random projection of the
    head's weights instead, as published.
    Reward: the mean over the examples of p_student(y) - p_meta(y), or of whether it is above 0 (`binary`); for scores of the
    differences of absolute errors.
    """

    def __init__(self, task: Task, quiz: EncodedDataset, meta_logits: Tensor, width: int, cfg, reward: str, fixed: bool):
        """`meta_logits`: the meta-teacher's answers to the quiz of `task`, the main one."""
        self.cfg, self.reward, self.fixed, self.width = cfg, reward, fixed, width
        self.task_loss = TaskLoss(task)
        self.meta_doubt = Known(quiz, self.task_loss.doubt(meta_logits, torch.from_numpy(quiz.target)).numpy())
        self.projection = torch.randn(width, generator=torch.Generator().manual_seed(cfg.seed)) / width ** 0.5

    @torch.no_grad()
    def look(self, student: MultiTask, quiz: Batch) -> tuple[Tensor, float]:
        student.eval()
        with autocast(self.cfg, workers.device()):
            outputs = student(quiz.to(workers.device()))
            read = student.head.features(outputs.pooled)
        gain = self.meta_doubt(quiz) - self.task_loss.doubt(outputs.logits.float().cpu(), quiz.target)
        reward = float((gain > 0).float().mean() if self.reward == "binary" else gain.mean())
        if self.fixed:
            return student.head.dense.weight.float().cpu() @ self.projection, reward
        return read.float().mean(0).cpu() / read.shape[1], reward
