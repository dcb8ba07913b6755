"""What MPDistil's settings mean to each of its fits, and what is refused before the first."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill.__main__ import main
from distill.recipes import mpdistil
from tests import tiny
from tests.test_mpdistil import words


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.write_superglue(tmp_path_factory.mktemp("tasks"), rows=40)


def steps_of(run: Path) -> list[dict]:
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "terms" in line]


@pytest.mark.parametrize("width, preset, rate, teachers", [(384, "small", 1e-4, 1e-4), (768, "base", 3e-5, 2e-5), (1024, "large", 1e-5, 1e-5)])
def test_rates_fit_the_width_of_the_model(width, preset, rate, teachers, monkeypatch):
    monkeypatch.setattr(mpdistil, "load_config", lambda name: SimpleNamespace(hidden_size=width))
    assert mpdistil.default_preset({"model": "any"}) == preset
    chosen = mpdistil.Config(**mpdistil.PRESET_DEFAULTS[preset])
    assert (chosen.learning_rate, chosen.teacher_learning_rate, chosen.select_on) == (rate, teachers, "heldout")


def test_warm_up_and_steps_are_the_teachers_and_the_students_alone(data, tiny_bert, tmp_path):
    out = tmp_path / "run"
    assert main(words(data, tiny_bert, out, "--tasks", "RTE", "--warmup_steps", 10, "--max_steps", 3, "--logging_steps", 1)) == 0
    assert len(steps_of(out / "stage-student")) == 3 and len({line["learning_rate"] for line in steps_of(out / "stage-student")}) == 3
    assert len(steps_of(out / "stage-meta")) == 2, "passes over four examples"
    for run in (out, out / "stage-meta", out / "stage-heads"):
        assert len({line["learning_rate"] for line in steps_of(run)}) == 1


def test_every_round_of_the_interleaved_schedule_has_an_order_of_its_own(data, tiny_bert, tmp_path):
    assert main(words(data, tiny_bert, tmp_path, "--tasks", "", "--policy", "main", "--schedule", "interleaved", "--num_train_epochs", 2, "--meta_epochs", 10,
                      "--logging_steps", 1)) == 0
    rounds = [[line["tokens"] for line in steps_of(tmp_path / f"stage-student-{number:02d}")] for number in (0, 1)]
    assert rounds[0] != rounds[1] and sum(rounds[0]) == sum(rounds[1])


def test_stages_and_runs_are_of_one_main_task(data, tiny_bert, tmp_path, capsys):
    more = ("--tasks", "", "--policy", "main", "--stages_dir", tmp_path / "stages")
    assert main(words(data, tiny_bert, tmp_path / "copa", *more)) == 0
    assert main(words(data, tiny_bert, tmp_path / "rte", *more, task="RTE")) == 1 and "read other task" in capsys.readouterr().err
    assert main(words(data, tiny_bert, tmp_path / "copa", *more, task="RTE")) == 1 and "read other task" in capsys.readouterr().err


@pytest.mark.parametrize("more, said", [
    (("--student", "some/model"), "unknown layers 'some/model'"), (("--student", "truncate:9"), "the model has 4 layers, keep 1 to 4"),
    (("--student", "truncate:1"), "a student of one layer has none below its last"), (("--layer_map", "typo"), "typo"),
    (("--schedule", "interleaved", "--max_steps", 3), "leave --max_steps out"),
    (("--num_train_epochs", 0, "--max_steps", 3), "the other tasks' heads are trained for so many passes")])
def test_what_would_end_a_later_fit_is_refused_before_the_first(more, said, data, tiny_bert, tmp_path, capsys):
    assert main(words(data, tiny_bert, tmp_path / "run", "--tasks", "RTE", *more)) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_student_of_one_layer_learns_without_states_and_a_setting_without_effect_is_said(data, tiny_bert, tmp_path, caplog):
    assert main(words(data, tiny_bert, tmp_path, "--tasks", "", "--policy", "main", "--student", "truncate:1", "--beta", 0, "--use_comp_loss", True)) == 0
    assert "another meta-teacher, and the same student: the policy is not rewarded" in caplog.text
    assert set(steps_of(tmp_path / "stage-student")[0]["terms"]) == {"ce", "kl"}


def test_the_training_settings_reach_every_fit():
    cfg = mpdistil.Config(seed=7, max_length=9, weight_decay=0.5, select_on="heldout", pooling="cls", head_dropout=0.2, data_dir="here")
    stage = mpdistil.stage_config(cfg, learning_rate=0.25)
    for name in ("seed", "max_length", "weight_decay", "select_on", "pooling", "head_dropout", "data_dir", "model"):
        assert getattr(stage, name) == getattr(cfg, name)
    assert stage.learning_rate == 0.25
