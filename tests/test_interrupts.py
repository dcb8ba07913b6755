"""Signals: how ranks agree to end, and what they find a run at."""

import itertools
import os
import signal
from functools import partial

import pytest

from distill import engine, interrupts, trainer_state, workers
from distill.engine import Interrupted
from distill.interrupts import Stop, signals
from distill.rundir import RunDir
from tests import test_resume
from tests.training import Parts, assert_same, left_behind, settings

train = partial(test_resume.train, kind="labels")


@pytest.mark.parametrize("begun", [0, 2000])
@pytest.mark.parametrize("seconds, expected", [(4.0, [1, 2, 3, 4, 5, 6, 7, 8]), (0.3, [1, 4, 7]), (0.001, [1])])
def test_ranks_are_asked_about_once_a_second_and_after_every_longer_step(seconds, expected, begun, monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(workers, "world", lambda: 2)
    monkeypatch.setattr(workers, "gather", lambda value: asked.append(step) or [value, (False, 99.0, False)])
    stop = Stop(step=begun)
    for step in range(begun + 1, begun + 9):
        clock[0] += seconds
        assert not stop.asked(step)
    assert [step - begun for step in asked] == expected


def test_a_signal_of_another_rank_ends_this_one_too(monkeypatch):
    monkeypatch.setattr(workers, "world", lambda: 2)
    monkeypatch.setattr(workers, "gather", lambda value: [value, (True, 1.0, False)])
    stop = Stop()
    assert stop.asked(1) and stop.reason == "another rank"


def test_a_second_sigterm_changes_nothing_and_a_second_sigint_ends_at_once(capfd):
    with signals() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert capfd.readouterr().err == 2 * "\nSIGTERM: finishing this step and saving\n"
        assert stop.asked(1) and stop.received == ["SIGTERM"] * 2 and stop.reason == "SIGTERM"
    with signals() as stop, pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.received == ["SIGINT"] and "saving; Ctrl-C again quits without saving" in capfd.readouterr().err


@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoint_is_due_by_the_clock_of_the_first_rank(world, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(workers, "world", lambda: world)
    monkeypatch.setattr(workers, "gather", lambda value: [value, (False, 0.0, True)])  # the other's clock says nothing
    stop, due = Stop(minutes=1.0), []
    for step in range(1, 8):
        clock[0] += 25.0
        assert not stop.asked(step)
        due.append(stop.due)
    assert due == [False, False, True, False, False, True, False]


def test_a_signal_during_the_last_step_ends_what_would_follow_and_nothing_is_trained_again(tiny_bert, tmp_path):
    with pytest.raises(Interrupted, match="SIGTERM after step 4 of 4"):
        train(tiny_bert, tmp_path, settings(max_steps=4), at=3, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    train(tiny_bert, tmp_path, settings(max_steps=4), at=4, action=lambda: 1 / 0)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 2])
def test_a_signal_cuts_an_evaluation_off_and_the_run_goes_on_with_it_bit_for_bit(tiny_bert, tmp_path, at, number):
    """Also when it is killed after the evaluation was made, before the next checkpoint; the second of two is the last step's."""
    cfg, asked = settings(max_steps=4, eval_steps=2, save_steps=3), itertools.count(1)
    train(tiny_bert, tmp_path / "undisturbed", cfg)
    parts = Parts(tiny_bert, "labels", cfg, dropout=True)

    def interrupted(student, to_beat):
        if next(asked) == at:
            os.kill(os.getpid(), number)
        return parts.restless_score(student)

    with pytest.raises(Interrupted, match=f"{number.name} after step {2 * at} of 4"):
        parts.train(tmp_path / "cut", parts.stream(), interrupted)
    if at == 1:
        with pytest.raises(ZeroDivisionError):
            train(tiny_bert, tmp_path / "cut", cfg, at=2, action=lambda: 1 / 0)
        assert [line["step"] for line in RunDir(tmp_path / "cut").logged() if "scores" in line] == [2]
    train(tiny_bert, tmp_path / "cut", cfg)
    assert_same(left_behind(tmp_path / "cut"), left_behind(tmp_path / "undisturbed"))


def test_a_signal_while_the_last_checkpoint_is_written_is_not_forgotten(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "save_last", lambda *given: trainer_state.save_last(*given) or os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="SIGINT after step 4 of 4"):
        train(tiny_bert, tmp_path, settings(max_steps=4, save_steps=100, eval_steps=100))
