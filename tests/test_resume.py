"""An interrupted run goes on bit for bit; the run directory says what it holds and refuses what does not fit."""

import json
import os
import shutil
import signal

import pytest
import torch

from distill import rundir
from distill.__main__ import main
from distill.rundir import RunDir, SaveError, whole_folder, write_folder
from distill.scores import Scores
from tests.training import (
    PROCESSES,
    Parts,
    assert_same,
    exact_arithmetic,
    free_port,
    holding_run,
    left_behind,
    one_rank_of_the_program,
    prepare_processes,
    settings,
    start,
    stopped_run,
)


@pytest.fixture(autouse=True)
def exact():
    with exact_arithmetic():
        yield


@pytest.fixture(autouse=True, scope="module")
def processes():
    prepare_processes()


def train(folder, path, cfg, kind="senses", at=-1, action=None):
    """One command's part of a run, dropout on."""
    parts = Parts(folder, kind, cfg, dropout=True)
    parts.train(path, parts.stream(at, action), parts.restless_score)


def pull_the_plug():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(tiny_bert, tmp_path_factory):
    """What an undisturbed run leaves behind, by optimiser."""
    found = {}
    with exact_arithmetic():
        for optimizer in ("adamw", "ranger_adabelief"):
            path = tmp_path_factory.mktemp(optimizer)
            train(tiny_bert, path, settings(optimizer=optimizer))
            found[optimizer] = left_behind(path)
    return found


def test_the_undisturbed_run_is_a_fair_measure(undisturbed):
    for found in undisturbed.values():
        assert [line["step"] for line in found["log"] if "terms" in line] == [3, 6, 9, 10]
        assert [line["step"] for line in found["log"] if "scores" in line] == [4, 8, 10]
        assert found["best/model.safetensors"] != found["last/model.safetensors"], "best and last must be told apart"
        assert found["state.step"] == 10 and found["state.stream.position"] == 10
    assert undisturbed["adamw"]["last/model.safetensors"] != undisturbed["ranger_adabelief"]["last/model.safetensors"]


@pytest.mark.parametrize("optimizer, save_steps, stops", [
    ("adamw", 2, [5]), ("ranger_adabelief", 2, [5]), ("adamw", 2, [1, 3, 4, 9]), ("ranger_adabelief", 2, [7, 8]), ("adamw", 6, [5])])
def test_a_run_without_power_goes_on_bit_for_bit(tiny_bert, tmp_path, undisturbed, optimizer, save_steps, stops):
    """Between two checkpoints, right after one, inside and at the end of a line of the log; before the first checkpoint,
    when the log and best/ have been written already."""
    cfg = settings(optimizer=optimizer, save_steps=save_steps)
    for at in stops:
        with pytest.raises(KeyboardInterrupt):
            train(tiny_bert, tmp_path, cfg, at=at, action=pull_the_plug)
    train(tiny_bert, tmp_path, cfg)
    assert_same(left_behind(tmp_path), undisturbed[optimizer])


@pytest.mark.parametrize("optimizer", ["adamw", "ranger_adabelief"])
def test_sigterm_saves_at_the_edge_of_the_step_and_the_run_goes_on_bit_for_bit(tiny_bert, tmp_path, undisturbed, optimizer):
    cfg, ready, sent = settings(optimizer=optimizer), PROCESSES.Event(), PROCESSES.Event()
    process = start(stopped_run, tiny_bert, "senses", cfg, tmp_path, 4, ready, sent)
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGTERM)
    sent.set()
    process.join(60)
    said = (tmp_path / "stopped.txt").read_text()
    assert "SIGTERM after step 5 of 10" in said and "goes on" in said
    assert torch.load(tmp_path / "last/trainer_state.pt", weights_only=True)["step"] == 5
    train(tiny_bert, tmp_path, cfg)
    assert_same(left_behind(tmp_path), undisturbed[optimizer])


def test_a_killed_run_goes_on_from_its_checkpoint_bit_for_bit(tiny_bert, tmp_path, undisturbed):
    ready, never = PROCESSES.Event(), PROCESSES.Event()
    process = start(stopped_run, tiny_bert, "senses", settings(), tmp_path, 7, ready, never)
    assert ready.wait(60)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert torch.load(tmp_path / "last/trainer_state.pt", weights_only=True)["step"] == 6
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "terms": {"ce": 0.1}')  # what a kill in the middle of a line leaves
    train(tiny_bert, tmp_path, settings())
    assert_same(left_behind(tmp_path), undisturbed["adamw"])


def test_the_seconds_of_a_run_are_those_of_all_its_sittings(tiny_bert, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), at=5, action=pull_the_plug)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    log[0]["seconds"] += 1000
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"step": 5, "seco')
    assert 1000 < RunDir(tmp_path).logged_seconds() < 1100
    train(tiny_bert, tmp_path, settings())
    seconds = [json.loads(line).get("seconds", 0) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert max(seconds) == seconds[-2] > 1000, "the last line of terms, before the last scores"


def test_a_run_killed_while_it_exchanged_checkpoints_goes_on_from_the_old_one(tiny_bert, tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), at=5, action=pull_the_plug)
    (tmp_path / "last").rename(tmp_path / "last.old")
    shutil.copytree(tmp_path / "last.old", tmp_path / "last.tmp")
    (tmp_path / "last.tmp/trainer_state.pt").write_bytes(b"half")
    train(tiny_bert, tmp_path, settings())
    assert_same(left_behind(tmp_path), undisturbed["adamw"])
    assert not (tmp_path / "last.old").exists() and not (tmp_path / "last.tmp").exists()


def test_a_damaged_checkpoint_is_said_and_not_skipped(tiny_bert, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), kind="labels", at=3, action=pull_the_plug)
    (tmp_path / "last/trainer_state.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match="trainer_state.pt cannot be read.*remove"):
        train(tiny_bert, tmp_path, settings(), kind="labels")


def test_a_finished_run_is_not_trained_further(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path, settings(max_steps=4), kind="labels")
    before = left_behind(tmp_path)
    train(tiny_bert, tmp_path, settings(max_steps=4), kind="labels", at=4, action=pull_the_plug)
    assert_same(left_behind(tmp_path), before)


def test_a_signal_leaves_the_handlers_as_they_were(tiny_bert, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT after step 2 of 10"):
        train(tiny_bert, tmp_path, settings(), kind="labels", at=1, action=lambda: signal.raise_signal(signal.SIGINT))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def words(folder, glue, out, *more) -> list[str]:
    return [str(word) for word in ("train", "finetune", "CoLA", "--model", folder, "--data_dir", glue, "--output_dir", out,
                                   "--max_steps", 3, "--bf16", False, "--logging_steps", 1, *more)]


@pytest.fixture(scope="module")
def finished(tiny_bert, tiny_glue, tmp_path_factory):
    """A run through the command line."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(words(tiny_bert, tiny_glue, out)) == 0
    return out


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_directory_holds_what_the_design_says(finished):
    assert {path.name for path in finished.iterdir()} == {"config.json", "origin.json", "log.jsonl", "best", "last",
                                                          "scores.json", "DONE", ".lock"}
    assert (finished / "last/trainer_state.pt").is_file() and not (finished / "best/trainer_state.pt").exists()
    origin = json.loads((finished / "origin.json").read_text())
    assert {"command", "commit", "python", "torch", "device", "data"} <= set(origin)
    assert set(origin["data"]) == {"train", "dev"}
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    steps = [line for line in log if "terms" in line]
    assert [line["step"] for line in steps] == [1, 2, 3] and steps[0]["weights"] == {"ce": 1.0}
    assert sum(line["examples"] for line in steps) == 32 + 16 + 32
    scores = json.loads((finished / "scores.json").read_text())
    assert scores["values"] == json.loads((finished / "best/scores.json").read_text())["values"]
    assert scores["values"].keys() == scores["errors"].keys() == scores["counts"].keys() == {"dev/matthews"}


def test_a_finished_command_given_again_changes_nothing(finished, tiny_bert, tiny_glue, capsys):
    before = contents(finished)
    assert main(words(tiny_bert, tiny_glue, finished)) == 0
    assert contents(finished) == before
    assert "finetune on CoLA" in capsys.readouterr().out


@pytest.mark.parametrize("done", [True, False])
def test_other_settings_are_refused_with_the_difference(finished, tiny_bert, tiny_glue, tmp_path, capsys, done):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    if not done:
        (out / "DONE").unlink()
    before = contents(out)
    assert main(words(tiny_bert, tiny_glue, out, "--weight_decay", 0.5)) == 1
    said = capsys.readouterr().err
    assert "weight_decay: 0.01 -> 0.5" in said and "learning_rate" not in said and "Traceback" not in said
    assert contents(out) == before


def test_a_second_process_is_refused_while_the_first_works(tmp_path):
    cfg, ready, done = settings(output_dir=str(tmp_path)), PROCESSES.Event(), PROCESSES.Event()
    process = start(holding_run, cfg, ready, done)
    assert ready.wait(60)
    with pytest.raises(ValueError, match="another process is working in"):
        RunDir(tmp_path).begin(cfg)
    done.set(), process.join(60)
    RunDir(tmp_path).begin(cfg)


def test_done_is_written_last(tmp_path, monkeypatch):
    run, scores = RunDir(tmp_path), Scores({"dev/accuracy": 0.5}, 0.5)
    with pytest.raises(ValueError, match="not finished"):
        run.scores()

    def full_disk(path, content):
        raise SaveError("no space")

    monkeypatch.setattr(rundir, "write_json", full_disk)
    with pytest.raises(SaveError):
        run.finish(scores.to_json())
    assert not run.is_done()
    monkeypatch.undo()
    run.finish({**scores.to_json(), "seconds": 1.0})
    assert run.is_done() and run.scores() == scores


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path):
    folder = tmp_path / "best"
    write_folder(folder, lambda path: (path / "a").write_text("old"))

    def fail(path):
        (path / "a").write_text("new")
        raise OSError("no space left")

    with pytest.raises(SaveError, match="no space left.*kept"):
        write_folder(folder, fail)
    assert contents(tmp_path) == {"best/a": b"old"}
    write_folder(folder, lambda path: (path / "b").write_text("new"))
    assert contents(tmp_path) == {"best/b": b"new"}
    assert whole_folder(tmp_path / "never") is None


def test_a_refusal_on_two_ranks_is_one_line_from_the_first_and_ends_both(tiny_bert, tiny_glue, tmp_path):
    words = ["train", "finetune", "CoLA", "--model", str(tiny_bert), "--data_dir", str(tiny_glue), "--max_steps", "2",
             "--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    port = free_port()
    ranks = [start(one_rank_of_the_program, rank, port, [*words, "--seed", "7"], tmp_path / f"said{rank}") for rank in range(2)]
    for rank in ranks:
        rank.join(120)
        assert rank.exitcode == 1
    first, second = ([line for line in (tmp_path / f"said{rank}").read_text().splitlines() if "error" in line.lower()
                      or "Traceback" in line] for rank in range(2))
    assert len(first) == 1 and "seed: 42 -> 7" in first[0] and second == []
