"""A curriculum that learns which task the student's next batch comes from (MPDistil, Sengupta et al., ICLR 2024).

    s_t -> policy -> a_t: a batch of task a_t -> one step of the student -> r_t, on quiz examples of the main task

The policy is a linear layer and a softmax over tasks, trained by REINFORCE at the end of every episode:

    loss = - mean_t R_t log pi(a_t | s_t)      R_t = sum_{j >= t} gamma^{j - t} (g_j - b)      g_t = r_t - r'_t

r'_t is the student's reward on the same examples before the step: which ones are asked cancels, and g_t is what the step changed.
b is a running mean of g over the episodes before. Since what lasts of a step is in no later g, gamma is 0 by default: later steps would
only add their noise.

Differs from the published code: the student steps after every action, and what follows is credited to it (there the student
stands still within an episode, so that no reward depends on an action); states carry no gradient; returns are discounted from their own
step on; r'_t and b (there the mean of an episode's own returns is taken off, of which early ones are larger whatever was done, and
in which is a part of what an action brought). `per_episode` brings the first back: then r' is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data_utils.batching import Batch, TaskBatches, collate
from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill import workers

EPISODE_SHARE = 0.1  # of an episode in the running mean of gains
LOSS = "label"  # the term of the student's objective whose mean is what a batch cost it
POLICIES = ("learned", "random", "main")


class Observer(Protocol):
    """What the curriculum sees of a student. The entries of a view should be of order 1 together, not each: AdamW moves a logit of the
    policy by its rate times the sum of their sizes, and a wide view would settle the policy within a few episodes, on noise."""

    width: int

    def look(self, student, quiz: Batch) -> tuple[Tensor, float]:
        """A view [width] of the student, without gradient, and its reward on the quiz examples. Leaves it in evaluation mode."""


@dataclass(frozen=True)
class CurriculumSettings:
    """How a curriculum goes."""

    policy: str
    batch_size: int
    episode_steps: int  # at most; 0: as many as the quiz has batches
    learning_rate: float
    discount: float
    per_episode: bool
    seed: int

    def check(self, task: Task, asked: int) -> None:
        """ValueError where an episode over a quiz of `asked` examples of `task` is one action, which is drawn evenly: no policy would learn."""
        if self.policy == "learned" and self.episode_steps == 1:
            raise ValueError("--episode_steps 1: the first action of an episode is drawn evenly, and the policy learns from those after it; "
                             "give 2 or more, 0 for a pass over the quiz, or --policy random")
        if self.policy == "learned" and asked <= self.batch_size:
            smaller = f"--episode_batch_size {asked // 2} or less, or " if asked > 1 else ""
            raise ValueError(f"--episode_batch_size {self.batch_size}: the quiz of {task.name} has {asked} examples here, so that an episode is "
                             f"one action, the first, which is drawn evenly, and the policy learns nothing; give {smaller}--policy random")


@dataclass(frozen=True)
class Experience:
    """One action: the state it was chosen in, the student's reward, before its step and then after it, and what the policy is told of that."""

    state: Tensor
    action: int
    reward: float
    gain: float


class Curriculum:
    """A BatchStream over `pools` (task -> examples), the main task's first, that learns from `student` what to give it.

    An episode is one pass over the main task's `quiz`, or `episode_steps` of it, in a drawn order, a batch for each step. The first action
    of an episode is drawn evenly, the others from the policy. All draws are functions of (seed, step). `log` gets a record
    at the end of every episode: how often each task was drawn, the policy's mean probabilities, the sums of rewards and of gains.

    A state is what the observer sees, then each task's latest loss against their mean, then the latest action; with `per_episode` the
    first alone, as published.
    """

    def __init__(self, pools: Mapping[str, EncodedDataset], quiz: EncodedDataset, pad_id: int, observer: Observer, student: nn.Module,
                 settings: CurriculumSettings, log: Callable[[dict], None] = lambda record: None):
        self.tasks, self.pools, self.quiz, self.pad_id = list(pools), dict(pools), quiz, pad_id
        self.observer, self.student, self.settings, self.log = observer, student, settings, log
        batches = -(-len(quiz) // settings.batch_size)
        self.steps_per_episode = min(batches, settings.episode_steps or batches)
        self.steps_per_epoch = 1 if settings.per_episode else self.steps_per_episode
        self.policy = nn.Linear(observer.width + (0 if settings.per_episode else 2 * len(self.tasks)), len(self.tasks))
        for parameter in self.policy.parameters():
            nn.init.zeros_(parameter)  # all tasks alike
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=settings.learning_rate)
        self.position = 0  # actions so far
        self.action = -1  # the latest
        self.losses = torch.full((len(self.tasks),), torch.nan)  # each task's latest; nan: not drawn yet
        self.usual_gain: float | None = None  # b
        self.episode: list[Experience] = []

    # ---- the stream

    def next(self) -> Batch | TaskBatches:
        """The batch of the next action; with `per_episode` those of a whole episode, as one step."""
        if self.settings.per_episode:
            step = TaskBatches([self._act() for _ in range(self.steps_per_episode)])
        else:
            step = self._act()
        self.student.train()
        return step

    def prepare(self) -> None:
        """What comes next depends on the step."""

    def observe(self, student, step: int, terms: Mapping[str, Tensor]) -> None:
        """Reward the action of the step that was just made; at the end of an episode the policy learns."""
        if not self.settings.per_episode:
            self.losses[self.action] = workers.total({LOSS: float(terms[LOSS])})[LOSS]
            _, reward = self.observer.look(student, self._quiz(self.position - 1))
            self.episode[-1] = replace(self.episode[-1], reward=reward, gain=reward - self.episode[-1].reward)
        if self.position % self.steps_per_episode == 0:
            self._learn(step)
            self.episode = []

    def state_dict(self) -> dict:
        return {"position": self.position, "action": self.action, "losses": self.losses, "usual_gain": self.usual_gain,
                "policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict(), "episode": [vars(entry) for entry in self.episode]}

    def load_state_dict(self, state: dict) -> None:
        self.position, self.action, self.losses, self.usual_gain = (state[name] for name in ("position", "action", "losses", "usual_gain"))
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.episode = [Experience(**entry) for entry in state["episode"]]

    # ---- the policy

    def _act(self) -> Batch:
        """Choose a task in the student's state, and draw its batch."""
        view, reward = self.observer.look(self.student, self._quiz(self.position))
        state = view if self.settings.per_episode else torch.cat([view, self._relative_losses(), self._latest_action()])
        self.action = self._choose(state)
        batch = self._draw(self.tasks[self.action])
        self.episode.append(Experience(state, self.action, reward, gain=reward))
        self.position += 1
        return batch

    def _relative_losses(self) -> Tensor:
        """Each task's latest loss less the mean of those known, over their number; 0 where it is not known."""
        return torch.nan_to_num(self.losses - torch.nanmean(self.losses)) / len(self.tasks)

    def _latest_action(self) -> Tensor:
        return (torch.arange(len(self.tasks)) == self.action).float()

    @torch.no_grad()
    def probabilities(self, states_SD: Tensor) -> Tensor:
        """What is drawn in these states: [S, tasks]."""
        if self.settings.policy == "main":
            return torch.eye(len(self.tasks))[:1].expand(len(states_SD), -1)
        return self.policy(states_SD).softmax(-1)

    def _choose(self, state: Tensor) -> int:
        generator = self._generator(self.position, 0)
        if self.settings.policy == "main":
            return 0
        if self.settings.policy == "random" or self.position % self.steps_per_episode == 0:
            return int(torch.randint(len(self.tasks), (1,), generator=generator))
        return int(torch.multinomial(self.probabilities(state[None])[0], 1, generator=generator))

    def _learn(self, step: int) -> None:
        """One REINFORCE step over the episode, and its record."""
        states_SD = torch.stack([entry.state for entry in self.episode])
        actions = torch.tensor([entry.action for entry in self.episode])
        gains = [entry.gain for entry in self.episode]
        mean = sum(gains) / len(gains)
        usual = mean if self.usual_gain is None else self.usual_gain
        self.usual_gain = usual + EPISODE_SHARE * (mean - usual)
        if self.settings.policy == "learned" and len(self.episode) > 1:
            advantage_S = returns_to_go([gain - usual for gain in gains], self.settings.discount)
            own = slice(1, None)  # the first action was not the policy's
            self._ascend(states_SD[own], actions[own], advantage_S[own])
        chances = self.probabilities(states_SD).mean(0).tolist()
        drawn = np.bincount(actions.numpy(), minlength=len(self.tasks)).tolist()
        self.log({"step": step, "episode": self.position // self.steps_per_episode, "reward": sum(entry.reward for entry in self.episode),
                  "gain": sum(gains), "actions": dict(zip(self.tasks, drawn)), "policy": dict(zip(self.tasks, chances))})

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

    def _quiz(self, position: int) -> Batch:
        """The examples that this action is rewarded on: the quiz in an order of the episode's own."""
        episode, step = divmod(position, self.steps_per_episode)
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
