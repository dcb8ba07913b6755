"""The curriculum: what it draws, what it credits, that it learns where there is something to learn, that it resumes exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data_utils.batching import TaskBatches
from data_utils.encode import EncodedDataset
from distill.curriculum import LOSS, Curriculum, Settings, returns_to_go

TASKS = ("main", "helps", "hurts", "harms")
COST = {LOSS: torch.tensor(0.75)}  # of every batch


def pool(rows: int) -> EncodedDataset:
    return EncodedDataset(np.arange(rows), np.arange(3 * rows, dtype=np.int32), np.arange(0, 3 * rows + 1, 3), np.full(rows, 3), np.arange(rows) % 2)


def settings(**changed) -> Settings:
    return Settings(**{"policy": "learned", "batch_size": 8, "episode_steps": 0, "learning_rate": 1e-3, "per_episode": False, "seed": 42} | changed)


class World:
    """A student that is one number, its skill: a batch of `helps` raises it, those of `hurts` and `harms` lower it; it
    is forgotten slowly. The reward is the skill above a level, with noise that no action explains. `shuffled`: rewards of other steps."""

    width = 6

    def __init__(self, seed: int, shuffled: bool = False):
        self.draw, self.shuffled, self.past = np.random.default_rng(seed), shuffled, []

    def look(self, student, quiz, action=-1, loss=0.0, before=None):
        student.eval()
        if before is not None:
            assert quiz.task == "main"
            student.skill = 0.7 * student.skill + {"main": 0.0, "helps": 0.3, "hurts": -0.3, "harms": -0.3}[TASKS[action]]
        reward = float(0.7 + student.skill + 0.2 * self.draw.standard_normal())
        self.past.append(reward)
        if self.shuffled:
            reward = self.past[self.draw.integers(len(self.past))]
        state = torch.zeros(self.width)
        state[action], state[4], state[5] = float(action >= 0), student.skill, 1.0
        return state, reward, 0.0


class Student(nn.Module):
    skill = 0.0


def live(given: Settings, seed: int, episodes: int, shuffled: bool = False) -> tuple[Curriculum, list[dict]]:
    records = []
    stream = Curriculum({task: pool(40) for task in TASKS}, pool(160), 0, World(seed, shuffled), Student(), given, records.append)
    for step in range(episodes * stream.steps_per_epoch):
        stream.next()
        stream.observe(stream.student, step + 1, COST)
    return stream, records


@pytest.mark.parametrize("seed, steps", [(0, 0), (1, 5)])
def test_the_policy_learns_which_task_helps_and_with_shuffled_rewards_it_does_not(seed, steps):
    """Chance is a quarter. Episodes of 20 actions, and of 5."""
    given = settings(learning_rate=1e-2, seed=seed, episode_steps=steps)
    _, records = live(given, seed, 200)
    assert len(records) == 200 and records[0]["policy"]["helps"] < 0.5
    late = {task: np.mean([record["policy"][task] for record in records[-20:]]) for task in TASKS}
    assert late["helps"] > 0.85 and max(late["hurts"], late["harms"]) < 0.2
    _, blind = live(given, seed, 200, shuffled=True)
    assert np.mean([record["policy"]["helps"] for record in blind[-20:]]) < 0.5


def test_returns_run_from_their_own_step_on():
    assert returns_to_go([1.0, 0.0, 2.0], 0.5).tolist() == [1.5, 1.0, 2.0]
    assert returns_to_go([], 0.5).tolist() == []


def test_the_policys_gradient_is_that_of_reinforce():
    stream = Curriculum({task: pool(8) for task in TASKS}, pool(8), 0, World(0), Student(), settings())
    states, actions, advantage = torch.randn(7, 6), torch.tensor([0, 3, 2, 1, 1, 0, 2]), torch.randn(7)
    log = torch.log_softmax(stream.policy(states), -1)[torch.arange(7), actions]
    expected = torch.autograd.grad(-(advantage * log).mean(), list(stream.policy.parameters()))
    norm = torch.sqrt(sum(gradient.square().sum() for gradient in expected))
    stream._ascend(states, actions, advantage)
    for parameter, gradient in zip(stream.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / max(1.0, norm.item()))
    stream._ascend(states, actions, 100 * advantage)
    assert torch.sqrt(sum(parameter.grad.square().sum() for parameter in stream.policy.parameters())).item() == pytest.approx(1.0)


def test_an_action_is_credited_with_the_reward_that_follows_its_step():
    class Told(World):
        def look(self, student, quiz, action=-1, loss=0.0, before=None):
            return torch.full((self.width,), float(action)), action + 10 * loss, 0.0
    stream = Curriculum({task: pool(40) for task in TASKS}, pool(40), 0, Told(0), Student(), settings())
    for step in range(3):
        batch = stream.next()
        stream.observe(stream.student, step + 1, {LOSS: torch.tensor(float(step)), "another": torch.tensor(7.0)})
        state, action, reward, _ = stream.episode[-1]
        assert batch.task == TASKS[action] and reward == action + 10 * step, "its own, and what its batch cost"
        assert state[0] == (stream.episode[-2][1] if step else -1), "the state before it"


def test_what_examples_a_reward_is_taken_on_teaches_the_policy_nothing():
    """Rewards that differ by the examples alone, as the student's before the curriculum do."""
    class Uneven(World):
        def look(self, student, quiz, action=-1, loss=0.0, before=None):
            ease = float(quiz.uid.float().mean())
            return torch.ones(self.width), 0.5 + ease, ease
    stream = Curriculum({task: pool(40) for task in TASKS}, pool(40), 0, Uneven(0), Student(), settings())
    for step in range(2 * stream.steps_per_epoch):
        stream.next()
        stream.observe(stream.student, step + 1, COST)
    assert stream.probabilities(torch.ones(1, 6))[0].tolist() == [0.25] * 4


@pytest.mark.parametrize("policy, drawn", [("main", {"main"}), ("random", set(TASKS))])
def test_controls_draw_the_main_task_alone_or_all_evenly_and_learn_nothing(policy, drawn):
    stream, records = live(settings(policy=policy), 0, 20)
    before = Curriculum({task: pool(8) for task in TASKS}, pool(8), 0, World(0), Student(), settings(policy=policy)).policy.weight
    assert torch.equal(stream.policy.weight, before)
    counts = {task: sum(record["actions"][task] for record in records) for task in TASKS}
    assert {task for task in TASKS if counts[task]} == drawn and sum(counts.values()) == 400
    if policy == "random":
        assert min(counts.values()) > 60


def test_a_step_per_episode_gives_all_its_batches_at_once_and_the_student_stands_still():
    stream, records = live(settings(per_episode=True, seed=3), 0, 5)
    assert stream.steps_per_epoch == 1 and len(records) == 5 and stream.position == 5 * 20
    step = stream.next()
    assert isinstance(step, TaskBatches) and len(step.parts) == 20 and len(step) == 160 and stream.student.training
    halves = [step.shard(rank, 2) for rank in (0, 1)]
    assert sorted(uid for half in halves for part in half.parts for uid in part.uid.tolist()) == sorted(uid for part in step.parts for uid in part.uid.tolist())
    assert all(len({part.task}) == 1 for part in step.split(30)) and sum(map(len, step.split(30))) == 160


def test_an_episode_is_one_pass_over_the_quiz():
    stream = Curriculum({task: pool(21) for task in TASKS}, pool(21), 0, World(0), Student(), settings())
    seen = []
    for step in range(6):
        seen.append(stream._quiz().uid.tolist())
        stream.next()
        stream.observe(stream.student, step + 1, COST)
    assert stream.steps_per_episode == 3 and sorted(sum(seen[:3], [])) == sorted(sum(seen[3:], [])) == list(range(21)) and seen[:3] != seen[3:]


def test_the_student_reads_the_pools_and_is_rewarded_on_the_quiz():
    quiz = replace(pool(16), uid=np.arange(100, 116))
    stream = Curriculum({task: pool(40) for task in TASKS}, quiz, 0, World(0), Student(), settings(policy="main"))
    assert stream.steps_per_episode == 2 and min(stream._quiz().uid) >= 100 and max(stream.next().uid) < 40


def test_a_shorter_episode_asks_a_part_of_the_quiz_and_the_next_another():
    stream = Curriculum({task: pool(21) for task in TASKS}, pool(21), 0, World(0), Student(), settings(episode_steps=2))
    asked = []
    for step in range(4):
        asked.append(set(stream._quiz().uid.tolist()))
        stream.next()
        stream.observe(stream.student, step + 1, COST)
    assert stream.steps_per_epoch == 2 and stream.episode == [], "two episodes are over"
    assert [len(rows) for rows in asked] == [8] * 4 and not asked[0] & asked[1] and asked[0] | asked[1] != asked[2] | asked[3]
    assert Curriculum({task: pool(21) for task in TASKS}, pool(21), 0, World(0), Student(), settings(episode_steps=9)).steps_per_episode == 3


def test_it_goes_on_from_any_step_as_if_nothing_had_happened():
    whole = Curriculum({task: pool(24) for task in TASKS}, pool(24), 0, Pure(), Student(), settings(learning_rate=0.1))
    drawn = []
    for step in range(14):
        drawn.append(whole.next())
        whole.observe(whole.student, step + 1, COST)
    for stop in (1, 3, 5, 9):
        first = Curriculum({task: pool(24) for task in TASKS}, pool(24), 0, Pure(), Student(), settings(learning_rate=0.1))
        for step in range(stop):
            first.next()
            first.observe(first.student, step + 1, COST)
        second = Curriculum({task: pool(24) for task in TASKS}, pool(24), 0, Pure(), Student(), settings(learning_rate=0.1))
        second.load_state_dict(first.state_dict())
        for step in range(stop, 14):
            batch = second.next()
            assert batch.task == drawn[step].task and torch.equal(batch.uid, drawn[step].uid)
            second.observe(second.student, step + 1, COST)
        assert torch.equal(second.policy.weight, whole.policy.weight) and second.position == 14
        assert str(second.optimizer.state_dict()) == str(whole.optimizer.state_dict())


class Pure(World):
    """A world whose rewards are a function of the action alone."""

    def __init__(self):
        super().__init__(0)

    def look(self, student, quiz, action=-1, loss=0.0, before=None):
        state = torch.linspace(0, 1, self.width) * (action + 2)
        return state, float(np.sin(3 * action)), 0.1 * action
