"""Answers that are parts of a text: from the logits of its windows to one answer for each question, and what that is worth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_utils.answers import credit
from data_utils.encode import EncodedDataset
from data_utils.metrics import compute_metrics
from data_utils.tasks import Task
from data_utils.windows import NO_PLACE
from distill.arrays import first_of_groups
from distill.scores import Predictions


@dataclass(frozen=True)
class Answering:
    """How an answer is found: among the `n_best` likeliest starts and as many ends of every window, at most `max_tokens` tokens long;
    where questions may have no answer, there is none if [CLS] scores more than `threshold` above the best one."""

    n_best: int = 20
    max_tokens: int = 30
    threshold: float = 0.0

    def __post_init__(self):
        for name, value in (("n_best", self.n_best), ("max_answer_length", self.max_tokens)):
            if value < 1:
                raise ValueError(f"--{name} {value}: expected at least 1")


def best_spans(logits_NTC: np.ndarray, dataset: EncodedDataset, answering: Answering) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, first position, last position) of the best answer in every window, [N] each: the highest sum of a start's and an end's
    logit; -inf where a window holds none. Only tokens of the context are answers, not the question, special tokens or padding.

    As transformers' run_qa.py. Differs: of a token that several windows hold none is preferred for the context around it.
    """
    allowed_NT = np.zeros(logits_NTC.shape[:2], bool)
    allowed_NT[np.arange(allowed_NT.shape[1]) < dataset.lengths[:, None]] = dataset.places[:, 0] != NO_PLACE
    masked_NTC = np.where(allowed_NT[..., None], logits_NTC, -np.inf)
    first_NK, last_NK = (np.argsort(-masked_NTC[..., kind], axis=1, kind="stable")[:, :answering.n_best] for kind in range(2))
    start_NK, end_NK = (np.take_along_axis(masked_NTC[..., kind], found, 1) for kind, found in enumerate((first_NK, last_NK)))
    tokens_NKK = last_NK[:, None, :] - first_NK[:, :, None] + 1
    scores_NKK = np.where((tokens_NKK > 0) & (tokens_NKK <= answering.max_tokens), start_NK[:, :, None] + end_NK[:, None, :], -np.inf)
    best_N = scores_NKK.reshape(len(scores_NKK), -1).argmax(1)
    row_N, width = np.arange(len(best_N)), last_NK.shape[1]
    return scores_NKK.reshape(len(best_N), -1)[row_N, best_N], first_NK[row_N, best_N // width], last_NK[row_N, best_N % width]


def answer_texts(logits_NTC: np.ndarray, dataset: EncodedDataset, task: Task, answering: Answering) -> dict[int, str]:
    """The answer to every question, by its uid, rising: the best of all its windows, as it stands in the text; "" for none.

    `logits_NTC` in the order of the task's labels (start, end). A question has no answer by the window that is least for it.
    """
    score_N, first_N, last_N = best_spans(logits_NTC, dataset, answering)
    none_N = logits_NTC[:, 0].sum(-1)
    found = {}
    for best, least in zip(first_of_groups(dataset.group, -score_N), first_of_groups(dataset.group, none_N), strict=True):
        uid, start, end = int(dataset.group[best]), *(dataset.offsets[best] + place[best] for place in (first_N, last_N))
        answered = np.isfinite(score_N[best]) and not (task.unanswerable and none_N[least] - score_N[best] > answering.threshold)
        found[uid] = dataset.questions[uid].texts[1][dataset.places[start, 0]:dataset.places[end, 1]] if answered else ""
    return found


def judged_spans(logits_NTC: np.ndarray, dataset: EncodedDataset, task: Task, answering: Answering) -> Predictions:
    """What the metrics compare: for each question the credit of its answer, and whether it has one (1 or 0)."""
    found = answer_texts(logits_NTC, dataset, task, answering)
    golds = {uid: [text for text, _ in dataset.questions[uid].answers] for uid in found}
    return Predictions(np.array(list(found), np.int64), np.array([credit(text, golds[uid]) for uid, text in found.items()]),
                       np.array([float(bool(golds[uid])) for uid in found]), text=np.array(list(found.values())))


def by_answer(found: Predictions, task: Task) -> Mapping[str, tuple[int, dict[str, float]]]:
    """The metrics of the questions with an answer and of those without one apart, with their numbers; without kinds that are not
    there."""
    parts = {"with an answer": found.target == 1, "without one": found.target == 0}
    return {name: (int(rows.sum()), compute_metrics(task.metrics, found.predicted[rows], found.target[rows]))
            for name, rows in parts.items() if rows.any()}


def answers_by_id(found: Mapping[int, str], dataset: EncodedDataset) -> dict[str, str]:
    """The answers as the official script reads them: by the id of the question. ValueError where two questions of one id have others."""
    answers: dict[str, str] = {}
    for uid, text in found.items():
        name = dataset.questions[uid].id
        if answers.setdefault(name, text) != text:
            raise ValueError(f"two questions are called {name!r} and get other answers ({answers[name]!r}, {text!r}): the official format "
                             "has one answer for each name; give them names of their own")
    return answers
