"""Comparing systems: several folders in one table, size, time on one device, what is faster and what is missing; the script."""

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_utils.encode import EncodedDataset
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.bench import latency
from distill.evaluate import task_info
from distill.report.constant import constant_of, constant_scores
from distill.report.folder import find_runs
from distill.report.latency import read_latencies
from distill.report.summary import Summary
from distill.rundir import device_name, write_bytes
from distill.verbs import report as report_verb
from models.pretrained import pretrained_encoder
from tests.finished import write_latency, write_run
from tests.test_report_folder import cells
from tests.test_shell import sh


class Patient(torch.nn.Module):
    """What a timing asks of an encoder besides its answers."""

    info = SimpleNamespace(task="CoLA")
    tokenizer = SimpleNamespace(pad_token_id=0)


@pytest.fixture
def study(tmp_path) -> Path:
    """A teacher and a student of half its time on two tasks, two seeds each; the first of each is timed."""
    for row, wrong, alone, batched in (("teacher", 0.1, 8.0, 2.0), ("student", 0.2, 4.0, 0.5)):
        for task, length in (("CoLA", 1), ("MRPC", 3)):
            for seed in (1, 2):
                run = write_run(tmp_path / "runs" / task / row / f"seed-{seed}", task, seed, wrong, width=int(alone))
                if seed == 1:
                    write_latency(run, length * alone, length * batched)
    return tmp_path / "runs"


# ---- several folders


def test_rows_of_several_folders_are_named_from_the_folder_that_holds_them_all(study, tmp_path, monkeypatch):
    runs, notes = find_runs(study / "CoLA/teacher", study / "CoLA/student/seed-2")
    assert [(run.row, run.seed) for run in runs] == [("student", 2), ("teacher", 1), ("teacher", 2)] and not notes
    write_run(tmp_path / "other/MRPC/student", "MRPC")
    runs, _ = find_runs(study, tmp_path / "other")
    assert {run.row for run in runs} == {"runs/teacher", "runs/student", "other/student"}
    monkeypatch.chdir(study)
    assert {run.row for run in find_runs(Path("CoLA"), Path("./CoLA/student"))[0]} == {"teacher", "student"}
    with pytest.raises(ValueError, match="no folder .*nowhere"):
        find_runs(study, study / "nowhere")


# ---- times and what is missing


def test_the_table_holds_size_time_retention_and_how_many_times_as_fast(study, report):  # noqa: F811
    status, lines, said = report("folder", study, "--teacher", "teacher")
    assert status == 0 and not said
    assert lines[0].endswith("parameters (M) | without embeddings (M) | on disk (MB) | ms per example | in batches | % of teacher | "
                             "times as fast | times as fast in batches |")
    assert cells(lines, "student")[-5:-3] == ["8.00", "1.00"] and cells(lines, "student")[-2:] == ["2.00", "4.00"]
    assert cells(lines, "teacher")[-2:] == ["1.00", "1.00"]
    assert not any("Not timed" in line or "Without" in line or "other programs" in line for line in lines)


def test_only_times_of_one_device_are_divided(study):
    write_latency(study / "MRPC/student/seed-1", 1.0, device="another")
    assert Summary(find_runs(study)[0], teacher="teacher").speed_up("student", "milliseconds") == (2.0, 1, 2)
    write_latency(study / "CoLA/student/seed-1", 1.0, device="another")
    assert Summary(find_runs(study)[0], teacher="teacher").speed_up("student", "milliseconds") is None
    write_latency(study / "CoLA/student/seed-2", 16.0)
    assert Summary(find_runs(study)[0], teacher="teacher").speed_up("student", "milliseconds") == (0.5, 1, 2), "a seed that was timed there"
    write_latency(study / "CoLA/teacher/seed-2", 9.0, device="another")
    summary = Summary(find_runs(study)[0], teacher="teacher")
    assert summary.device == "cpu" and summary.speed_up("student", "milliseconds") == (0.5, 1, 2), "of several devices that of the times that are shown"


def test_who_lacks_a_run_or_a_time_and_whose_was_disturbed_is_named(study, report, tmp_path):  # noqa: F811
    shutil.rmtree(study / "MRPC/student")
    (study / "CoLA/student/seed-1/latency.json").unlink()
    write_latency(study / "CoLA/teacher/seed-1", 8.0, disturbed=True)
    (study / "CoLA/student/seed-2/DONE").unlink()
    status, lines, said = report("folder", study, "--teacher", "teacher", "--markdown", tmp_path / "table.md")
    assert status == 0
    for line in ("Not timed there (`report latency RUN`): student (CoLA, MRPC).", "Timed while other programs ran: teacher (CoLA).",
                 "Without a finished run: student (MRPC)."):
        assert line in lines
    assert cells(lines, "student")[-3].endswith("(1 of 2 tasks)") and cells(lines, "student")[-2:] == ["-", "-"]
    written = (tmp_path / "table.md").read_text()
    assert written.startswith("\n".join(lines)) and f"- left out {study}/CoLA/student/seed-2: unfinished" in written and "unfinished" in said


def test_the_csv_has_what_the_table_says(study, report, tmp_path):  # noqa: F811
    report("folder", study, "--teacher", "teacher", "--csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        lines = {(line["row"], line["metric"]): line for line in csv.DictReader(file)}
    student = lines["student", "f1"]
    assert (student["milliseconds"], student["batched_milliseconds"], student["timed_on"]) == ("12.0", "1.5", "cpu")
    assert (student["speed_up"], student["batched_speed_up"]) == ("2.0", "4.0") and student["n"] == "2"


def test_a_deberta_is_timed(tiny_deberta, tiny_glue, tmp_path):
    encoder = pretrained_encoder(str(tiny_deberta), task_info(get_task("CoLA"), "cls"), 0.1)
    (tmp_path / "best").mkdir()
    encoder.save(tmp_path / "best")
    write_latency(tmp_path, 1.0, device="another")
    assert min(latency.measure_latency(tmp_path, str(tiny_glue), batches=2)["milliseconds"].values()) > 0
    found = read_latencies(tmp_path)
    assert set(found) == {"another", device_name()} and found["another"].milliseconds == 1.0, "what another device took is not lost"


def test_timing_stops_at_its_limit_but_counts_a_few_batches(study, monkeypatch):
    asked = []
    monkeypatch.setattr(latency, "load_encoder", lambda folder: Patient())
    monkeypatch.setattr(latency, "encode_split", lambda *_: EncodedDataset(np.arange(4), np.zeros(4, np.int32), np.arange(5), np.ones(4, np.int32),
                                                                         np.zeros(4, np.int64)))
    monkeypatch.setattr(latency, "timed", lambda work, size: lambda: (asked.append(size), (size, 30.0 if size == 32 else 2.0))[1])
    found = latency.measure_latency(study / "CoLA/student/seed-1", "anywhere")
    assert found["batches"] == {"1": 30 - latency.WARM_UP, "32": latency.FEWEST} and len(asked) == 30 + latency.WARM_UP + latency.FEWEST
    assert found["milliseconds"] == {"1": 2000.0, "32": 1000 * 30 / 32}


# ---- one answer to all examples


def test_a_constant_answer_is_a_row_without_size_time_or_curves(study, tiny_glue, tmp_path, report):  # noqa: F811
    words = ["folder", study, "--teacher", "teacher", "--constant"]
    status, lines, said = report(*words, "--data_dir", tiny_glue, "--plots", tmp_path / "plots")
    known = {task: constant_scores(constant_of(get_task(task), str(tiny_glue)), get_task(task), str(tiny_glue)).values for task in ("CoLA", "MRPC")}
    expected = [f"{100 * value:.1f} (1)" for task in known for value in known[task].values()]
    found = cells(lines, "control: constant answer")
    assert status == 0 and found[:len(expected)] == expected and set(found[len(expected):-3]) == {"-"}
    assert not said and not [line for line in lines[2:] if "Not timed" in line and "constant" in line]
    assert not list((tmp_path / "plots").glob("curves-*constant*")) and (tmp_path / "plots/comparison.png").is_file()
    shutil.rmtree(study / "MRPC")
    assert "no constant answer: data directory" in report(*words, "--data_dir", tmp_path / "nowhere")[2]


# ---- the script


def test_the_script_asks_for_folders_and_hands_everything_over(tmp_path):
    done = sh("scripts/compare_benchmarks.sh", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: sh scripts/compare_benchmarks.sh FOLDER [FOLDER ...]")
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/words"\n')
    program.chmod(0o755)
    out = tmp_path / "my comparison"
    done = sh("scripts/compare_benchmarks.sh", "my runs/a", "b", "--baseline", "b", PYTHON=program, OUT=out, DATA="a folder")
    assert done.returncode == 0 and out.is_dir()
    assert (tmp_path / "words").read_text().splitlines() == [
        "-m", "distill", "report", "folder", "--teacher", "teacher", "--time", "--constant", "--data_dir", "a folder",
        "--markdown", f"{out}/comparison.md",
        "--csv", f"{out}/comparison.csv", "--plots", str(out), "my runs/a", "b", "--baseline", "b"]


def test_runs_are_timed_once_and_compared_in_a_table_and_a_figure(tiny_bert, tiny_glue, tmp_path, monkeypatch, report):  # noqa: F811
    runs, out = tmp_path / "runs/CoLA", tmp_path / "out"
    out.mkdir()
    for name, words in (("teacher", ["--seed", 1]), ("student", ["--layers", "truncate:half", "--seeds", 1, 2])):
        assert main([str(word) for word in ("train", "finetune", "CoLA", "--model", tiny_bert, "--data_dir", tiny_glue, "--output_dir",
                                            runs / name, "--max_steps", 1, "--train_batch_size", 16, *words)]) == 0
    words = ["folder", runs / "teacher", runs / "student", "--teacher", "teacher", "--time"]
    with monkeypatch.context() as patch:
        patch.setattr(report_verb, "measure_latency", lambda run, data_dir: write_bytes(Path("/proc/latency.json"), b"a disk that may not be written"))
        status, lines, said = report(*words, "--data_dir", tiny_glue)
    assert status == 0 and len(lines) > 3 and "student on CoLA was not timed: cannot write /proc/latency.json" in said
    _, _, said = report(*words, "--data_dir", tmp_path / "nowhere")
    assert "student on CoLA was not timed: data directory" in said and "teacher on CoLA was not timed" in said
    status, _, said = report(*words, "--data_dir", tiny_glue, "--baseline", "studnet")
    assert status == 1 and "did you mean 'student'" in said and not list(runs.rglob("latency.json")), "before the minutes of timing"
    status, lines, said = report(*words, "--data_dir", tiny_glue, "--csv", out / "comparison.csv", "--plots", out)
    assert status == 0 and "not timed" not in said and [line.split(" | ")[0] for line in lines[2:4]] == ["| teacher", "| student"]
    assert float(cells(lines, "student")[-1]) > 0 and cells(lines, "teacher")[-1] == "1.00" and cells(lines, "student")[0].endswith("(2)")
    assert {"comparison.csv", "comparison.png", "comparison.svg"} <= {file.name for file in out.iterdir()}
    timed = list(runs.rglob("latency.json"))
    assert {str(file.parent.relative_to(runs)) for file in timed} == {"teacher", "student/seed-1"}, "one seed of each system"
    monkeypatch.setattr(report_verb, "measure_latency", lambda *_: pytest.fail("timed again"))
    assert report(*words)[0] == 0
    write_latency(runs / "teacher", 1.0, device="another")
    monkeypatch.setattr(report_verb, "measure_latency", lambda run, data_dir: write_latency(run, 3.0, device=device_name()))
    assert cells(report(*words)[1], "teacher")[-5] == "3.00", "a time of another device is no time here"
