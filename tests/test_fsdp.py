"""--fsdp changes where parameters lie and nothing else: two gloo ranks with shards against one process, and against copies."""

import contextlib
import functools
import json
import os
import shutil
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from data_utils.batching import sequential_batches
from data_utils.tasks import get_task
from distill import engine, interrupts, workers
from distill.engine import Interrupted, NonFiniteLossError
from distill.evaluate import predict
from distill.optim import build_optimizer
from distill.recipes import self_teaching, sense_kd
from distill.rundir import RunDir
from distill.scores import Scores
from distill.senses.build import SenseConfig, build
from distill.senses.dictionary import SenseDictionary
from distill.teacher_cache import CachedTeacher
from models.checkpoint import load_encoder
from models.weights import read_tensors
from tests.training import Parts, assert_same, encoder, exact_arithmetic, free_port, left_behind, settings, start

RANGER = {"optimizer": "ranger_adabelief", "learning_rate": 5e-3, "max_tokens": 30, "max_grad_norm": 0.5, "save_steps": 20}
BATCH_TOKENS = 80
pytestmark = [pytest.mark.usefixtures("exact", "processes"),
              pytest.mark.skipif(torch.cuda.is_available(), reason="gloo ranks are processes on a CPU")]


def train_long(bert: Path, out: Path, **changed) -> None:
    """20 steps of 6 of 13 examples: unequal token counts and numbers of micro-batches, and steps with a single example."""
    for kind in ("tinybert", "relation_kd"):
        Parts(bert, kind, settings(**RANGER, max_steps=20, **changed)).train(out / kind)


def train_watched(bert: Path, out: Path) -> None:
    """A step that writes down how much of each parameter, gradient and optimiser state this rank holds."""
    def note(optimizer, *_):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        held = [[tensor.to_local().numel() for tensor in (parameter, parameter.grad, *(
            value for value in optimizer.state[parameter].values() if value.dim()))] for parameter in parameters]
        (out / f"held{workers.rank()}.json").write_text(json.dumps([[parameter.shape for parameter in parameters], held]))

    def watched(*words):
        optimizer = build_optimizer(*words)
        optimizer.register_step_pre_hook(note)
        return optimizer

    with patch.object(engine, "build_optimizer", watched):
        Parts(bert, "labels", settings(fsdp=True, max_steps=2)).train(out / "watched")


def train_scored(deberta: Path, out: Path, **changed) -> None:
    """AdamW; every two steps an evaluation of an odd number of batches, and of a single one."""
    parts = Parts(deberta, "labels", settings(max_steps=4, eval_steps=2, max_tokens=80, max_grad_norm=0.0, **changed))

    def score(student, to_beat: float) -> Scores:
        few = predict(student, parts.data.take(np.arange(1)))
        logits = np.concatenate([predict(student, parts.data), few])
        np.save(out / f"logits{workers.rank()}.npy", logits)
        return Scores({"dev/sum": float(logits.sum())}, float(logits.sum()))

    with patch.dict(workers.BATCH_TOKENS, cpu=BATCH_TOKENS):
        parts.train(out, evaluate=score)


def train_scaled(bert: Path, out: Path, **changed) -> None:
    """AdamW with a loss scaler, in float32: two steps whose gradients fit, then two whose gradients overflow."""
    parts = Parts(bert, "scores", settings(max_steps=4, max_tokens=30, max_grad_norm=0.0, fp16=True, **changed))

    def overflow():
        parts.data.target[:] = 1e10

    with patch.object(engine, "check_precision"), patch.object(engine, "autocast", lambda *_: contextlib.nullcontext()), \
            patch("torch.amp.GradScaler", functools.partial(torch.amp.GradScaler, init_scale=2.0**100)):
        parts.train(out, parts.stream(1, overflow))  # of which the batch is made


def train_nan(bert: Path, out: Path) -> None:
    """A NaN in the share of rank 0."""
    parts = Parts(bert, "scores", settings(train_batch_size=13, fsdp=True))
    parts.data.target[int(parts.data.lengths.argmax())] = float("nan")
    try:
        parts.train(out / "nan")
    except NonFiniteLossError as error:
        (out / f"nan{workers.rank()}.txt").write_text(str(error))


def pull_the_plug() -> None:
    raise KeyboardInterrupt


def train_stopped(bert: Path, out: Path, at: int, action=pull_the_plug, dropout: bool = False, **changed) -> None:
    """A run that something happens to; undisturbed where that is never reached."""
    parts = Parts(bert, "senses", settings(**RANGER | {"save_steps": 4} | changed), dropout=dropout)
    with contextlib.suppress(KeyboardInterrupt):
        parts.train(out, parts.stream(at, action))


def stop_rank_0() -> None:
    if workers.is_main():
        signal.raise_signal(signal.SIGTERM)


def train_interrupted(bert: Path, out: Path) -> None:
    """Dropout on: an undisturbed run; one that rank 0 is told to end, that then loses its power, and goes on."""
    interrupts.SECONDS = 0.0  # ranks ask each other after every step
    train_stopped(bert, out / "undisturbed", -1, dropout=True, fsdp=True)
    try:
        parts = Parts(bert, "senses", settings(**RANGER | {"save_steps": 4}, fsdp=True), dropout=True)
        parts.train(out / "disturbed", parts.stream(1, stop_rank_0))
    except Interrupted as stop:
        (out / f"stopped{workers.rank()}.txt").write_text(str(stop))
    train_stopped(bert, out / "disturbed", 6, dropout=True, fsdp=True)
    train_stopped(bert, out / "disturbed", -1, dropout=True, fsdp=True)


def distil(teacher: Path, glue: Path, out: Path, fsdp: bool) -> None:
    """A dictionary and a student of a teacher; its batches, small ones, do not divide evenly among ranks."""
    task, place = get_task("CoLA"), {"data_dir": str(glue), "fsdp": fsdp, "bf16": False}
    cfg = SenseConfig(**place, teacher=str(teacher), output_dir=str(out / "senses"), num_senses=3, max_tokens=200)
    build(cfg, task, load_encoder(teacher), RunDir(out / "senses"), {})
    cfg = sense_kd.Config(**place, **RANGER, teacher=str(teacher), senses=str(out / "senses"), max_steps=2, output_dir=str(out / "student"))
    with patch.dict(workers.BATCH_TOKENS, cpu=250):
        sense_kd.run(cfg, task, RunDir(out / "student"))


def teach(bert: Path, glue: Path, out: Path, fsdp: bool) -> None:
    """Self-teaching in two stages, no dropout: its draws are a rank's own."""
    still = shutil.copytree(bert, out / f"still{workers.rank()}")
    (still / "config.json").write_text((still / "config.json").read_text().replace('dropout_prob": 0.1', 'dropout_prob": 0.0'))
    cfg = self_teaching.Config(**RANGER | {"learning_rate": 0.05}, model=str(still), data_dir=str(glue), output_dir=str(out), fsdp=fsdp,
                               schedule="4,3,1", detach_teacher=True, student_ce_weight=1.0, head_dropout=0.0, train_batch_size=5,
                               max_steps=2, bf16=False)
    self_teaching.run(cfg, get_task("CoLA"), RunDir(out))


@exact_arithmetic()
def one_rank(rank: int, port: int, bert: Path, deberta: Path, glue: Path, out: Path) -> None:
    """What torchrun would start: one of two ranks that does everything that is looked at below."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    workers.start()
    train_watched(bert, out)
    train_long(bert, out / "long", fsdp=True)
    for fsdp, name in ((True, "shards"), (False, "copies")):
        train_scored(deberta, out / name, fsdp=fsdp)
        train_scaled(bert, out / "scaled" / name, fsdp=fsdp)
        teach(bert, glue, out / "taught" / name, fsdp=fsdp)
    train_interrupted(bert, out)
    train_stopped(bert, out / "to one", 5, fsdp=True)
    train_stopped(bert, out / "from one", -1, fsdp=True)
    distil(out / "teacher", glue, out / "distilled", fsdp=True)
    train_nan(bert, out)
    workers.stop()


@pytest.fixture(scope="module")
def ranks(tiny_bert, tiny_deberta, tiny_glue, processes, tmp_path_factory) -> Path:
    """What two ranks leave behind, and in alone/ what one process does."""
    out = tmp_path_factory.mktemp("ranks")
    with exact_arithmetic():
        (out / "teacher").mkdir()
        encoder(tiny_bert, get_task("CoLA"), 4, True, seed=2).save(out / "teacher")
        train_stopped(tiny_bert, out / "from one", 5)
        port = free_port()
        started = [start(one_rank, rank, port, tiny_bert, tiny_deberta, tiny_glue, out) for rank in range(2)]
        train_long(tiny_bert, out / "alone/long")
        train_stopped(tiny_bert, out / "alone/stopped", -1)
        distil(out / "teacher", tiny_glue, out / "alone/distilled", fsdp=False)
        teach(tiny_bert, tiny_glue, out / "alone/taught", fsdp=False)
        for process in started:
            process.join(600)
    assert [process.exitcode for process in started] == [0, 0]
    return out


def assert_close(one: Path, other: Path) -> None:
    """The weights of two checkpoints are equal to 1e-6."""
    found, expected = (load_encoder(folder).state_dict() for folder in (one, other))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=lambda said: f"{name}: {said}")


def formats(folder: Path) -> dict:
    """Names of what a run left behind, with the types and shapes of tensors."""
    return {name: value[:2] if type(value) is tuple else type(value) for name, value in left_behind(folder).items()}


def test_two_ranks_with_shards_train_as_one_process_does(ranks, tiny_bert):
    for kind in ("tinybert", "relation_kd"):
        assert_close(ranks / "long" / kind / "best", ranks / "alone/long" / kind / "best")
        before = Parts(tiny_bert, kind, settings()).student.state_dict()
        after = load_encoder(ranks / "long" / kind / "best").state_dict()
        assert max(float((before[name] - after[name]).abs().max()) for name in after) > 1e-3
        one, other = (left_behind(ranks / folder / kind)["log"] for folder in ("long", "alone/long"))
        for ours, theirs in zip(one, other, strict=True):
            assert ours["terms"] == pytest.approx(theirs["terms"], rel=1e-4, abs=1e-7)
    stream = Parts(tiny_bert, "senses", settings()).stream()
    passes = [[len(share.split(RANGER["max_tokens"])) if share else 0 for share in (batch.shard(0, 2), batch.shard(1, 2))]
              for batch in (stream.next() for _ in range(3))]
    assert any(one > other > 0 for one, other in passes) and [1, 0] in passes


def test_parameters_gradients_and_optimiser_state_are_sharded(ranks):
    (shapes, first), (_, second) = (json.loads((ranks / f"held{rank}.json").read_text()) for rank in range(2))
    assert len(shapes) > 30 and {len(held) for held in first} == {4}, "parameter, gradient, two moments"
    for shape, one, other in zip(shapes, first, second, strict=True):
        assert len(set(one)) == len(set(other)) == 1 and one[0] + other[0] == np.prod(shape)
        assert one[0] == np.prod(shape) * -(-shape[0] // 2) / shape[0]


def test_adamw_moves_shards_as_it_moves_copies(ranks):
    assert_close(ranks / "shards/last", ranks / "copies/last")
    assert_close(ranks / "shards/best", ranks / "copies/best")


def test_an_evaluation_of_fewer_batches_than_ranks_need_ends_and_is_right(ranks, tiny_deberta):
    data = Parts(tiny_deberta, "labels", settings()).data
    assert len(sequential_batches(data.lengths, BATCH_TOKENS)) % 2 == 1
    logits = [np.load(ranks / "shards" / f"logits{rank}.npy") for rank in range(2)]
    assert np.array_equal(*logits)
    assert np.allclose(logits[0][:-1], predict(load_encoder(ranks / "shards/last"), data), atol=1e-5)
    assert np.allclose(logits[0][-1], logits[0][0], atol=1e-5)


def test_a_network_teaches_itself_in_stages_on_ranks_as_on_one_process(ranks):
    promoted = read_tensors(ranks / "alone/taught/stage-4-3/best/model.safetensors")
    for name in ("copies", "shards"):
        for folder in ("stage-4-3/best", "best"):
            assert_close(ranks / "taught" / name / folder, ranks / "alone/taught" / folder)
        found, expected = (read_tensors(folder / "last/model.safetensors") for folder in (ranks / "taught" / name, ranks / "alone/taught"))
        assert all(torch.allclose(found[tensor], expected[tensor], rtol=0, atol=1e-6) for tensor in expected)
        assert (found["exit_head.out.weight"] - promoted["classifier.weight"]).abs().max() > 1e-4


def test_the_loss_scaler_skips_the_same_steps_on_shards(ranks):
    assert_close(ranks / "scaled/shards/last", ranks / "scaled/copies/last")
    one, other = (left_behind(ranks / "scaled" / name) for name in ("shards", "copies"))
    assert one["state.scaler.scale"] == other["state.scaler.scale"] == 2.0**98
    for name in ("shards", "copies"):
        state = torch.load(ranks / "scaled" / name / "last/trainer_state.pt", weights_only=True)["optimizer"]["state"]
        assert {float(entries["step"]) for entries in state.values()} == {2}


def test_a_loss_of_one_rank_that_is_no_number_stops_every_rank(ranks):
    assert all("step 1:" in (ranks / f"nan{rank}.txt").read_text() for rank in range(2))


def test_an_interrupted_run_goes_on_bit_for_bit(ranks):
    assert all(f"{who} after step 2 of 10" in (ranks / f"stopped{rank}.txt").read_text() for rank, who in enumerate(("SIGTERM", "another rank")))
    assert_same(left_behind(ranks / "disturbed"), left_behind(ranks / "undisturbed"))


def test_a_checkpoint_of_shards_is_that_of_one_process_and_each_goes_on_with_the_other(ranks, tiny_bert):
    assert torch.load(ranks / "to one/last/trainer_state.pt", weights_only=True)["step"] == 4
    train_stopped(tiny_bert, ranks / "to one", -1)
    for folder in ("to one", "from one"):
        assert formats(ranks / folder) == formats(ranks / "alone/stopped")
        assert_close(ranks / folder / "last", ranks / "alone/stopped/last")


def test_a_sharded_teacher_gives_the_same_senses_and_the_same_soft_targets(ranks):
    one, other = (SenseDictionary.load(ranks / folder / "senses") for folder in ("distilled", "alone/distilled"))
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("offsets", "counts", "centroids"))
    (ours,), (theirs,) = ((ranks / folder / "student/cache").glob("*/logits.bin") for folder in ("distilled", "alone/distilled"))
    assert ours.parent.name == theirs.parent.name
    one, other = (CachedTeacher(file.parent).columns for file in (ours, theirs))
    assert np.allclose(one["logits"], other["logits"], rtol=0, atol=1e-6) and np.array_equal(one["senses"], other["senses"])


def test_one_process_has_nothing_to_shard_over(tiny_bert, tmp_path):
    with pytest.raises(ValueError, match="--fsdp: this is one process.*torchrun"):
        Parts(tiny_bert, "labels", settings(fsdp=True)).train(tmp_path)


def test_a_run_directory_goes_on_with_shards_and_without(tmp_path):
    for fsdp in (True, False):
        run_dir = RunDir(tmp_path)
        run_dir.begin(settings(fsdp=fsdp))
        run_dir.log({"step": 1})
    assert json.loads((tmp_path / "config.json").read_text())["fsdp"] is False


def test_every_rank_does_as_many_parts_and_none_is_left_out():
    for count, world in ((7, 3), (6, 3), (2, 4), (0, 2), (5, 1)):
        shares = []
        for rank in range(world):
            with patch.object(workers, "rank", lambda: rank), patch.object(workers, "world", lambda: world):
                shares.append(workers.share(list(range(count))))
        assert {len(share) for share in shares} == {-(-count // world)}
        assert {part for share in shares for part in share} == set(range(count))
