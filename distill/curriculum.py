"""A curriculum that learns which task the student's next batch comes from (MPDistil, mpdistil.md 2, stage 4, and 6).

    s_t -> policy -> a_t: a batch of task a_t -> one step of the student -> r_t, on quiz examples of the main task

The policy is a linear layer and a softmax over tasks, trained by REINFORCE at the end of every episode:

    loss = - mean_t R_t log pi(a_t | s_t)      R_t = sum_{j >= t} gamma^{j - t} (g_j - mean g)      g_t = r_t - b_t

b_t is what the student before the curriculum is worth on the examples of r_t: which examples a reward is taken on says nothing of actions.

Differs from the published code: the student steps after every action, and the reward that follows is credited to it (there
the student stands still within an episode, so that no reward depends on an action); states carry no gradient; returns are
discounted from their own step on; b_t; the mean is taken off the rewards, not off the returns, of which early ones are the larger for
having more rewards to come, whatever was done. `per_episode` brings the first back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data_utils.batching import Batch, TaskBatches, collate
from data_utils.encode import EncodedDataset
from distill import workers

DISCOUNT = 0.99
LOSS = "label"  # the term of the student's objective whose mean is what a batch cost it
POLICIES = ("learned", "random", "main")


class Observer(Protocol):
    """What the curriculum sees of a student. The entries of a state should be of order 1 together, not each: AdamW moves a logit of the
    policy by its rate times the sum of their sizes, and a wide state would settle the policy within a few episodes, on noise."""

    width: int

    def look(self, student, quiz: Batch, action: int = -1, loss: float = 0.0, before: Tensor | None = None) -> tuple[Tensor, float, float]:
        """The state [width], without gradient, the reward on the quiz examples, and the one that the student had on them before the
        curriculum. After `action`, in the state `before`, whose batch cost the student `loss`; without them, before the first action.
        Leaves the student in evaluation mode."""


@dataclass(frozen=True)
class Settings:
    """How a curriculum goes."""

    policy: str
    batch_size: int
    episode_steps: int  # at most; 0: as many as the quiz has batches
    learning_rate: float
    per_episode: bool
    seed: int


class Curriculum:
    """A BatchStream over `pools` (task -> examples), the main task's first, that learns from `student` what to give it.

    An episode is one pass over the main task's `quiz`, or `episode_steps` of it, in a drawn order, a batch for each step. The first action
    of an episode is drawn evenly, the others from the policy. All draws are functions of (seed, step). `log` gets a record
    at the end of every episode: how often each task was drawn, the policy's mean probabilities, the sum of rewards.
    """

    def __init__(self, pools: Mapping[str, EncodedDataset], quiz: EncodedDataset, pad_id: int, observer: Observer, student: nn.Module,
                 settings: Settings, log: Callable[[dict], None] = lambda record: None):
        self.tasks, self.pools, self.quiz, self.pad_id = list(pools), dict(pools), quiz, pad_id
        self.observer, self.student, self.settings, self.log = observer, student, settings, log
        batches = -(-len(quiz) // settings.batch_size)
        self.steps_per_episode = min(batches, settings.episode_steps or batches)
        self.steps_per_epoch = 1 if settings.per_episode else self.steps_per_episode
        self.policy = nn.Linear(observer.width, len(self.tasks))
        for parameter in self.policy.parameters():
            nn.init.zeros_(parameter)  # all tasks alike
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=settings.learning_rate)
        self.position = 0  # actions so far
        self.state: Tensor | None = None  # before the next action; None: not looked at yet
        self.action = -1  # the latest
        self.episode: list[tuple[Tensor, int, float, float]] = []  # state, action, reward, and that before the curriculum, of its steps

    # ---- the stream

    def next(self) -> Batch | TaskBatches:
        """The batch of the next action; with `per_episode` those of a whole episode, as one step."""
        if self.state is None:
            self.state, *_ = self.observer.look(self.student, self._quiz())
        if self.settings.per_episode:
            batches = []
            for _ in range(self.steps_per_episode):
                batches.append(self._act())
                self._experience()
            step = TaskBatches(batches)
        else:
            step = self._act()
        self.student.train()
        return step

    def observe(self, student, step: int, terms: Mapping[str, Tensor]) -> None:
        """Reward the action of the step that was just made; at the end of an episode the policy learns."""
        if not self.settings.per_episode:
            self._experience(workers.total({LOSS: float(terms[LOSS])})[LOSS])
        if self.position % self.steps_per_episode == 0:
            self._learn(step)
            self.episode = []

    def state_dict(self) -> dict:
        states, actions, rewards, usual = zip(*self.episode) if self.episode else ((), (), (), ())
        return {"position": self.position, "state": self.state, "policy": self.policy.state_dict(),
                "optimizer": self.optimizer.state_dict(), "states": list(states), "actions": list(actions), "rewards": list(rewards),
                "usual": list(usual)}

    def load_state_dict(self, state: dict) -> None:
        self.position, self.state = state["position"], state["state"]
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.episode = list(zip(state["states"], state["actions"], state["rewards"], state["usual"], strict=True))

    # ---- the policy

    def _act(self) -> Batch:
        """Choose a task, and draw its batch."""
        self.action = self._choose()
        return self._draw(self.tasks[self.action])

    def _experience(self, loss: float = 0.0) -> None:
        """What the latest action was worth, and what the state is now."""
        state, reward, usual = self.observer.look(self.student, self._quiz(), self.action, loss, self.state)
        self.episode.append((self.state, self.action, reward, usual))
        self.state = state
        self.position += 1

    @torch.no_grad()
    def probabilities(self, states_SD: Tensor) -> Tensor:
        """The policy [S, tasks] in these states."""
        return self.policy(states_SD).softmax(-1)

    def _choose(self) -> int:
        generator = self._generator(self.position, 0)
        if self.settings.policy == "main":
            return 0
        if self.settings.policy == "random" or self.position % self.steps_per_episode == 0:
            return int(torch.randint(len(self.tasks), (1,), generator=generator))
        return int(torch.multinomial(self.probabilities(self.state[None])[0], 1, generator=generator))

    def _learn(self, step: int) -> None:
        """One REINFORCE step over the episode, and its record."""
        states, actions, rewards, usual = zip(*self.episode)
        states_SD, actions = torch.stack(states), torch.tensor(actions)
        if self.settings.policy == "learned" and len(self.episode) > 1:
            gains = [reward - before for reward, before in zip(rewards, usual)]
            mean = sum(gains) / len(gains)
            advantage_S = returns_to_go([gain - mean for gain in gains], DISCOUNT)
            own = slice(1, None)  # the first action was not the policy's
            self._ascend(states_SD[own], actions[own], advantage_S[own])
        chances = self.probabilities(states_SD).mean(0).tolist()
        drawn = np.bincount(actions.numpy(), minlength=len(self.tasks)).tolist()
        self.log({"step": step, "episode": self.position // self.steps_per_episode, "reward": float(sum(rewards)),
                  "actions": dict(zip(self.tasks, drawn)), "policy": dict(zip(self.tasks, chances))})

    @torch.no_grad()
    def _ascend(self, states_SD: Tensor, actions_S: Tensor, advantage_S: Tensor) -> None:
        """A step along the gradient of mean_t advantage_t log pi(a_t | s_t), which for a linear layer z = W s + b is

            d/dz = advantage_t (onehot(a_t) - pi(s_t))      d/dW = mean_t d/dz s_t^T      d/db = mean_t d/dz
        """
        pull_SK = advantage_S[:, None] * (nn.functional.one_hot(actions_S, len(self.tasks)) - self.probabilities(states_SD))
        weight_KD, bias_K = pull_SK.T @ states_SD / len(states_SD), pull_SK.mean(0)
        norm = torch.sqrt(weight_KD.square().sum() + bias_K.square().sum())
        scale = -1 / max(1.0, float(norm))  # the optimiser descends; a norm of 1 at most
        self.policy.weight.grad, self.policy.bias.grad = scale * weight_KD, scale * bias_K
        self.optimizer.step()

    # ---- what is drawn

    def _generator(self, position: int, purpose: int) -> torch.Generator:
        (state,) = np.random.SeedSequence([self.settings.seed, position, purpose]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))

    def _draw(self, task: str) -> Batch:
        """A batch of the task's pool, drawn without replacement."""
        pool = self.pools[task]
        rows = torch.randperm(len(pool), generator=self._generator(self.position, 1))[:self.settings.batch_size].numpy()
        return collate(pool, rows, task, self.pad_id)

    def _quiz(self) -> Batch:
        """The examples that the next action is rewarded on: the quiz in an order of the episode's own."""
        episode, step = divmod(self.position, self.steps_per_episode)
        order = torch.randperm(len(self.quiz), generator=self._generator(episode, 2)).numpy()
        size = self.settings.batch_size
        return collate(self.quiz, order[step * size:(step + 1) * size], self.tasks[0], self.pad_id)


def returns_to_go(rewards: Sequence[float], discount: float) -> Tensor:
    """R_t = sum_{j >= t} discount^{j - t} r_j, float32 [S]."""
    found, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + discount * total
        found.append(total)
    return torch.tensor(found[::-1])
