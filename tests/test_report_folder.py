"""`report folder`: which runs are found, what is left out and why, and what the table says."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_utils.metrics import matthews
from distill.__main__ import main
from distill.report.folder import find_runs, runs_in
from distill.report.paired import paired_difference
from distill.report.summary import Summary
from tests.finished import answers, edit, write_run


@pytest.fixture
def study(tmp_path) -> Path:
    """Three systems on two tasks, three seeds each: weak, strong and teacher."""
    for row, wrong, width in (("weak", 0.3, 10), ("strong", 0.2, 10), ("teacher", 0.1, 40)):
        for task in ("CoLA", "MRPC"):
            for seed in (1, 2, 3):
                write_run(tmp_path / "runs" / task / row / f"seed-{seed}", task, seed, wrong, width=width)
    return tmp_path / "runs"


def cells(lines: list[str], row: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


# ---- which runs


@pytest.mark.parametrize("place", ["CoLA/pkd/seed-3", "pkd/cola/seed-3", "seed-3/CoLA/pkd", "pkd/seed-3", "pkd"])
def test_a_row_is_the_path_without_seed_and_task(place, tmp_path):
    write_run(tmp_path / place, seed=3)
    (run,), notes = find_runs(tmp_path)
    assert (run.row, run.task.name, run.seed, notes) == ("pkd", "CoLA", 3, [])


def test_a_run_or_its_seeds_alone_are_named_after_the_folder(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "CoLA" / "pkd" / f"seed-{seed}", seed=seed)
    assert {run.row for run in find_runs(tmp_path / "CoLA" / "pkd")[0]} == {"pkd"}
    assert [run.row for run in find_runs(tmp_path / "CoLA" / "pkd" / "seed-2")[0]] == ["seed-2"]


def test_stages_inside_of_a_run_and_dictionaries_are_no_runs(tmp_path):
    write_run(tmp_path / "gradual")
    write_run(tmp_path / "gradual" / "stage-6-4")
    (tmp_path / "senses").mkdir()
    for name in ("config.json", "origin.json"):
        (tmp_path / "senses" / name).write_text('{"num_senses": 4}')
    write_run(tmp_path / "shared" / "stage-heads")
    runs, notes = find_runs(tmp_path)
    assert [run.row for run in runs] == ["gradual"] and not notes, "stages are parts of runs, shared ones too"


def test_runs_of_a_folder_of_seeds_come_in_their_order(tmp_path):
    for seed in (10, 2):
        write_run(tmp_path / "pkd" / f"seed-{seed}", seed=seed)
    assert [run.name for run in runs_in(tmp_path / "pkd")] == ["seed-2", "seed-10"]
    assert runs_in(tmp_path / "pkd" / "seed-2") == [tmp_path / "pkd" / "seed-2"]
    with pytest.raises(ValueError, match="neither a run directory nor a folder of seeds"):
        runs_in(tmp_path)


def test_what_is_left_out_is_said_with_its_reason_and_the_rest_is_reported(study, report):
    (study / "CoLA/weak/seed-1/DONE").unlink()
    edit(study / "CoLA/weak/seed-2/best/task.json", version=0)
    (study / "CoLA/strong/seed-1/scores.json").write_text('{"values": {"dev/mat')
    (study / "CoLA/strong/seed-2/scores.json").write_text('{"selection": 1}')
    edit(study / "CoLA/strong/seed-3/scores.json", values={"dev/matthews": float("nan")})
    (study / "MRPC/weak/seed-1/config.json").write_text("")
    edit(study / "MRPC/weak/seed-2/best/task.json", task="MRCP")
    shutil.rmtree(study / "MRPC/weak/seed-3/best")
    status, lines, said = report("folder", study)
    reasons = {line.split(": ")[0].removeprefix(f"left out {study}/"): line for line in said.splitlines() if line.startswith("left out")}
    assert status == 0 and len(reasons) == 8
    for place, reason in {"CoLA/weak/seed-1": "unfinished", "CoLA/weak/seed-2": "version 0 of CoLA, which is at version 1",
                          "CoLA/strong/seed-1": "scores.json is damaged", "CoLA/strong/seed-2": "scores.json is damaged",
                          "CoLA/strong/seed-3": "a value is not a number", "MRPC/weak/seed-1": "config.json is damaged",
                          "MRPC/weak/seed-2": "unknown task 'MRCP'", "MRPC/weak/seed-3": "does not say what it is"}.items():
        assert reason in reasons[place], reasons[place]
    assert cells(lines, "weak")[0].endswith("(1)") and cells(lines, "weak")[1] == "-"
    assert cells(lines, "strong")[0] == "-" and cells(lines, "teacher")[0].endswith("(3)")


def test_two_runs_with_one_name_and_seed_are_not_averaged(tmp_path):
    write_run(tmp_path / "CoLA/pkd/seed-1"), write_run(tmp_path / "pkd/CoLA/seed-1")
    runs, (note,) = find_runs(tmp_path)
    assert len(runs) == 1 and "has row, task and seed of" in note


def test_a_mean_over_different_settings_and_scores_on_other_data_are_said(study):
    edit(study / "CoLA/weak/seed-2/config.json", learning_rate=2e-3)
    origin = study / "CoLA/weak/seed-3/origin.json"
    edit(origin, data={"train": "other, as augmentation makes it", "dev": "y"})
    said = find_runs(study)[1]
    assert len(said) == 2 and "learning_rate" in said[0] and "seed-2 has another" in said[0] and "trained on different data" in said[1]
    edit(origin, data={"train": "x", "dev": "other"})
    assert any("seed-3 was scored on other data than" in note for note in find_runs(study)[1])


def test_a_folder_without_a_finished_run_and_an_unknown_row_are_one_line_each(study, tmp_path, report):
    (tmp_path / "empty").mkdir()
    for words, message in ((["folder", tmp_path / "empty"], "nothing to report below"), (["folder", tmp_path / "nowhere"], "no folder"),
                           (["folder", study, "--baseline", "week"], "--baseline 'week' is not a row: did you mean 'weak'?"),
                           (["folder", study, "--teacher", "teach"], "--teacher 'teach' is not a row: did you mean 'teacher'?")):
        status, lines, said = report(*words)
        assert status == 1 and not lines and said.count("\n") == 1 and message in said, said


# ---- what the table says


def test_the_table_gives_means_differences_parameters_and_retention(study, report):
    status, lines, said = report("folder", study, "--baseline", "weak", "--teacher", "teacher")
    assert status == 0 and not said
    assert lines[0] == ("| | CoLA dev, matthews | minus weak | MRPC dev, f1 | minus weak | MRPC dev, accuracy | minus weak | "
                        "parameters (M) | without embeddings (M) | on disk (MB) | % of teacher |")
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["teacher", "weak", "strong"]
    kept = {row: {seed: answers("CoLA", seed, wrong) for seed in (1, 2, 3)} for row, wrong in (("weak", 0.3), ("strong", 0.2))}
    values = [100 * matthews(found.predicted, found.target) for found in kept["strong"].values()]
    expected = paired_difference("matthews", kept["strong"], kept["weak"])
    strong = cells(lines, "strong")
    assert strong[0] == f"**{np.mean(values):.1f} ± {np.std(values, ddof=1) / 3 ** 0.5:.1f} (3)**"
    assert strong[1] == f"{100 * expected.value:+.1f} ± {100 * expected.stderr:.1f} (3)"
    assert cells(lines, "weak")[1] == "-" and "**" not in cells(lines, "weak")[0]
    assert strong[-4:-1] == ["0.0"] * 3 and cells(lines, "teacher")[-1] == "100.0" and 70 < float(strong[-1]) < 95
    assert any("more than 2 standard errors of that difference, with at least 3 seeds" in line for line in lines)


def test_retention_is_the_mean_over_tasks_of_the_share_of_the_teachers_score(study):
    runs, _ = find_runs(study)
    summary = Summary(runs, teacher="teacher")
    mean = {(row, column): np.mean(list(summary.values(row, column).values())) for row in summary.rows for column in summary.columns}
    cola, f1, accuracy = summary.columns
    shares = [mean["weak", cola] / mean["teacher", cola],
              (mean["weak", f1] + mean["weak", accuracy]) / (mean["teacher", f1] + mean["teacher", accuracy])]
    assert summary.retention("weak") == (pytest.approx(np.mean(shares)), 2, 2)
    assert Summary([run for run in runs if (run.row, run.task.name) != ("weak", "CoLA")], teacher="teacher").retention("weak") \
        == (pytest.approx(shares[1]), 1, 2)


def test_a_gain_of_two_seeds_and_a_loss_are_not_bold(study, report):
    shutil.rmtree(study / "CoLA/strong/seed-3")
    _, lines, _ = report("folder", study, "--baseline", "weak")
    assert "**" not in cells(lines, "strong")[0] and "**" in cells(lines, "strong")[2] and "**" in cells(lines, "teacher")[0]
    _, lines, _ = report("folder", study, "--baseline", "teacher")
    assert not any("**" in line for line in lines)


@pytest.mark.parametrize("damaged", [b"PK nonsense", b""])
def test_damaged_missing_and_other_predictions_cost_the_paired_test_alone(damaged, study, report):
    (study / "CoLA/strong/seed-1/best/predictions.npz").write_bytes(damaged)
    for seed in (1, 2, 3):
        (study / f"MRPC/strong/seed-{seed}/best/predictions.npz").unlink()
    status, lines, said = report("folder", study, "--baseline", "weak")
    assert status == 0 and "no paired test with" in said and "predictions.npz is damaged" in said
    strong = cells(lines, "strong")
    assert strong[0].endswith("(3)") and strong[1].endswith("(2)") and strong[2].endswith("(3)") and strong[3] == "-"
    assert "no paired test of strong against weak on MRPC dev, f1: the runs of strong kept no predictions of dev" in said


def test_the_selecting_split_is_named_where_it_is_reported(tmp_path, report):
    write_run(tmp_path / "old", selected_on=None), write_run(tmp_path / "dev"), write_run(tmp_path / "held", selected_on="heldout")
    edit(tmp_path / "held" / "scores.json", values={"heldout/matthews": 0.9, "dev/matthews": 0.5})
    _, lines, _ = report("folder", tmp_path)
    assert lines[-1] == "Models were selected on the reported split: CoLA dev (dev, old)."
    assert "heldout" not in lines[0], "what selects is not reported"
    _, lines, _ = report("folder", tmp_path / "held")
    assert lines[-1] == "No model was selected on a reported split."


def test_the_csv_holds_every_seed_and_what_the_table_says(study, tmp_path, report):
    report("folder", study, "--baseline", "weak", "--teacher", "teacher", "--csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        lines = {(line["row"], line["metric"]): line for line in csv.DictReader(file)}
    assert len(lines) == 9
    strong = lines["strong", "matthews"]
    values = [float(value) for value in strong["values"].split()]
    assert strong["seeds"] == "1 2 3" and float(strong["mean"]) == pytest.approx(np.mean(values)) and strong["n"] == "3"
    assert strong["parameters"] == "1000" and lines["teacher", "f1"]["parameters"] == "4000" and strong["gain"] == "True"
    assert strong["without_embeddings"] == "600" and int(strong["bytes"]) == (study / "CoLA/strong/seed-1/best/model.safetensors").stat().st_size
    assert strong["selected_on"] == "dev" and lines["weak", "matthews"]["difference"] == ""


# ---- the real thing


def test_runs_of_the_program_are_reported_timed_and_repaired(tiny_bert, tiny_glue, tmp_path, report):
    for name, steps in (("short", 1), ("r", 6)):
        words = [str(word) for word in ("train", "finetune", "CoLA", "--model", tiny_bert, "--data_dir", tiny_glue, "--output_dir",
                                        tmp_path / "both" / name, "--seeds", 1, 2, "--max_steps", steps, "--train_batch_size", 16,
                                        "--learning_rate", "3e-3")]
        assert main(words) == 0
    status, table, said = report("folder", tmp_path / "both", "--baseline", "short")
    assert status == 0 and "no paired test" not in said and "left out" not in said
    assert cells(table, "r")[0].endswith("(2)") and cells(table, "r")[2] == "0.0" and cells(table, "r")[1].endswith("(2)")
    scores = tmp_path / "both/r/seed-2/scores.json"
    before = json.loads(scores.read_text())
    value = np.mean([json.loads((tmp_path / f"both/{name}/seed-{seed}/scores.json").read_text())["values"]["dev/matthews"] * sign
                     for name, sign in (("r", 2), ("short", -2)) for seed in (1, 2)])
    assert cells(table, "r")[1].startswith(f"{100 * value:+.1f} ± ")
    for name in ("scores.json", "DONE"):
        (tmp_path / "both/r/seed-2" / name).unlink()
    assert main(words) == 0, "what the message about a damaged file says to do"
    assert json.loads(scores.read_text())["values"] == before["values"]
    (tmp_path / "both" / "r").rename(tmp_path / "r")
    status, (line,), _ = report("latency", tmp_path / "r", "--data_dir", tiny_glue)
    (measured,) = json.loads((tmp_path / "r/seed-1/latency.json").read_text()).values()
    assert status == 0 and "in batches of 32 (CoLA dev, " in line and measured["threads"] >= 1
    assert measured["batches"] == {"1": 50, "32": 50}
    assert 0 < measured["milliseconds"]["32"] < measured["milliseconds"]["1"]
    table = report("folder", tmp_path / "r")[1]
    assert cells(table, "r")[-2:] == [f"{measured['milliseconds'][size]:.2f}" for size in ("1", "32")] and "ms per example | in batches |" in table[0]
    (tmp_path / "r/seed-1/latency.json").write_text('{"cpu": {}}')
    status, table, said = report("folder", tmp_path / "r")
    assert status == 0 and "latency.json is damaged" in said and cells(table, "r")[0].endswith("(2)")
