"""The teacher's cache: what the live teacher says, made once and whole, whoever else wants it and whatever goes wrong."""

import dataclasses
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils.batching import collate
from distill import teacher_cache, workers
from distill.distillation import Distillation, cached_or_live
from distill.rundir import SaveError
from distill.teacher import LiveTeacher, Wanted
from distill.teacher_cache import CachedTeacher, cache_bytes, cached_teacher
from models.heads import SenseLookup
from tests.training import PROCESSES, Parts, be_rank, encoder, exact_arithmetic, fill_disk, free_port, left_behind, settings, start

ALL = Wanted(senses=True, cls=(0, 2, 4), hidden=(0, 1, 4), projections=(1, 3))
STATES = Wanted(hidden=(2, 4), projections=(3,))
pytestmark = pytest.mark.usefixtures("exact", "processes")


@pytest.fixture
def parts(tiny_bert) -> Parts:
    """A teacher that knows senses, and 13 examples."""
    return Parts(tiny_bert, "senses", settings())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several batches for 13 examples."""
    monkeypatch.setitem(workers.BATCH_TOKENS, "cpu", 70)


def wanting(parts: Parts, wanted: Wanted) -> LiveTeacher:
    return LiveTeacher(parts.teacher.encoder, parts.cfg, wanted, parts.lookup)


class Untouchable:
    """A teacher that must not be asked."""

    def __init__(self, live: LiveTeacher):
        self.encoder, self.wanted = live.encoder, live.wanted

    def __call__(self, batch):
        raise AssertionError("the cache was there")


# ---- what it says


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_a_cached_teacher_says_what_the_live_one_says(request, tmp_path, kind):
    """States in float16, 0.05 % off; logits, [CLS] states and senses as they are. Zeros at padding."""
    parts = Parts(request.getfixturevalue(f"tiny_{kind}"), "senses", settings())
    live = wanting(parts, ALL)
    cached = cached_teacher(live, parts.data, tmp_path / "cache")
    for rows in (np.array([4, 0, 12]), np.arange(13)):
        batch = collate(parts.data, rows, "SST-2", parts.tokenizer.pad_token_id)
        expected, found, real = live(batch), cached(batch), batch.attention_mask.bool()
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
        assert torch.equal(found.senses[real], expected.senses[real]) and set(found.senses[~real].tolist()) <= {-1}
        assert [states is not None for states in found.hidden] == [True, True, True, False, True]
        torch.testing.assert_close(found.hidden[2], expected.hidden[2][:, :1], atol=1e-5, rtol=0)
        assert found.projections.keys() == expected.projections.keys() == {1, 3}
        pairs = [(found.hidden[layer], expected.hidden[layer]) for layer in (0, 1, 4)]
        pairs += [pair for layer in (1, 3) for pair in zip(found.projections[layer], expected.projections[layer], strict=True)]
        for one, other in pairs:
            assert one.dtype == torch.float32 and not one[~real].any()
            torch.testing.assert_close(one[real], other[real], rtol=6e-4, atol=2e-5)
            assert not torch.equal(one[real], other[real]) and other[real].abs().max() > 1e-3
    assert {-1, 0, 1, 2} == set(found.senses.flatten().tolist())
    sizes = sum(file.stat().st_size for file in (tmp_path / "cache").glob("*.bin"))
    assert sizes == cache_bytes(live, parts.data)
    again = cached_teacher(Untouchable(live), parts.data, tmp_path / "cache")(batch)
    assert torch.equal(again.logits, found.logits) and torch.equal(again.hidden[1], found.hidden[1])


@pytest.mark.parametrize("number, kind", [(128, "int8"), (129, "int16"), (300, "int16")])
def test_senses_are_kept_however_many_a_type_has(parts, tmp_path, number, kind):
    vocabulary, width = parts.student.config.vocab_size, parts.student.width
    lookup = SenseLookup(torch.randn(vocabulary * number, width), torch.arange(vocabulary + 1) * number)
    live = LiveTeacher(parts.teacher.encoder, parts.cfg, Wanted(senses=True), lookup)
    batch = collate(parts.data, np.arange(13), "SST-2", parts.tokenizer.pad_token_id)
    expected, real = live(batch).senses, batch.attention_mask.bool()
    assert torch.equal(cached_teacher(live, parts.data, tmp_path / "cache")(batch).senses, expected.where(real, -1))
    assert expected[real].max() > number * 0.9 and f"senses {kind} " in (tmp_path / "cache/columns.txt").read_text()


def test_a_cache_holds_nothing_that_is_not_wanted(parts, tmp_path):
    cached_teacher(wanting(parts, Wanted(cls=(2,), projections=(3,))), parts.data, tmp_path / "cache")
    assert {file.stem for file in (tmp_path / "cache").glob("*.bin")} == {"logits", "cls.2", "query.3", "key.3", "value.3"}
    found = CachedTeacher(tmp_path / "cache")(collate(parts.data, np.arange(3), "SST-2", 0))
    assert found.senses is None and len(found.hidden) == 3 and found.hidden[2].shape == (3, 1, 32)


def test_an_adaptors_width_is_that_of_the_last_layer(tiny_bert, tmp_path):
    """A student that became a teacher."""
    parts = Parts(tiny_bert, "tinybert", settings())
    live = LiveTeacher(parts.student, settings(), Wanted(cls=(1, 2), hidden=(1, 2)))
    found = cached_teacher(live, parts.data, tmp_path / "cache")(collate(parts.data, np.arange(3), "SST-2", 0))
    assert [states.shape[-1] for states in found.hidden[1:]] == [32, 48]


@pytest.mark.parametrize("kind", ["senses", "pkd", "tinybert", "relation_kd"])
def test_steps_with_a_cached_teacher_have_the_same_losses(tiny_bert, tmp_path, kind):
    """Up to the rounding of states."""
    live, other = (Parts(tiny_bert, kind, settings(logging_steps=1, max_steps=3)) for _ in range(2))
    live.train(tmp_path / "live")
    other.objective.teacher = cached_teacher(other.teacher, other.data, tmp_path / "cache")
    other.train(tmp_path / "cached")
    for one, two in zip(left_behind(tmp_path / "live")["log"], left_behind(tmp_path / "cached")["log"], strict=True):
        assert len(one["terms"]) >= 2 and one["terms"] == pytest.approx(two["terms"], rel=1e-5 if kind in ("senses", "pkd") else 1e-3)


def test_a_cache_refuses_an_example_that_it_does_not_hold(parts, tmp_path):
    cached = cached_teacher(parts.teacher, parts.data.take(np.arange(5)), tmp_path / "cache")
    cached(collate(parts.data, np.array([4]), "SST-2", 0))
    with pytest.raises(ValueError, match="does not hold example 7"):
        cached(collate(parts.data, np.array([4, 7]), "SST-2", 0))


def test_the_key_of_a_cache_changes_with_all_that_its_content_depends_on(parts):
    data, cfg = parts.data, parts.cfg
    other_ids = dataclasses.replace(data, ids=np.where(np.arange(len(data.ids)) == 7, data.ids + 1, data.ids))
    other_segment = dataclasses.replace(data, second=data.second - 1)

    def key(weights="w", senses="s", data=data, cfg=cfg, wanted=Wanted(senses=True)):
        return teacher_cache.cache_key(weights, senses, data, cfg, wanted)

    keys = [key(), key("W"), key(senses="S"), key(data=other_ids), key(data=data.take(np.arange(12))), key(data=other_segment),
            key(cfg=settings(bf16=True)), key(data=dataclasses.replace(data, uid=data.uid + 1)), key(wanted=Wanted(cls=(1,))),
            key(wanted=Wanted(hidden=(1,))), key(wanted=Wanted(hidden=(2,))), key(wanted=Wanted(projections=(1,)))]
    assert len(set(keys)) == len(keys)
    assert key(data=data.take(np.arange(13)), cfg=settings(learning_rate=1.0)) == keys[0]


def test_beyond_max_cache_gib_the_teacher_runs_live_but_what_is_read_per_example_is_always_kept(parts, tmp_path, caplog):
    live = wanting(parts, STATES)
    size = cache_bytes(live, parts.data) / 2**30
    with caplog.at_level("INFO"):
        assert cached_or_live(live, parts.data, tmp_path / "none", settings(max_cache_gib=0.99 * size), True) is live
    assert "the teacher runs at every step" in caplog.text and "--max_cache_gib" in caplog.text and not (tmp_path / "none").exists()
    assert cached_or_live(live, parts.data, tmp_path / "some", settings(max_cache_gib=1.01 * size), True) is not live
    live = wanting(parts, Wanted(cls=(1,)))
    assert cached_or_live(live, parts.data, tmp_path / "examples", settings(max_cache_gib=0.0), True) is not live
    assert (tmp_path / "some/uid.npy").exists() and (tmp_path / "examples/uid.npy").exists()


# ---- several that want it


@exact_arithmetic()
def one_rank(rank: int, port: int, folder: Path, out: Path) -> None:
    """One of two ranks that make a cache."""
    be_rank(rank, 2, port)
    workers.start()
    parts, asked = Parts(folder, "senses", settings()), []
    live = wanting(parts, ALL)
    parts.teacher.encoder.register_forward_pre_hook(lambda module, inputs: asked.extend(inputs[0].uid.tolist()))
    workers.BATCH_TOKENS["cpu"] = 70
    cached = cached_teacher(live, parts.data, out / "cache")
    found = cached(collate(parts.data, np.arange(13), "SST-2", 0))
    torch.save({"asked": asked, "logits": found.logits, "hidden": found.hidden[4]}, out / f"rank{rank}.pt")
    workers.stop()


def test_two_ranks_make_one_cache_of_which_each_computes_a_share(tiny_bert, parts, tmp_path):
    port = free_port()
    ranks = [start(one_rank, rank, port, tiny_bert, tmp_path) for rank in range(2)]
    expected = cached_teacher(wanting(parts, ALL), parts.data, tmp_path / "alone").columns
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert set(one["asked"]) | set(other["asked"]) == set(range(13)) and 3 < len(one["asked"]) < 13 > len(other["asked"]) > 3
    assert torch.equal(one["logits"], other["logits"]) and torch.equal(one["hidden"], other["hidden"])
    found = CachedTeacher(tmp_path / "cache").columns
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("cache")} == {"cache", "cache.lock"}


def test_of_two_runs_one_makes_the_cache_and_the_other_waits_for_it(parts, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(teacher_cache, "WAIT_SECONDS", 0.01)
    live, working, go_on, found = wanting(parts, STATES), threading.Event(), threading.Event(), []
    parts.teacher.encoder.register_forward_pre_hook(lambda *_: working.set() or go_on.wait(30) and None)
    first = threading.Thread(target=lambda: found.append(cached_teacher(live, parts.data, tmp_path / "cache")))
    second = threading.Thread(target=lambda: found.append(cached_teacher(Untouchable(live), parts.data, tmp_path / "cache")))
    with caplog.at_level("INFO"):
        first.start()
        assert working.wait(30)
        second.start()
        second.join(0.2)
        assert second.is_alive() and caplog.text.count("waiting for another run, which is making") == 1
        go_on.set()
        for thread in (first, second):
            thread.join(30)
    assert len(found) == 2 and all(np.array_equal(found[0].columns[name], found[1].columns[name]) for name in found[0].columns)


# ---- what goes wrong


def shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def altered(file: Path) -> None:
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


@pytest.mark.parametrize("name", ["logits.bin", "hidden.2.bin", "columns.txt", "uid.npy"])
@pytest.mark.parametrize("damage", [shortened, altered, Path.unlink])
def test_a_damaged_cache_is_said_and_made_again(parts, tmp_path, caplog, name, damage):
    live = wanting(parts, STATES)
    whole = {name: column.copy() for name, column in cached_teacher(live, parts.data, tmp_path / "cache").columns.items()}
    damage(tmp_path / "cache" / name)
    found = cached_teacher(live, parts.data, tmp_path / "cache").columns
    assert all(np.array_equal(found[column], whole[column]) for column in whole)
    assert f"{name} is missing, truncated or altered" in caplog.text and "making the cache again" in caplog.text


@exact_arithmetic()
def stopped_build(folder: Path, out: Path, ready, never) -> None:
    """Make a cache until the third batch, then wait for the kill."""
    parts, batches = Parts(folder, "senses", settings()), []
    workers.BATCH_TOKENS["cpu"] = 70

    def wait(module, inputs) -> None:
        batches.append(inputs)
        if len(batches) == 3:
            ready.set(), never.wait(60)

    parts.teacher.encoder.register_forward_pre_hook(wait)
    cached_teacher(wanting(parts, STATES), parts.data, out / "cache")


def test_of_a_killed_build_nothing_is_read(tiny_bert, parts, tmp_path):
    ready, never = PROCESSES.Event(), PROCESSES.Event()
    process = start(stopped_build, tiny_bert, tmp_path, ready, never)
    assert ready.wait(60)
    process.kill()
    process.join(60)
    assert not (tmp_path / "cache").exists() and (tmp_path / "cache.building").exists()
    assert_as_from_nothing(parts, tmp_path)


@pytest.mark.parametrize("at", range(3))
def test_a_build_killed_while_its_files_are_put_together_is_made_again(parts, tmp_path, monkeypatch, at):
    """The arrays have been moved, some of the rest is written."""
    calls, save = [], np.save

    def interrupted(*words):
        if len(calls) == at:
            raise KeyboardInterrupt
        calls.append(save(*words))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "save", interrupted)
        patch.setattr(shutil, "rmtree", lambda *words, **named: None)  # a kill cleans nothing up
        if at == 2:
            patch.setattr(teacher_cache, "write_text", lambda *_: interrupted())
        cached_teacher(wanting(parts, STATES), parts.data, tmp_path / "cache")
    assert not (tmp_path / "cache").exists() and (tmp_path / "cache.tmp/logits.bin").exists()
    assert_as_from_nothing(parts, tmp_path)


def assert_as_from_nothing(parts: Parts, out: Path) -> None:
    """The cache in out/cache, made now, is that in an empty folder, and nothing else is left."""
    found, expected = (cached_teacher(wanting(parts, STATES), parts.data, out / name).columns for name in ("cache", "fresh"))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert {path.name for path in out.iterdir()} == {"cache", "cache.lock", "fresh", "fresh.lock"}


def test_a_full_disk_is_said_before_the_teacher_runs_and_the_same_command_goes_on(parts, small_disk):
    live = wanting(parts, STATES)
    ballast = fill_disk(small_disk, leave=30_000)
    with pytest.raises(SaveError, match=r"cannot write .*cache.building/\w+\.\d\.bin of .* MiB: No space left.*Free some space"):
        cached_teacher(Untouchable(live), parts.data, small_disk / "cache")
    assert not (small_disk / "cache").exists()
    ballast.unlink()
    assert cached_teacher(live, parts.data, small_disk / "cache").columns.keys() >= {"hidden.2", "query.3"}


def test_a_folder_that_cannot_be_used_is_said_with_the_setting(parts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=f"cannot make the teacher's cache in {tmp_path / 'file'} .*--cache_dir"):
        cached_teacher(parts.teacher, parts.data, tmp_path / "file/cache")


def test_a_teacher_is_neither_saved_nor_trained(tiny_bert):
    parts = Parts(tiny_bert, "pkd", settings())
    assert not list(parts.objective.parameters()) and not parts.objective.state_dict()
    teacher = encoder(tiny_bert, parts.task, 2, True, seed=2)
    live = LiveTeacher(teacher, settings(), Wanted())
    Distillation(live, []).train()
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
