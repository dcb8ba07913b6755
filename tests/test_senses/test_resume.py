"""Building that was killed goes on; what another device did of it is not taken for its own."""

import json
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill import workers
from distill.__main__ import main
from distill.rundir import write_json
from distill.senses import build as building
from distill.senses import states
from distill.senses.dictionary import FILE
from tests.test_senses.builds import words
from tests.training import start


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("stage, after", [("collect", 2), ("collect", 0), ("cluster", 1)])
def test_a_build_killed_between_two_parts_goes_on_to_the_same_bytes(stage, after, made, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "MARK_SECONDS", 0.0)
    name = {"collect": "collate", "cluster": "kmeans"}[stage]
    whole, calls = getattr(building, name), []

    def dies(*arguments, **options):
        if len(calls) == after:
            raise Killed
        calls.append(None)
        return whole(*arguments, **options)

    monkeypatch.setattr(building, name, dies)
    monkeypatch.setattr(building, "plan_groups", lambda counts, k, width, budget: [  # several groups, so that there is a middle
        np.array([token]) for token in np.flatnonzero(counts > k)])
    with pytest.raises(Killed):
        main(words(made, tmp_path / "out"))
    assert not (tmp_path / "out" / FILE).exists() and not (tmp_path / "out/DONE").exists()
    done = json.loads((tmp_path / f"out/work/{stage}.0of1.json").read_text())["done"] if after else 0
    assert done == after

    again = []
    monkeypatch.setattr(building, name, lambda *arguments, **options: again.append(None) or whole(*arguments, **options))
    assert main(words(made, tmp_path / "out")) == 0
    assert (tmp_path / "out" / FILE).read_bytes() == undisturbed
    monkeypatch.setattr(building, name, whole)
    fresh = []
    monkeypatch.setattr(building, name, lambda *arguments, **options: fresh.append(None) or whole(*arguments, **options))
    assert main(words(made, tmp_path / "fresh")) == 0
    assert len(again) == len(fresh) - after, "what was done was done again"


def slow_build(arguments: list[str]) -> None:
    """A build that marks and rests after every part."""
    building.MARK_SECONDS = 0.0
    whole = building.collate
    building.collate = lambda *batch: (time.sleep(0.3), whole(*batch))[1]
    main(arguments)


def test_a_process_killed_at_any_moment_goes_on_to_the_same_bytes(made, undisturbed, tmp_path):
    """A real SIGKILL, after the first part of collecting is on disk, while a later one runs."""
    process = start(slow_build, words(made, tmp_path / "out"))
    mark, limit = tmp_path / "out/work/collect.0of1.json", time.monotonic() + 60
    while not mark.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and mark.exists()
    assert (tmp_path / "out/work/vectors.bin").exists() and not (tmp_path / "out" / FILE).exists()
    assert main(words(made, tmp_path / "out")) == 0
    assert (tmp_path / "out" / FILE).read_bytes() == undisturbed


@pytest.mark.parametrize("found, done", [("the same", 3), ("other parts", 0), ("another device", 0), ("states elsewhere", 0), ("an older mark", 0)])
def test_a_stage_goes_on_only_from_a_mark_that_counts_what_it_counts(found, done, tmp_path, monkeypatch):
    parts, kept = [np.array([part]) for part in range(5)], SimpleNamespace(place="file")
    monkeypatch.setattr(building, "MARK_SECONDS", 0.0)
    begun = building._resumable(parts, tmp_path, "collect", kept, lambda: True)
    assert [int(next(begun)[0]) for _ in range(4)] == [0, 1, 2, 3]  # three are marked
    if found == "other parts":
        parts = [np.array([0, 1]), *parts[1:]]
    elif found == "another device":
        monkeypatch.setattr(workers, "device", lambda: torch.device("cuda"))
    elif found == "states elsewhere":
        kept.place = "device"
    elif found == "an older mark":
        write_json(tmp_path / "collect.0of1.json", {"done": 3})
    again = list(building._resumable(parts, tmp_path, "collect", kept, lambda: True))
    assert [part.tolist() for part in again] == [part.tolist() for part in parts[done:]]


def test_states_that_move_from_the_file_to_the_device_are_collected_again(made, undisturbed, tmp_path, monkeypatch):
    whole = building.kmeans

    def dies(*arguments, **options):
        raise Killed

    monkeypatch.setattr(building, "kmeans", dies)
    with pytest.raises(Killed):
        main(words(made, tmp_path / "out"))
    monkeypatch.setattr(building, "kmeans", whole)
    monkeypatch.setattr(states, "free_memory", lambda: 1 << 30)
    assert main(words(made, tmp_path / "out")) == 0
    assert (tmp_path / "out" / FILE).read_bytes() == undisturbed
