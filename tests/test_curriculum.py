"""The curriculum: what it draws, what it credits, that it learns where there is something to learn, that it resumes exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data_utils.batching import TaskBatches
from data_utils.encode import EncodedDataset
from distill.curriculum import LOSS, Curriculum, CurriculumSettings, returns_to_go

TASKS = ("main", "helps", "hurts", "harms")
COST = {LOSS: torch.tensor(0.75)}  # of every batch


def pool(rows: int) -> EncodedDataset:
    return EncodedDataset(np.arange(rows), np.arange(3 * rows, dtype=np.int32), np.arange(0, 3 * rows + 1, 3), np.full(rows, 3), np.arange(rows) % 2)


def settings(**changed) -> CurriculumSettings:
    return CurriculumSettings(**{"policy": "learned", "batch_size": 8, "episode_steps": 0, "learning_rate": 1e-3, "discount": 0.0, "per_episode": False, "seed": 42} | changed)


class World:
    """A student that is one number, its skill: a batch of `helps` raises it, those of other tasks but the main one lower it; it
    is forgotten slowly. The reward is the skill above a level, with noise that no action explains. `shuffled`: rewards of other steps."""

    width = 3

    def __init__(self, seed: int, shuffled: bool = False):
        self.draw, self.shuffled, self.past = np.random.default_rng(seed), shuffled, []

    def train(self, student, task: str) -> None:
        student.skill = 0.7 * student.skill + {"main": 0.0, "helps": 0.3}.get(task, -0.3)

    def look(self, student, quiz):
        student.eval()
        assert quiz.task == "main"
        reward = float(0.7 + student.skill + 0.2 * self.draw.standard_normal())
        self.past.append(reward)
        if self.shuffled:
            reward = self.past[self.draw.integers(len(self.past))]
        return torch.tensor([student.skill, 1.0, 0.0]), reward


class Student(nn.Module):
    skill = 0.0


def curriculum(given: CurriculumSettings, world: World, rows: int = 160, tasks=TASKS, log=lambda record: None) -> Curriculum:
    return Curriculum({task: pool(40) for task in tasks}, pool(rows), 0, world, Student(), given, log)


def take_steps(stream: Curriculum, first: int, last: int) -> list:
    """The batches of the steps after `first` up to `last`, the student trained on each."""
    batches = []
    for step in range(first, last):
        batches.append(stream.next())
        stream.observer.train(stream.student, stream.tasks[stream.action])
        stream.observe(stream.student, step + 1, COST)
    return batches


def live(given: CurriculumSettings, seed: int, episodes: int, shuffled: bool = False, tasks=TASKS) -> tuple[Curriculum, list[dict]]:
    records = []
    stream = curriculum(given, World(seed, shuffled), tasks=tasks, log=records.append)
    take_steps(stream, 0, episodes * stream.steps_per_epoch)
    return stream, records


@pytest.mark.parametrize("seed, steps, discount", [(0, 0, 0.0), (1, 5, 0.0), (2, 5, 0.9)])
def test_the_policy_learns_which_task_helps_and_with_shuffled_rewards_none(seed, steps, discount):
    """Chance is a quarter. Episodes of 20 actions, and of 5."""
    given = settings(learning_rate=2e-2, seed=seed, episode_steps=steps, discount=discount)
    _, records = live(given, seed, 100)
    assert len(records) == 100 and records[0]["policy"]["helps"] < 0.5
    assert late(records)["helps"] > 0.85 and max(late(records)[task] for task in ("hurts", "harms")) < 0.2
    _, blind = live(given, seed, 100, shuffled=True)
    assert late(blind)["helps"] < 0.5 and max(late(blind).values()) < 0.7


def test_the_policy_learns_within_the_budget_of_the_table_in_readme():
    """60 episodes of 4 actions among 8 tasks; chance is an eighth."""
    tasks = ("main", "helps", *(f"harms{number}" for number in range(6)))
    given = settings(learning_rate=3e-2, episode_steps=4)
    found, blind = ([late(live(given, seed, 60, shuffled, tasks)[1])["helps"] for seed in range(5)] for shuffled in (False, True))
    assert np.mean(found) > 0.35 and np.mean(blind) < 0.2


def late(records: list[dict]) -> dict[str, float]:
    """The policy at the end: the mean over the last tenth."""
    last = records[-len(records) // 10:]
    return {task: np.mean([record["policy"][task] for record in last]) for task in last[0]["policy"]}


def test_returns_run_from_their_own_step_on():
    assert returns_to_go([1.0, 0.0, 2.0], 0.5).tolist() == [1.5, 1.0, 2.0]
    assert returns_to_go([], 0.5).tolist() == []


def test_the_policys_gradient_is_that_of_reinforce():
    stream = curriculum(settings(), World(0))
    states, actions, advantage = torch.randn(7, 11), torch.tensor([0, 3, 2, 1, 1, 0, 2]), torch.randn(7)
    log = torch.log_softmax(stream.policy(states), -1)[torch.arange(7), actions]
    expected = torch.autograd.grad(-(advantage * log).mean(), list(stream.policy.parameters()))
    norm = torch.sqrt(sum(gradient.square().sum() for gradient in expected))
    stream._ascend(states, actions, advantage)
    for parameter, gradient in zip(stream.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / max(1.0, norm.item()))
    stream._ascend(states, actions, 100 * advantage)
    assert torch.sqrt(sum(parameter.grad.square().sum() for parameter in stream.policy.parameters())).item() == pytest.approx(1.0)


def test_an_action_is_credited_with_what_its_own_step_changed():
    class Told(World):
        def train(self, student, task):
            student.skill += 10.0 + TASKS.index(task)

        def look(self, student, quiz):
            return torch.zeros(self.width), float(student.skill + quiz.uid.sum())
    stream = curriculum(settings(), Told(0))
    for step in range(3):
        batch, = take_steps(stream, step, step + 1)
        taken = stream.episode[-1]
        assert batch.task == TASKS[taken.action] and taken.gain == 10 + taken.action, "on the same examples"


def test_a_state_holds_the_view_the_latest_losses_against_their_mean_and_the_latest_action():
    stream = curriculum(settings(), World(0))
    losses = {}
    for step in range(4):
        stream.next()
        state, mean = stream.episode[-1].state.numpy(), np.mean(list(losses.values())) if losses else 0
        relative = [(losses[task] - mean) / 4 if task in losses else 0 for task in range(4)]
        np.testing.assert_allclose(state, [0, 1, 0, *relative, *(float(step and task == action) for task in range(4))], atol=1e-6)
        action, losses[stream.action] = stream.action, step / 2
        stream.observe(stream.student, step + 1, {LOSS: torch.tensor(step / 2), "another": torch.tensor(7.0)})


def test_what_examples_a_reward_is_taken_on_teaches_the_policy_nothing():
    """Nor does the meta-teacher's share in real rewards, which is theirs as well."""
    class Uneven(World):
        def look(self, student, quiz):
            return torch.ones(self.width), 0.5 + float(quiz.uid.float().mean())
    stream = curriculum(settings(), Uneven(0))
    take_steps(stream, 0, 2 * stream.steps_per_epoch)
    assert stream.probabilities(torch.ones(1, 11))[0].tolist() == [0.25] * 4


def test_the_baseline_is_a_running_mean_of_the_episodes_before():
    class Steady(World):
        def look(self, student, quiz):
            return torch.zeros(self.width), student.skill

        def train(self, student, task):
            student.skill += 1.0
    stream = curriculum(settings(), Steady(0))
    take_steps(stream, 0, stream.steps_per_epoch)
    assert stream.usual_gain == 1.0 and not stream.policy.weight.any(), "all gains are alike"
    stream.usual_gain = 0.5
    take_steps(stream, 20, 40)
    assert stream.usual_gain == pytest.approx(0.5 + 0.1 * 0.5) and stream.policy.weight.any()


@pytest.mark.parametrize("policy, drawn", [("main", {"main"}), ("random", set(TASKS))])
def test_controls_draw_the_main_task_alone_or_all_evenly_and_learn_nothing(policy, drawn):
    stream, records = live(settings(policy=policy), 0, 20)
    assert not stream.policy.weight.any() and not stream.policy.bias.any()
    chances = {task: 1 / len(drawn) if task in drawn else 0 for task in TASKS}
    assert all(record["policy"] == chances for record in records)
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
    stream = curriculum(settings(), World(0), rows=21)
    seen = [stream._quiz(position).uid.tolist() for position in range(6)]
    assert stream.steps_per_episode == 3 and sorted(sum(seen[:3], [])) == sorted(sum(seen[3:], [])) == list(range(21)) and seen[:3] != seen[3:]


def test_the_student_reads_the_pools_and_is_rewarded_on_the_quiz():
    quiz = replace(pool(16), uid=np.arange(100, 116))
    stream = Curriculum({task: pool(40) for task in TASKS}, quiz, 0, World(0), Student(), settings(policy="main"))
    assert stream.steps_per_episode == 2 and min(stream._quiz(0).uid) >= 100 and max(stream.next().uid) < 40


def test_a_shorter_episode_asks_a_part_of_the_quiz_and_the_next_another():
    stream = curriculum(settings(episode_steps=2), World(0), rows=21)
    asked = [set(stream._quiz(position).uid.tolist()) for position in range(4)]
    take_steps(stream, 0, 4)
    assert stream.steps_per_epoch == 2 and stream.episode == [], "two episodes are over"
    assert [len(rows) for rows in asked] == [8] * 4 and not asked[0] & asked[1] and asked[0] | asked[1] != asked[2] | asked[3]
    assert curriculum(settings(episode_steps=9), World(0), rows=21).steps_per_episode == 3


def test_it_goes_on_from_any_step_as_if_nothing_had_happened():
    whole = curriculum(settings(learning_rate=0.1), Pure(0), rows=24)
    drawn = take_steps(whole, 0, 14)
    for stop in (1, 3, 5, 9):
        first, second = (curriculum(settings(learning_rate=0.1), Pure(0), rows=24) for _ in range(2))
        take_steps(first, 0, stop)
        second.load_state_dict(first.state_dict())
        second.student.skill = first.student.skill
        for batch, expected in zip(take_steps(second, stop, 14), drawn[stop:], strict=True):
            assert batch.task == expected.task and torch.equal(batch.uid, expected.uid)
        assert torch.equal(second.policy.weight, whole.policy.weight) and second.position == 14
        assert second.usual_gain == whole.usual_gain and torch.equal(second.losses.nan_to_num(), whole.losses.nan_to_num())
        assert str(second.optimizer.state_dict()) == str(whole.optimizer.state_dict())


class Pure(World):
    """A world without noise."""

    def look(self, student, quiz):
        return torch.linspace(0, 1, self.width) * (student.skill + 2), float(np.sin(3 * student.skill))
