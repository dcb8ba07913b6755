"""What the machine lacks: memory on the GPU, GPUs for all processes, git, patience."""

import numpy as np
import pytest
import torch

from distill import engine, workers
from distill.arrays import mapped_array
from distill.rundir import origin
from distill.verbs import report
from tests.training import run


def test_a_gpu_that_is_full_is_said_with_the_setting_that_helps(tiny_bert, tiny_glue, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")

    monkeypatch.setattr(engine, "_accumulate", full)
    with pytest.raises(SystemExit) as stop:
        run("train", "finetune", "CoLA", "--model", tiny_bert, "--data_dir", tiny_glue, "--output_dir", tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stop.value.code == 1 and "Tried to allocate 2.00 GiB. Close" in line and "--max_tokens" in line


def test_what_does_not_fit_into_a_gpus_memory_is_done_in_halves():
    asked = []

    def work(rows) -> int:
        asked.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return int(rows.sum())

    found = workers.where_it_fits(work, np.arange(7), sharded=False)
    assert asked == [7, 4, 2, 2, 3, 2, 1] and [(rows.tolist(), value) for rows, value in found] == [([0, 1], 1), ([2, 3], 5), ([4, 5], 9), ([6], 6)]
    with pytest.raises(torch.OutOfMemoryError):
        workers.where_it_fits(work, np.arange(7), sharded=True)


def test_an_interruption_outside_of_training_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "main", interrupted)
    assert run("report", "ids") == 130
    assert capsys.readouterr().err == "\ninterrupted: the same command goes on from the last checkpoint\n"


def test_a_machine_without_git_runs_too(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert origin(["x"])["commit"] is None


def test_more_processes_than_gpus_are_refused_before_they_wait_for_each_other(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run("train", "finetune", "CoLA") == 1
    assert "error: torchrun started 2 processes on this machine, which has 1 GPU: " in capsys.readouterr().err


def test_files_that_all_ranks_write_are_refused_on_several_machines(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(workers, "world", lambda: 4)
    with pytest.raises(ValueError, match="written by several machines.*--nnodes 1"):
        mapped_array(tmp_path / "file", (1, 1), np.float16)
    assert not (tmp_path / "file").exists()
