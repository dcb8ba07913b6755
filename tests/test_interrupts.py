"""How ranks agree to end."""

import os
import signal

import pytest

from distill import interrupts, workers
from distill.interrupts import Stop, signals


@pytest.mark.parametrize("seconds, expected", [(4.0, [1, 2, 3, 4, 5, 6, 7, 8]), (0.3, [1, 4, 7]), (0.001, [1])])
def test_ranks_are_asked_about_once_a_second_and_after_every_longer_step(seconds, expected, monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(workers, "world", lambda: 2)
    monkeypatch.setattr(workers, "gather", lambda value: asked.append(step) or [value, (False, 99.0, False)])
    stop = Stop()
    for step in range(1, 9):
        clock[0] += seconds
        assert not stop.asked(step)
    assert asked == expected


def test_a_signal_of_another_rank_ends_this_one_too(monkeypatch):
    monkeypatch.setattr(workers, "world", lambda: 2)
    monkeypatch.setattr(workers, "gather", lambda value: [value, (True, 1.0, False)])
    stop = Stop()
    assert stop.asked(1) and stop.reason == "another rank"


def test_a_second_sigterm_changes_nothing_and_a_second_sigint_ends_at_once():
    with signals() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked(1) and stop.received == ["SIGTERM"] * 2 and stop.reason == "SIGTERM"
    with signals() as stop, pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.received == ["SIGINT"]


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
