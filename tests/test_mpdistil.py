"""MPDistil: its four fits, its ablations, the preset of the published code, and exact resume in the middle of the curriculum."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils.batching import InTurn, TrainStream
from data_utils.draws import split_held_out, split_quiz, tenth_of_each
from data_utils.tasks import get_task
from distill import task_fit
from distill.__main__ import main
from distill.curriculum import Curriculum
from distill.evaluate import encode_for, encode_split, predict
from distill.recipes.mpdistil import Config, fits
from distill.report import plots, read_records
from distill.report.folder import find_runs
from distill.report.reproduce import command, score_of
from distill.report.summary import Summary
from distill.report.tables import tables_of
from distill.splits import quiz_of
from distill.verbs.train import _task_second
from models.checkpoint import load_encoder
from tests import tiny
from tests.training import assert_same, exact_arithmetic, free_port, left_behind, one_rank_of_the_program, only, start

OTHERS = "RTE,STS-B"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tiny.write_superglue(tmp_path_factory.mktemp("tasks"), rows=40)
    tiny.write_glue(folder)
    return folder


def words(data: Path, model: Path, out: Path, *more, task: str = "COPA") -> list[str]:
    given = {"--model": model, "--data_dir": data, "--output_dir": out, "--tasks": OTHERS, "--bf16": False, "--train_batch_size": 8,
             "--num_train_epochs": 1, "--teacher_epochs": 2, "--teacher_learning_rate": 1e-3, "--meta_epochs": 2, "--num_episodes": 4,
             "--episode_batch_size": 2, "--select_on": "dev", "--logging_steps": 2, "--temperature": 1}
    return [str(word) for word in ("train", "mpdistil", task, *(part for pair in given.items() for part in pair), *more)]


def policy_lines(run: Path) -> list[dict]:
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "policy" in line]


def last_written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(data, tiny_bert, tmp_path_factory) -> Path:
    """A whole run with all defaults of method; COPA's quiz has 4 examples, an episode 2 actions."""
    out = tmp_path_factory.mktemp("mpdistil") / "run"
    command = words(data, tiny_bert, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["distill", *command])  # which the run writes down
        assert main(command) == 0
    return out


# ---- the quiz


def test_the_quiz_is_a_tenth_of_every_class_and_depends_on_rows_alone():
    target = np.array([0] * 70 + [1] * 25 + [2] * 3)
    uid = np.arange(98)
    asked = tenth_of_each(uid, target)
    assert [int(asked[target == kind].sum()) for kind in range(3)] == [7, 2, 1]
    order = np.random.default_rng(0).permutation(98)
    assert np.array_equal(tenth_of_each(uid[order], target[order]), asked[order])
    assert np.flatnonzero(asked).tolist() == [1, 6, 10, 11, 45, 54, 61, 86, 88, 97], "published: the same for all time"


def test_the_quiz_never_parts_a_group(data, tiny_bert, superglue_teachers):
    train = encode_split(load_encoder(superglue_teachers["MultiRC"]), get_task("MultiRC"), "train", str(data))
    rest, asked = split_quiz(train)
    assert len(asked) == 12 and not set(rest.group) & set(asked.group) and len(rest) + len(asked) == len(train)


def test_the_verb_prints_the_rows_that_training_asks_about(data, tiny_bert, made, capsys):
    whole = encode_split(load_encoder(made / "best"), get_task("COPA"), "train", str(data))
    for select_on, train in (("dev", whole), ("heldout", split_held_out(whole)[0])):
        assert main(["data", "quiz", "COPA", "--data_dir", str(data), "--select_on", select_on]) == 0
        assert list(map(int, capsys.readouterr().out.split())) == split_quiz(train)[1].uid.tolist()


def test_of_another_tasks_quiz_a_part_may_do(data, made):
    encoder, cfg = load_encoder(made / "best"), Config(data_dir=str(data))
    asked = split_quiz(encode_for(encoder, get_task("STS-B"), "train", str(data)))[1]
    whole, part = (quiz_of(encoder, get_task("STS-B"), cfg, most) for most in (0, 3))
    assert len(part) == 3 < len(whole) == len(quiz_of(encoder, get_task("STS-B"), cfg, 1000))
    assert np.array_equal(whole.uid, asked.uid) and np.array_equal(whole.ids, asked.ids) and np.array_equal(whole.target, asked.target)
    rows = np.flatnonzero(np.isin(whole.uid, part.uid))
    assert np.array_equal(part.ids, whole.take(rows).ids) and np.array_equal(part.uid, whole.uid[rows])


# ---- whole runs


def test_the_four_fits_leave_their_models_scores_and_the_policys_diary(made, data):
    assert {path.name for path in made.glob("stage-*")} == {f"stage-{name}" for name in ("teacher", "features", "student", "meta", "heads")}
    assert all((stage / "DONE").exists() for stage in made.glob("stage-*"))
    teacher, meta, student = (load_encoder(made / path) for path in ("stage-teacher/best", "stage-meta/best", "best"))
    assert (teacher.depth, meta.depth, student.depth) == (4, 4, 2) and student.info.choices == 2
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, meta.state_dict()[name]) == (not name.startswith("head.out")), f"{name}: the last layer alone learns"
    found = json.loads((made / "scores.json").read_text())
    assert found["selected_on"] == "dev" and predict(student, encode_split(student, get_task("COPA"), "dev", str(data))).shape == (8, 2)
    diary = policy_lines(made)
    assert [line["episode"] for line in diary] == [1, 2, 3, 4] and all(sum(line["actions"].values()) == 2 for line in diary)
    assert all(line["policy"].keys() == {"COPA", "RTE", "STS-B"} and sum(line["policy"].values()) == pytest.approx(1) for line in diary)
    terms = [line["terms"].keys() for line in map(json.loads, (made / "log.jsonl").read_text().splitlines()) if "terms" in line]
    assert terms[0] == {"label", "doubt"}
    studied = next(line for line in map(json.loads, (made / "stage-student/log.jsonl").read_text().splitlines()) if "terms" in line)
    assert studied["terms"].keys() == {"ce", "kl", "cls"} and studied["weights"] == pytest.approx({"ce": 0.5, "kl": 0.5, "cls": 100 / 32})
    begun = next(line for line in map(json.loads, (made / "log.jsonl").read_text().splitlines()) if "scores" in line)
    assert begun == {"step": 0, "scores": json.loads((made / "stage-student/scores.json").read_text())["values"]}, "not scored again"


@pytest.mark.parametrize("kills", [[3], [1, 2, 1], [5, 1]])
def test_a_run_killed_anywhere_in_the_curriculum_goes_on_bit_for_bit(kills, made, data, tiny_bert, tmp_path, monkeypatch):
    """Each number: the steps of the curriculum that a sitting gets; checkpoints after every second."""
    command = words(data, tiny_bert, tmp_path / "run", "--save_steps", 1)
    for left in kills:
        with monkeypatch.context() as patch:
            only(Curriculum, left, patch)
            assert main(command) == 130
    assert main(command) == 0
    undisturbed = tmp_path / "undisturbed"
    assert main(words(data, tiny_bert, undisturbed, "--save_steps", 1)) == 0
    assert_same(left_behind(tmp_path / "run"), left_behind(undisturbed))
    assert policy_lines(tmp_path / "run") == policy_lines(undisturbed) == policy_lines(made)


@pytest.mark.parametrize("stream, left, done", [(TrainStream, 13, "teacher"), (InTurn, 1, "meta")])
def test_a_run_killed_in_an_earlier_fit_goes_on_from_there(stream, left, done, made, data, tiny_bert, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        only(stream, left, patch)
        assert main(words(data, tiny_bert, tmp_path)) == 130
    assert (tmp_path / f"stage-{done}/DONE").exists() and not (tmp_path / "DONE").exists()
    assert main(words(data, tiny_bert, tmp_path)) == 0
    assert_same(left_behind(tmp_path), left_behind(made))


@pytest.mark.usefixtures("processes")
def test_two_ranks_study_as_one_process_does(data, tmp_path):
    """All four fits, without dropout, whose draws are each rank's own; micro-batches of unequal token counts."""
    model = tiny.write_bert(tmp_path / "model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    given = ("--head_dropout", 0, "--reward_function", "real", "--episode_batch_size", 3, "--max_tokens", 60, "--tasks", "COPA,STS-B")
    port = free_port()
    ranks = [start(one_rank_of_the_program, rank, 2, port, words(data, model, tmp_path / "two", *given, task="RTE"), tmp_path / f"said{rank}")
             for rank in range(2)]
    with exact_arithmetic():
        assert main(words(data, model, tmp_path / "one", *given, task="RTE")) == 0
    for rank, process in enumerate(ranks):
        process.join(120)
        assert process.exitcode == 0, (tmp_path / f"said{rank}").read_text()
    one, two = (load_encoder(tmp_path / name / "best").state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=lambda said: f"{name}: {said}")
    for alone, together in zip(policy_lines(tmp_path / "one"), policy_lines(tmp_path / "two"), strict=True):
        assert alone["actions"] == together["actions"] and alone["reward"] == pytest.approx(together["reward"], abs=1e-4)


def test_variants_share_the_fits_that_they_have_in_common(made, data, tiny_bert, tmp_path, monkeypatch, capsys):
    shared = ("--stages_dir", tmp_path / "stages")
    assert main(words(data, tiny_bert, tmp_path / "one", *shared)) == 0
    assert_same(left_behind(tmp_path / "one"), left_behind(made))
    fitted, shared_files = [], last_written(tmp_path / "stages")
    for module in (fits, task_fit):
        monkeypatch.setattr(module, "fit", lambda *given, fit=fits.fit, **more: fitted.append(given[4].path.name) or fit(*given, **more))
    with monkeypatch.context() as patch:
        patch.setattr(fits, "features", None)  # the teacher has read all
        assert main(words(data, tiny_bert, tmp_path / "two", *shared, "--policy", "random", "--compete", False)) == 0
    assert fitted == ["two"] and not list((tmp_path / "two").glob("stage-*"))
    assert last_written(tmp_path / "stages") == shared_files, "finished stages are read, never written to"
    assert main(words(data, tiny_bert, tmp_path / "three", *shared, "--use_comp_loss", True)) == 0
    assert fitted == ["two", "stage-meta-competing", "three"]
    assert main(words(data, tiny_bert, tmp_path / "four", *shared, "--tasks", "RTE")) == 1
    assert "stage-heads holds a run with other settings (tasks: RTE,STS-B -> RTE)" in capsys.readouterr().err
    assert main(words(data, tiny_bert, tmp_path / "five", *shared, "--teacher_epochs", 5)) == 1
    assert "stage-teacher holds a run with other settings (teacher_epochs: 2.0 -> 5.0)" in capsys.readouterr().err
    features = tmp_path / "stages/stage-features/features/features.npz"
    features.write_bytes(features.read_bytes()[:-1])
    assert main(words(data, tiny_bert, tmp_path / "six", *shared)) == 1
    assert f"{features} is missing, truncated or altered" in capsys.readouterr().err


@pytest.mark.parametrize("more, expected", [
    (("--policy", "main"), {"COPA"}), (("--policy", "random"), {"COPA", "RTE", "STS-B"}), (("--compete", False), None),
    (("--use_comp_loss", True, "--reward_function", "real"), None), (("--tasks", "", "--policy", "main"), {"COPA"})])
def test_variants_and_ablations_are_a_flag_each(more, expected, data, tiny_bert, tmp_path):
    assert main(words(data, tiny_bert, tmp_path, "--num_episodes", 8, *more)) == 0
    drawn = {task for line in policy_lines(tmp_path) for task, count in line["actions"].items() if count}
    assert expected is None or drawn == expected
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert ("doubt" in next(line["terms"] for line in log if "terms" in line)) == ("--compete" not in more)


def test_the_preset_paper_keeps_the_published_schedule_and_shares_what_competing_ones_do_not_change(data, tiny_bert, tmp_path):
    paper = ("--preset", "paper", "--num_train_epochs", 2, "--temperature", 5)
    assert main(words(data, tiny_bert, tmp_path, *paper)) == 0
    assert main(words(data, tiny_bert, tmp_path / "other", *paper, "--use_comp_loss", True, "--stages_dir", tmp_path / "shared")) == 0
    assert main(words(data, tiny_bert, tmp_path / "another", *paper, "--stages_dir", tmp_path / "shared")) == 0
    assert {f"stage-{kind}{of}" for kind in ("student", "meta") for of in ("-00", "-competing-00")} < {path.name for path in (tmp_path / "shared").iterdir()}
    stages = sorted(path.name for path in tmp_path.glob("stage-*"))
    assert stages == ["stage-features", "stage-heads", "stage-meta-00", "stage-meta-01", "stage-student-00", "stage-student-01", "stage-teacher"]
    cfg = json.loads((tmp_path / "config.json").read_text())
    assert (cfg["soft_loss"], cfg["layer_map"], cfg["schedule"], cfg["step_every"], cfg["pooling"]) == ("mse_prob", "first", "interleaved", "episode", "cls")
    studied = next(line for line in map(json.loads, (tmp_path / "stage-student-01/log.jsonl").read_text().splitlines()) if "terms" in line)
    assert studied["terms"].keys() == {"ce", "mse_prob", "cls"}
    last = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][-1]
    assert last["step"] == 4 == len(policy_lines(tmp_path)), "a step an episode"


def test_a_regression_task_is_studied_too(data, tiny_bert, tmp_path):
    assert main(words(data, tiny_bert, tmp_path, "--tasks", "COPA", task="STS-B")) == 0
    assert set(json.loads((tmp_path / "scores.json").read_text())["values"]) == {"dev/pearson", "dev/spearman"}


def test_a_stage_is_recorded_as_one_and_made_again_from_its_record(made, tmp_path):
    file = tmp_path / "records.jsonl"
    for row, run in (("teacher", made / "stage-teacher"), ("mpdistil", made)):
        assert main(["report", "--records", str(file), "add", "table", row, str(run)]) == 0
    records = [record for record in read_records(file) if record.table == "table"]
    assert [record.stage for record in records] == ["stage-teacher", ""]
    assert records[0].command.startswith("python -m distill train mpdistil COPA ") and records[0].recipe == "mpdistil"
    typed = replace(records[0], command="python -m distill train mpdistil COPA --stages_dir a/b --output_dir c/d")
    assert command(typed, dict.fromkeys(("data_dir", "model", "teacher", "senses"), ""), tmp_path / "again") == [
        "train", "mpdistil", "COPA", "--output_dir", str(tmp_path / "again")]
    assert score_of(replace(records[0], value=0.0), made) == records[0].value


def test_what_a_learned_policy_came_to_draw_is_recorded_in_a_table_of_its_own(made, tmp_path):
    shutil.copytree(made, tmp_path / "evenly")
    config = json.loads((made / "config.json").read_text())
    (tmp_path / "evenly/config.json").write_text(json.dumps({**config, "policy": "random"}))
    for row, run in (("mpdistil", made), ("teacher", made / "stage-teacher"), ("evenly", tmp_path / "evenly")):
        assert main(["report", "--records", str(tmp_path / "records.jsonl"), "add", "table", row, str(run)]) == 0
    records = read_records(tmp_path / "records.jsonl")
    (found,) = (record for record in records if record.table == "table_policies")
    drawn = sum(line["policy"]["COPA"] for line in policy_lines(made)) / 4
    assert (found.row, found.split, found.metric, found.value) == ("mpdistil", "policy", "main task", pytest.approx(drawn))
    assert tables_of(records)["table_policies"]().splitlines() == ["| | COPA policy, main task |", "|---|---|", f"| mpdistil | {100 * drawn:.1f} (1) |"]
    assert score_of(found, made) == found.value


def test_a_curriculum_that_does_not_better_its_student_is_said(made, data, tiny_bert, tmp_path, caplog):
    still = ("--episode_learning_rate", "1e-30", "--num_episodes", 1, "--stages_dir", made)
    assert main(words(data, tiny_bert, tmp_path, *still)) == 0
    before = json.loads((made / "stage-student/scores.json").read_text())["selection"]
    said = f"the curriculum has not bettered its student on dev ({100 * before:.1f} before it, {100 * before:.1f} at best in it)"
    assert f"{said}: the student before it is {made}/stage-student/best" in caplog.text


def test_the_policy_is_plotted(made, tmp_path):
    (found,), _ = find_runs(made)
    figure = plots.curves(Summary([found]).of(found.row))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[-3:] == ["policy, mean over seeds", "drawn, mean over seeds and 10 episodes", "rewards of an episode"]
    diary = policy_lines(made)
    for axis in figure.axes[-3:-1]:
        assert [line.get_label() for line in axis.lines] == ["COPA", "RTE", "STS-B"]
        assert axis.lines[0].get_xydata()[:, 0].tolist() == [1, 2, 3, 4]
    assert figure.axes[-3].lines[1].get_xydata()[:, 1].tolist() == pytest.approx([line["policy"]["RTE"] for line in diary])
    shares = [line["actions"]["RTE"] / sum(line["actions"].values()) for line in diary]
    assert figure.axes[-2].lines[1].get_xydata()[:, 1].tolist() == pytest.approx([np.mean(shares[:end]) for end in range(1, 5)])


@pytest.mark.parametrize("more, message", [
    (("--tasks", "COPA"), "--tasks COPA: expected the other tasks, each once"), (("--tasks", "RTE,rte"), "expected the other tasks, each once"),
    (("--tasks", "nothing"), "unknown task 'nothing'"), (("--tasks", "text"), "cannot study text, it has no train split"),
    (("--tasks", "SQuAD"), "cannot study SQuAD, its answers are parts of a text"),
    (("--tasks", ""), "no task but COPA to choose; name others"),
    (("--schedule", "interleaved", "--num_train_epochs", 2.5), "--num_train_epochs 2.5: expected whole epochs"), (("--fsdp", True, "--trim_vocabulary", False), "--fsdp: MPDistil's fits"),
    (("--episode_batch_size", 8), "the quiz of COPA has 4 examples here, so that an episode is one action"),
    (("--episode_steps", 1), "--episode_steps 1: the first action of an episode is drawn evenly"),
    (("--policy", "greedy"), "--policy greedy: expected one of learned, random, main"), (("--tasks", "WiC"), "WiC")])
def test_mistakes_are_said_in_one_line(more, message, data, tiny_bert, tmp_path, capsys):
    assert main(words(data, tiny_bert, tmp_path / "run", *more)) == 1
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("given", [["mpdistil", "nothing"], ["mpdistil", "--task", "nothing"], ["--task=nothing", "mpdistil", "--seed", "3"]])
def test_the_task_may_be_named_as_the_published_program_names_it(given, capsys):
    assert main(["train", *given]) == 1
    assert "unknown task 'nothing'" in capsys.readouterr().err


def test_words_that_name_no_task_by_a_setting_are_read_as_they_are():
    assert _task_second(["mpdistil", "COPA", "--output_dir=-x"]) == ["mpdistil", "COPA", "--output_dir=-x"]
