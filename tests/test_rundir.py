"""The run directory: what it holds, what it refuses, writes that are whole or not there."""

import json
import shutil
from dataclasses import replace

import pytest
from transformers import BertConfig, BertModel

from distill import rundir
from distill.__main__ import main
from distill.rundir import RunDir, SaveError, whole_folder, write_folder
from distill.scores import Scores
from models.weights import CHECKSUMS
from tests.tiny import write_bert
from tests.training import PROCESSES, free_port, holding_run, one_rank_of_the_program, settings, start

pytestmark = pytest.mark.usefixtures("processes")


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
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != CHECKSUMS}


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


def test_what_changes_no_result_may_change_while_a_run_goes_on_and_is_kept_as_it_was_where_it_is_done(finished, tiny_bert, tiny_glue, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = contents(out)
    changed = ["--max_tokens", 64, "--save_steps", 1, "--save_total_limit", 1, "--logging_steps", 7]
    assert main(words(tiny_bert, tiny_glue, out, *changed)) == 0 and contents(out) == before
    (out / "DONE").unlink()
    assert main(words(tiny_bert, tiny_glue, out, *changed)) == 0
    assert json.loads((out / "config.json").read_text())["max_tokens"] == 64
    cfg = settings(output_dir=str(tmp_path / "other"))
    RunDir(cfg.output_dir).begin(cfg)
    RunDir(cfg.output_dir).check(replace(cfg, cache_dir="elsewhere", max_cache_gib=0.0), {})


def test_an_unfinished_run_is_not_continued_on_other_data(tiny_bert, tiny_glue, tmp_path, capsys):
    out, glue = tmp_path / "run", tmp_path / "glue"
    shutil.copytree(tiny_glue, glue)
    assert main(words(tiny_bert, glue, out)) == 0
    (out / "DONE").unlink()
    with (glue / "CoLA/dev.tsv").open("a") as file:
        file.write("src\t1\t\tgood river\n")
    before = contents(out)
    assert main(words(tiny_bert, glue, out)) == 1
    assert "holds a run that read other data" in capsys.readouterr().err and contents(out) == before
    shutil.copytree(tiny_glue, glue, dirs_exist_ok=True)
    assert main(words(tiny_bert, glue, out)) == 0


@pytest.mark.parametrize("done", [True, False])
def test_a_run_on_a_model_that_was_made_anew_is_neither_complete_nor_continued(tiny_bert, tiny_glue, tmp_path, capsys, done):
    out, model = tmp_path / "run", tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    assert main(words(model, tiny_glue, out)) == 0
    if not done:
        (out / "DONE").unlink()
    shutil.rmtree(model)
    BertModel(BertConfig.from_pretrained(write_bert(model))).save_pretrained(model)
    before = contents(out)
    assert main(words(model, tiny_glue, out)) == 1
    assert "holds a run that read other model" in capsys.readouterr().err and contents(out) == before
    shutil.copytree(tiny_bert, model, dirs_exist_ok=True)
    assert main(words(model, tiny_glue, out)) == 0


def test_fresh_weights_take_a_model_of_which_nothing_but_the_shape_is_there(tiny_bert, tiny_glue, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model, ignore=shutil.ignore_patterns("*.safetensors"))
    assert main(words(model, tiny_glue, tmp_path / "run", "--random_init", True)) == 0
    assert "model" not in json.loads((tmp_path / "run/origin.json").read_text())


def test_the_name_of_a_stage_and_a_damaged_config_are_refused(finished, tiny_bert, tiny_glue, tmp_path, capsys):
    assert main(words(tiny_bert, tiny_glue, tmp_path / "stage-2")) == 1 and not (tmp_path / "stage-2").exists()
    assert "stage-2: names that begin so are those of the fits inside a run" in capsys.readouterr().err
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "config.json").write_text("")
    assert main(words(tiny_bert, tiny_glue, out)) == 1 and str(out / "config.json") in capsys.readouterr().err


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
    (tmp_path / "last.1").mkdir()
    run.finish({**scores.to_json(), "seconds": 1.0})
    assert run.is_done() and run.scores() == scores and not (tmp_path / "last.1").exists()


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
    ranks = [start(one_rank_of_the_program, rank, 2, port, [*words, "--seed", "7"], tmp_path / f"said{rank}") for rank in range(2)]
    for rank in ranks:
        rank.join(120)
        assert rank.exitcode == 1
    first, second = ([line for line in (tmp_path / f"said{rank}").read_text().splitlines() if "error" in line.lower()
                      or "Traceback" in line] for rank in range(2))
    assert len(first) == 1 and "seed: 42 -> 7" in first[0] and second == []


def test_a_run_is_given_up_when_it_is_finished_and_no_sooner(tmp_path):
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    first.begin(settings())
    with pytest.raises(ValueError, match="another process is working in"):
        second.begin(settings())
    first.finish(Scores({"dev/accuracy": 0.5}, 0.5).to_json())
    second.begin(settings())
    second.check(settings(), {})
    with pytest.raises(ValueError, match="holds a run with other settings"):
        second.check(settings(seed=9), {})


def test_a_setting_that_the_run_is_older_than_had_its_default(finished, tiny_bert, tiny_glue, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    config = json.loads((out / "config.json").read_text())
    del config["select_on"]
    (out / "config.json").write_text(json.dumps(config))
    assert main(words(tiny_bert, tiny_glue, out)) == 0
    (out / "config.json").write_text(json.dumps(config))
    assert main(words(tiny_bert, tiny_glue, out, "--select_on", "heldout")) == 1
    assert "select_on: dev -> heldout" in capsys.readouterr().err
