"""One command over several seeds: each run is the one that its seed gives alone; nothing is done twice or left out."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from data_utils.batching import TrainStream
from distill import seeds
from distill.__main__ import main
from distill.rundir import RunDir
from distill.scores import Scores
from models.weights import fingerprint
from tests.training import assert_same, exact_arithmetic, free_port, left_behind, one_rank_of_the_program, start

pytestmark = pytest.mark.usefixtures("exact", "processes")


def words(model, glue, out, *more) -> list[str]:
    return [str(word) for word in ("train", "finetune", "STS-B", "--model", model, "--data_dir", glue, "--output_dir", out, "--bf16",
                                   False, "--max_steps", 3, "--train_batch_size", 16, "--logging_steps", 1, *more)]


@pytest.fixture(scope="module")
def trained(tiny_bert, tiny_glue, tmp_path_factory) -> Path:
    """A folder of runs over seeds 1 and 4."""
    out = tmp_path_factory.mktemp("trained") / "out"
    with exact_arithmetic():
        assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1, 4)) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def refused(capsys, *given) -> str:
    """The one line with which these words are refused."""
    capsys.readouterr()
    assert main([str(word) for word in given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


# ---- what is trained


@pytest.mark.parametrize("seed", [1, 4])
def test_each_run_is_bit_for_bit_the_one_that_its_seed_gives_alone(seed, trained, tiny_bert, tiny_glue, tmp_path):
    assert main(words(tiny_bert, tiny_glue, tmp_path / "alone", "--seed", seed)) == 0
    assert_same(left_behind(trained / f"seed-{seed}"), left_behind(tmp_path / "alone"))
    assert {path.name for path in (trained / f"seed-{seed}").iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}
    one, other = read(trained / f"seed-{seed}/config.json"), read(tmp_path / "alone/config.json")
    assert one.pop("output_dir") == str(trained / f"seed-{seed}") and other.pop("output_dir")
    assert one == other and one["seed"] == seed


def test_the_scores_over_seeds_are_those_of_the_runs(trained):
    assert {path.name for path in trained.iterdir()} == {"seed-1", "seed-4", "scores.json", "DONE"}
    found = read(trained / "scores.json")
    first, second = (read(trained / f"seed-{seed}/scores.json")["values"] for seed in (1, 4))
    assert found["selected_on"] == "dev" and list(found["values"]) == list(first) == ["dev/pearson", "dev/spearman"]
    for name, value in found["values"].items():
        assert value["seeds"] == {"1": first[name], "4": second[name]} and value["n"] == 2 and first[name] != second[name]
        assert value["mean"] == pytest.approx((first[name] + second[name]) / 2)
        assert value["stderr"] == pytest.approx(abs(first[name] - second[name]) / 2)  # sqrt(((a-b)^2 / 2) / 2)


def test_one_seed_has_no_standard_error():
    found = seeds.over_seeds({7: Scores({"heldout/f1": 0.5, "dev/f1": 0.25}, 0.5, selected_on="heldout")})
    assert found == {"values": {"heldout/f1": {"mean": 0.5, "stderr": None, "n": 1, "seeds": {"7": 0.5}},
                                "dev/f1": {"mean": 0.25, "stderr": None, "n": 1, "seeds": {"7": 0.25}}}, "selected_on": "heldout"}


def test_the_same_command_again_and_then_one_more_seed_leave_finished_runs_alone(trained, tiny_bert, tiny_glue, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1)) == 0
    before = contents(out)
    assert "one seed, selected on dev: dev/pearson" in capsys.readouterr().out.splitlines()[-1]
    assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1)) == 0
    assert contents(out) == before
    capsys.readouterr()
    assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1, 4)) == 0
    after = contents(out)
    assert {name: after[name] for name in before if name.startswith("seed-1/")} == \
        {name: content for name, content in before.items() if name.startswith("seed-1/")}
    assert after["scores.json"] == (trained / "scores.json").read_bytes() and "DONE" in after
    *runs, last = capsys.readouterr().out.splitlines()
    values = read(out / "scores.json")["values"]
    expected = ", ".join(f"{name} {100 * value['mean']:.1f} +- {100 * value['stderr']:.1f}" for name, value in values.items())
    assert len(runs) == 2 and f"over 2 seeds, selected on dev: {expected}" in last


def test_the_seed_stands_for_itself_in_any_setting(trained, tiny_glue, tmp_path):
    """Each student learns from the teacher of its seed."""
    given = ["train", "logit_kd", "STS-B", "--teacher", trained / "seed-{seed}/best", f"--cache_dir={tmp_path}/cache-{{seed}}",
             "--data_dir", tiny_glue, "--output_dir", tmp_path / "out", "--max_steps", 1, "--seeds", 4, 1]
    assert main([str(word) for word in given]) == 0
    for seed in (1, 4):
        run = tmp_path / "out" / f"seed-{seed}"
        assert read(run / "origin.json")["teacher"] == fingerprint(trained / f"seed-{seed}/best")
        assert read(run / "config.json")["teacher"] == str(trained / f"seed-{seed}/best")
        assert list((tmp_path / f"cache-{seed}").rglob("logits.bin")) and not (run / "cache").exists()
    assert not list(tmp_path.glob("*{seed}*"))


# ---- interruptions and ranks


def test_an_interrupted_command_goes_on_where_it_was(trained, tiny_bert, tiny_glue, tmp_path, monkeypatch, capsys):
    out, batch = tmp_path / "out", TrainStream.next

    def stop_the_second_run(stream):
        if stream.seed == 4 and stream.position == 1:
            signal.raise_signal(signal.SIGINT)
        return batch(stream)

    assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1)) == 0
    monkeypatch.setattr(TrainStream, "next", stop_the_second_run)
    assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1, 4)) == 130
    assert f"after step 2 of 3; saved in {out / 'seed-4/last'}: the same command goes on" in capsys.readouterr().err
    assert not (out / "DONE").exists(), "it said that the scores are over all seeds"
    monkeypatch.undo()
    assert main(words(tiny_bert, tiny_glue, out, "--seeds", 1, 4)) == 0
    for seed in (1, 4):
        assert_same(left_behind(out / f"seed-{seed}"), left_behind(trained / f"seed-{seed}"))
    assert (out / "scores.json").read_bytes() == (trained / "scores.json").read_bytes() and (out / "DONE").exists()


def test_done_is_written_last(trained, tmp_path, monkeypatch):
    out = shutil.copytree(trained, tmp_path / "out")
    (out / "DONE").unlink()

    def full_disk(path, content):
        raise OSError("no space left")

    monkeypatch.setattr(seeds, "write_json", full_disk)
    with pytest.raises(OSError, match="no space left"):
        seeds.SeedFolder(out, [1, 4]).finish()
    assert not (out / "DONE").exists()
    monkeypatch.undo()
    seeds.SeedFolder(out, [1, 4]).finish()
    assert contents(out) == contents(trained)


def test_two_ranks_train_the_seeds_one_after_the_other(tiny_bert, tiny_glue, tmp_path):
    command, port = words(tiny_bert, tiny_glue, tmp_path / "out", "--seeds", 2, 3), free_port()
    ranks = [start(one_rank_of_the_program, rank, 2, port, command, tmp_path / f"said{rank}") for rank in range(2)]
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0], [(tmp_path / f"said{rank}").read_text() for rank in range(2)]
    assert (tmp_path / "out/DONE").exists() and read(tmp_path / "out/scores.json")["values"]["dev/pearson"]["n"] == 2
    assert [read(tmp_path / f"out/seed-{seed}/origin.json")["ranks"] for seed in (2, 3)] == [2, 2]


# ---- mistakes


@pytest.mark.parametrize("given, said", [
    (["--seeds"], "--seeds: expected whole numbers from 0 on"), (["--seeds", "1", "x"], "'x' is not one"),
    (["--seeds", "1", "-2"], "'-2' is not one"), (["--seeds", "1,2"], "'1,2' is not one"), (["--seeds", "3", "1", "3"], "a seed is given twice"),
    (["--seeds", "1", "2", "--seed", "3"], "--seed and --seeds together"), (["--seeds", "1", "--seed=3"], "--seed and --seeds together"),
    (["--seeds", "1", "--output_dir", "runs/{seed}"], "omit {seed}"),
    (["--seeds", "1", "--model", "none/seed-{seed}"], "none/seed-1")])
def test_mistakes_are_refused_in_one_line_before_anything_is_written(given, said, tiny_bert, tiny_glue, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said in refused(capsys, *words(tiny_bert, tiny_glue, tmp_path / "out", *given))
    assert not list(tmp_path.iterdir())


def test_a_missing_teacher_of_a_later_seed_is_found_before_the_first_run(trained, tiny_glue, tmp_path, capsys):
    line = refused(capsys, "train", "logit_kd", "STS-B", "--teacher", trained / "seed-{seed}/best", "--data_dir", tiny_glue,
                   "--output_dir", tmp_path / "out", "--seeds", 1, 5)
    assert "seed-5/best" in line and not (tmp_path / "out").exists()


def test_single_runs_and_runs_over_seeds_do_not_share_a_folder(trained, tiny_bert, tiny_glue, tmp_path, capsys):
    assert "holds runs over seeds (seed-1, seed-4): name them with --seeds 1 4" in refused(
        capsys, *words(tiny_bert, tiny_glue, trained))
    assert not (trained / "config.json").exists()
    assert main(words(tiny_bert, tiny_glue, tmp_path, "--seed", 1)) == 0
    line = refused(capsys, *words(tiny_bert, tiny_glue, tmp_path, "--seeds", 1, 2))
    assert "holds a single run" in line and f"{tmp_path}/seed-N" in line and not (tmp_path / "seed-1").exists()


def test_a_seed_that_is_there_is_not_left_out_and_other_settings_are_refused_before_a_new_seed_is_trained(
        trained, tiny_bert, tiny_glue, capsys):
    before = contents(trained)
    assert "also holds seed-4" in (line := refused(capsys, *words(tiny_bert, tiny_glue, trained, "--seeds", 1))) and "--seeds 1 4" in line
    line = refused(capsys, *words(tiny_bert, tiny_glue, trained, "--seeds", 9, 1, 4, "--weight_decay", 0.5))
    assert "weight_decay: 0.01 -> 0.5" in line and not (trained / "seed-9").exists()
    assert contents(trained) == before


def test_a_run_that_was_trained_alone_counts_where_it_lies_in_its_place(trained, tiny_bert, tiny_glue, tmp_path):
    """So that seeds can be trained side by side, and be brought together by one command."""
    for seed in (1, 4):
        assert main(words(tiny_bert, tiny_glue, tmp_path / f"seed-{seed}", "--seed", seed)) == 0
    before = {seed: contents(tmp_path / f"seed-{seed}") for seed in (1, 4)}
    assert main(words(tiny_bert, tiny_glue, tmp_path, "--seeds", 1, 4)) == 0
    assert {seed: contents(tmp_path / f"seed-{seed}") for seed in (1, 4)} == before
    assert (tmp_path / "scores.json").read_bytes() == (trained / "scores.json").read_bytes()
    assert RunDir(tmp_path / "seed-1").scores().selected_on == "dev"
