"""An interrupted run goes on bit for bit, from whatever whole checkpoint is left."""

import itertools
import json
import os
import shutil
import signal
import time
from datetime import UTC, datetime

import pytest
import torch

from distill import trainer_state
from distill.engine import fit
from distill.optim import build_optimizer
from distill.rundir import RunDir
from distill.scores import Scores
from models.weights import read_tensors
from tests.finished import edit
from tests.training import (
    METHODS,
    PROCESSES,
    Parts,
    assert_same,
    exact_arithmetic,
    left_behind,
    settings,
    start,
    stopped_run,
)

pytestmark = pytest.mark.usefixtures("exact", "processes")


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


def test_what_a_run_saves_and_logs_may_change_while_it_goes_on_and_changes_no_weight(tiny_bert, tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), at=5, action=pull_the_plug)
    train(tiny_bert, tmp_path, settings(logging_steps=2, save_steps=3, save_total_limit=1))
    found = left_behind(tmp_path)
    assert [line["step"] for line in found.pop("log") if "terms" in line] == [3, 6, 8, 10]
    assert_same(found, {name: value for name, value in undisturbed["adamw"].items() if name != "log"})


def test_micro_batches_of_another_size_change_a_run_that_goes_on_by_rounding_alone(tiny_bert, tmp_path):
    for name, tokens in (("whole", 0), ("cut", 40)):
        parts = Parts(tiny_bert, "senses", settings())
        with pytest.raises(KeyboardInterrupt):
            parts.train(tmp_path / name, parts.stream(5, pull_the_plug), parts.restless_score)
        Parts(tiny_bert, "senses", settings(max_tokens=tokens)).train(tmp_path / name)
    one, other = (read_tensors(tmp_path / name / "last/model.safetensors") for name in ("whole", "cut"))
    assert any(not torch.equal(one[name], other[name]) for name in one), "cut in the same way: the comparison shows nothing"
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_goes_on_bit_for_bit(tiny_bert, tmp_path, kind):
    """TinyBERT's stop is where its terms change; what it learns beside the student is there again."""
    cfg = settings(max_steps=6)
    train(tiny_bert, tmp_path / "undisturbed", cfg, kind)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path / "stopped", cfg, kind, at=3, action=pull_the_plug)
    train(tiny_bert, tmp_path / "stopped", cfg, kind)
    assert_same(left_behind(tmp_path / "stopped"), left_behind(tmp_path / "undisturbed"))


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


@pytest.mark.parametrize("year", [1970, 2100])
def test_a_clock_that_was_set_back_or_forward_changes_nothing(tiny_bert, tmp_path, undisturbed, monkeypatch, year):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), at=7, action=pull_the_plug)
    then = datetime(year, 1, 2, tzinfo=UTC).timestamp()
    for path in tmp_path.rglob("*"):
        os.utime(path, (then, then))
    monkeypatch.setattr(time, "time", lambda: then)
    monkeypatch.setattr(time, "monotonic", itertools.count(-1e6, 0.5).__next__)  # as after a restart of the machine
    train(tiny_bert, tmp_path, settings())
    assert_same(left_behind(tmp_path), undisturbed["adamw"])
    seconds = [line["seconds"] for line in map(json.loads, (tmp_path / "log.jsonl").open()) if "seconds" in line]
    assert seconds == sorted(seconds) and seconds[0] > 0


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


@pytest.mark.parametrize("keep, old", [(1, "last.old"), (2, "last.1")])
def test_a_run_killed_while_it_exchanged_checkpoints_goes_on_from_the_old_one(tiny_bert, tmp_path, undisturbed, keep, old):
    cfg = settings(save_total_limit=keep)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, cfg, at=5, action=pull_the_plug)
    shutil.rmtree(tmp_path / old, ignore_errors=True)
    (tmp_path / "last").rename(tmp_path / old)
    shutil.copytree(tmp_path / old, tmp_path / "last.tmp")
    (tmp_path / "last.tmp/trainer_state.pt").write_bytes(b"half")

    def started_over():
        raise AssertionError("the checkpoint was there")

    train(tiny_bert, tmp_path, cfg, at=0, action=started_over)
    assert_same(left_behind(tmp_path), undisturbed["adamw"])
    assert not (tmp_path / "last.tmp").exists() and not (tmp_path / "last.old").exists()


def truncate_file(path):
    path.write_bytes(path.read_bytes()[:-100])


def alter_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["trainer_state.pt", "model.safetensors"])
@pytest.mark.parametrize("damage", [truncate_file, alter_a_byte, os.remove])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(tiny_bert, tmp_path, undisturbed, caplog, name, damage):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), at=7, action=pull_the_plug)
    steps = [torch.load(tmp_path / last / "trainer_state.pt", weights_only=True)["step"] for last in ("last", "last.1")]
    assert steps == [6, 4]
    damage(tmp_path / "last" / name)
    train(tiny_bert, tmp_path, settings())
    assert f"last/{name} is missing, truncated or altered" in caplog.text and "the checkpoint before it" in caplog.text
    assert_same(left_behind(tmp_path), undisturbed["adamw"])


def test_where_every_checkpoint_is_damaged_the_run_stops_and_says_what_to_remove(tiny_bert, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), kind="labels", at=7, action=pull_the_plug)
    for last in ("last", "last.1"):
        truncate_file(tmp_path / last / "trainer_state.pt")
    with pytest.raises(ValueError, match="no whole checkpoint is left.*remove .*last"):
        train(tiny_bert, tmp_path, settings(), kind="labels")


@pytest.mark.parametrize("damage, said", [(lambda best: truncate_file(best / "model.safetensors"), "model.safetensors is missing, truncated or altered"),
                                          (lambda best: os.remove(best / "scores.json"), "best is gone"), (shutil.rmtree, "best is gone")])
def test_where_the_best_model_is_lost_the_run_stops_and_says_so(tiny_bert, tmp_path, damage, said):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path, settings(), kind="labels", at=7, action=pull_the_plug)
    damage(tmp_path / "best")
    with pytest.raises(ValueError, match=f"{said}.* the best model so far.*put it back, or remove"):
        train(tiny_bert, tmp_path, settings(), kind="labels")


def test_as_many_checkpoints_are_kept_as_asked_for(tiny_bert, tmp_path):
    for keep in (1, 3):
        train(tiny_bert, tmp_path / str(keep), settings(save_total_limit=keep), kind="labels")
        found = [torch.load(folder / "trainer_state.pt", weights_only=True)["step"]
                 for folder in sorted((tmp_path / str(keep)).glob("last*"))]
        assert found == [10, 8, 6][:keep]


def test_a_finished_run_is_not_trained_further(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path, settings(max_steps=4), kind="labels")
    before = left_behind(tmp_path)
    train(tiny_bert, tmp_path, settings(max_steps=4), kind="labels", at=4, action=pull_the_plug)
    assert_same(left_behind(tmp_path), before)


def test_what_a_run_reports_is_of_the_model_in_best(tiny_bert, tmp_path):
    """As where a run was cut off after an evaluation that it does not reach again."""
    def fitted() -> Scores:
        parts = Parts(tiny_bert, "labels", settings(max_steps=4))
        return fit(parts.student, parts.objective, parts.stream(), parts.cfg, RunDir(tmp_path), parts.restless_score)

    first = fitted()
    edit(tmp_path / "best/scores.json", selection=first.selection + 1)
    (tmp_path / "best/checksums.json").unlink()
    assert fitted().selection == first.selection + 1


def test_word_embeddings_that_the_checkpoint_did_not_train_are_refused():
    """Of a run that goes on with --fsdp switched: by default it holds all of them, else those that its data read."""
    whole, part = (torch.nn.Embedding(rows, 4) for rows in (9, 3))
    trained, other = (build_optimizer("adamw", module, 1e-3, 0.0) for module in (whole, part))
    whole.weight.grad = torch.ones(9, 4)
    trained.step()
    with pytest.raises(ValueError, match="trained other word embeddings: with --fsdp"):
        trainer_state._check_shapes(trained.state_dict(), other)
    trainer_state._check_shapes(trained.state_dict(), trained)


def test_a_signal_leaves_the_handlers_as_they_were(tiny_bert, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT after step 2 of 10"):
        train(tiny_bert, tmp_path, settings(), kind="labels", at=1, action=lambda: signal.raise_signal(signal.SIGINT))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
