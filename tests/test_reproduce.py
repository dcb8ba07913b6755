"""One record again: which command runs, what it needs, and how the number compares."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data_utils.readers import data_fingerprint
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.report import read_records, write_records
from distill.report.reproduce import command, missing, reproduce
from tests.test_report import record

ROOT = Path(__file__).resolve().parents[1]
HERE = {"data_dir": "/data", "model": "", "teacher": "", "senses": "", "student": "", "corpus": ""}


def made_by(words: str, **changed):
    return replace(record("row", 0.5, 1, "CoLA", "matthews"), command=f"python -m distill train {words}", **changed)


def words(found, out: str = "/out", **paths) -> str:
    return shlex.join(command(found, HERE | paths, Path(out)))


def test_a_command_runs_with_todays_paths_and_in_a_folder_of_its_own():
    found = made_by("pkd CoLA --data_dir data/glue --teacher teacher/best --cache_dir x/cache --seed 1 --output_dir a/b --bf16 False "
                    "--output_dir=a/c")
    assert words(found) == "train pkd CoLA --teacher teacher/best --seed 1 --bf16 False --data_dir /data --output_dir /out"
    assert words(found, teacher="/t/best", model="minilm", senses="/s") == \
        "train pkd CoLA --seed 1 --bf16 False --data_dir /data --teacher /t/best --output_dir /out", "only what the command names"
    assert words(replace(found, command="python -m distill report constant CoLA main --data_dir glue")) == \
        "report --records /out/records.jsonl constant CoLA main --data_dir /data"


def test_every_recorded_command_can_be_read_again():
    for found in read_records(ROOT / "scripts" / "results.jsonl"):
        if found.recipe == "constant":
            assert words(found).startswith(f"report --records /out/records.jsonl constant {found.task} {found.table} --data_dir /data")
        else:
            learned = "TyDiQA" if found.table == "squad" else found.task
            assert words(found).startswith(f"train {found.recipe} {learned} ")
            assert f"--seed {found.seed}" in words(found) + " --seed 42"


def test_what_is_not_here_is_named_with_its_variable_and_the_cell_that_makes_it(tmp_path):
    teachers = [made_by(f"finetune CoLA --seed {seed} --output_dir {place}", row=f"teacher {place}", recipe="finetune", seed=seed)
                for place in ("mean/teacher", "cls/teacher") for seed in (1, 2)]
    found = made_by("pkd CoLA --teacher teacher/best --senses mean/senses --seed 1 --output_dir mean/pkd", row="pkd", recipe="pkd")
    teacher, senses = missing(found, [*teachers, found], HERE)
    assert f"set TEACHER to the folder best/ of what `sh scripts/reproduce.sh {teachers[0].id}` makes (teacher mean/teacher, seed 1)" \
        in teacher and not any(other.id in teacher for other in teachers[1:])
    assert "set SENSES to what `python -m distill senses build CoLA --teacher ...` makes of that teacher" in senses
    assert "`python -m distill senses build CoLA --similarity dot --teacher ...`" in missing(replace(found, similarity="dot"), [found], HERE)[1]
    assert missing(found, [found], HERE | {"senses": str(tmp_path)})[0].endswith("not among these records")
    assert missing(found, [found], HERE | {"senses": str(tmp_path), "teacher": str(tmp_path)}) == []
    with pytest.raises(ValueError, match="set TEACHER .*; --senses"):
        reproduce(found, [found], HERE, tmp_path / "out")


def test_a_teacher_of_many_seeds_is_found_by_its_whole_path():
    def seeded(row: str, recipe: str, seed: int, words: str = ""):
        return made_by(f"{recipe} CoLA --seed {seed} {words} --output_dir runs/{row}/seed-{seed}", row=row, recipe=recipe, seed=seed)

    cut, whole = (seeded("pkd", "pkd", 2, f"--teacher {path}/best") for path in ("seed-2", "runs/assistant/seed-2"))
    others = [seeded(row, recipe, seed) for row, recipe in (("teacher", "finetune"), ("assistant", "logit_kd")) for seed in (1, 2)]
    assert others[1].id in missing(cut, [cut, *others], HERE)[0], "fine-tuned ones first, where the path is cut"
    control = seeded("control", "finetune", 2)
    assert control.id not in missing(cut, [cut, control, *others], HERE)[0], "a teacher from a folder of that name"
    (line,) = missing(whole, [whole, *others], HERE)
    assert others[3].id in line and others[1].id not in line


def test_a_model_that_a_run_made_and_a_corpus_are_missed_and_one_of_the_hub_is_not():
    made = made_by("pretrain text --corpus runs/corpus --output_dir pre/distilbert", task="text", recipe="pretrain")
    tuned = made_by("finetune CoLA --model distilbert/best --output_dir CoLA/distilbert", recipe="finetune")
    assert missing(made, [made, tuned], HERE) == ["--corpus runs/corpus is not here: set CORPUS to what `python -m distill data pack` makes of that text"]
    (line,) = missing(tuned, [made, tuned], HERE)
    assert line.startswith("--model distilbert/best is not here: set MODEL to the folder best/ of what") and made.id in line
    assert missing(made_by("finetune CoLA --model google-bert/bert-base-uncased"), [], HERE) == []
    began = made_by("pretrain text --student head/best --output_dir pre/teacher", task="text", recipe="pretrain")
    assert missing(began, [], HERE)[0].startswith("--student head/best is not here: set STUDENT to the folder best/ of what a run made")
    assert missing(replace(began, command=began.command.replace("head/best", "uniform:half")), [], HERE) == []


@pytest.fixture
def in_process(monkeypatch) -> list[str]:
    """The commands run in this process, which has loaded torch already; returns them as they come."""
    ran = []

    def run(words) -> None:
        ran.append(shlex.join(words))
        assert main(list(words)) == 0

    monkeypatch.setattr("distill.report.reproduce._run", run)
    return ran


def test_a_run_is_made_again_with_the_same_number(tiny_bert, tiny_glue, tmp_path, monkeypatch, in_process, capsys):
    path = tmp_path / "r.jsonl"
    run = ["train", "finetune", "CoLA", "--model", str(tiny_bert), "--data_dir", str(tiny_glue), "--output_dir", str(tmp_path / "run"),
           "--max_steps", "2", "--train_batch_size", "8"]
    monkeypatch.setattr(sys, "argv", ["distill", *run])
    assert main(run) == 0 and main(["report", "--records", str(path), "add", "main", "row", str(tmp_path / "run")]) == 0
    (found,) = read_records(path)
    assert found.data == data_fingerprint(get_task("CoLA"), "dev", tiny_glue)[:16]
    out = tmp_path / "again"
    assert main(["report", "--records", str(path), "reproduce", found.id, "--data_dir", str(tiny_glue), "--model", str(tiny_bert),
                 "--output_dir", str(out)]) == 0
    assert in_process == [f"train finetune CoLA --max_steps 2 --train_batch_size 8 --data_dir {tiny_glue} --model {tiny_bert} "
                          f"--output_dir {out}"]
    _, recorded, now, difference = capsys.readouterr().out.splitlines()[-4:]
    assert recorded.startswith(f"recorded {100 * found.value:.2f}") and now.startswith(f"now      {100 * found.value:.2f}")
    assert difference.startswith("difference +0.00") and difference.endswith(": reproduced") and (out / "DONE").exists()
    write_records(path, [replace(found, data="0123")])
    assert main(["report", "--records", str(path), "reproduce", found.id, "--data_dir", str(tiny_glue), "--model", str(tiny_bert),
                 "--output_dir", str(out)]) == 0
    assert f"other data: CoLA dev has the checksum {found.data} ... here, 0123 ... there" in capsys.readouterr().out


def test_a_number_that_is_off_by_more_than_its_error_and_an_unknown_id_end_with_one(tiny_glue, tmp_path, capsys, in_process):
    path = tmp_path / "r.jsonl"
    told = ["report", "--records", str(path)]
    assert main([*told, "constant", "MRPC", "main", "--data_dir", str(tiny_glue)]) == 0
    _, accuracy = read_records(path)
    assert accuracy.data == data_fingerprint(get_task("MRPC"), "dev", str(tiny_glue))[:16]
    again = [*told, "reproduce", accuracy.id, "--data_dir", str(tiny_glue), "--output_dir", str(tmp_path / "again")]
    write_records(path, [replace(accuracy, value=accuracy.value + 0.02, stderr=0.021)])
    assert main(again) == 0
    write_records(path, [replace(accuracy, value=accuracy.value + 0.02, stderr=0.019)])
    assert main(again) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("difference -2.00, standard error of the recorded number 1.90: not reproduced")
    assert main([*told, "reproduce", "0000"]) == 1 and "no record has the id '0000'" in capsys.readouterr().err


def test_the_script_runs_the_command_in_a_process_of_its_own_and_ends_with_its_failure(tiny_glue, tmp_path):
    path = tmp_path / "r.jsonl"
    assert main(["report", "--records", str(path), "constant", "MRPC", "main", "--data_dir", str(tiny_glue)]) == 0
    found = read_records(path)[0]
    write_records(path, [replace(found, command="python -m distill data name nothing")])
    done = subprocess.run(["sh", str(ROOT / "scripts/reproduce.sh"), found.id], capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"PYTHON": sys.executable, "DATA": "/data", "RECORDS": str(path), "RUNS": str(tmp_path / "again")})
    assert done.stdout == f"python -m distill data name nothing --data_dir /data --output_dir {tmp_path}/again/{found.id}\n"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "error: the command above ended with status 2: see what it said"


def test_without_an_id_the_script_shows_its_usage():
    done = subprocess.run(["sh", str(ROOT / "scripts/reproduce.sh")], env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: sh scripts/reproduce.sh ID")


def test_a_reading_is_made_by_evaluating_the_run_through_senses(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("distill.report.reproduce._run", lambda given: ran.append(shlex.join(given)))
    monkeypatch.setattr("distill.report.reproduce.score_of", lambda found, out: found.value)
    trained = made_by("sense_kd CoLA --teacher t/best --senses s --output_dir x", reading="chosen senses")
    said = reproduce(trained, [], HERE | {"teacher": str(tmp_path), "senses": str(tmp_path)}, tmp_path / "out")
    assert said.endswith(": reproduced")
    assert ran[1:] == [f"evaluate CoLA --checkpoint {tmp_path}/out --senses {tmp_path} --data_dir /data --output {tmp_path}/out/readings.json"]
    ran.clear()
    reproduce(made_by("finetune CoLA --output_dir x", reading="chosen senses"), [], HERE, tmp_path / "out")
    assert ran[1] == f"senses build CoLA --teacher {tmp_path}/out/best --data_dir /data --output_dir {tmp_path}/out/senses"
    assert f"--senses {tmp_path}/out/senses" in ran[2]
    ran.clear()
    reproduce(made_by("finetune CoLA --output_dir x", reading="chosen senses", similarity="dot"), [], HERE, tmp_path / "out")
    assert all(" CoLA --similarity dot " in line or " --similarity dot --data_dir " in line for line in ran[1:]) and len(ran) == 3


def test_a_reading_on_another_task_is_made_by_evaluating_the_run_on_that_task(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("distill.report.reproduce._run", lambda given: ran.append(shlex.join(given)))
    monkeypatch.setattr("distill.report.reproduce.score_of", lambda found, out: found.value)
    found = made_by("finetune TyDiQA --output_dir x", task="SQuAD", reading="continuous states")
    reproduce(found, [found], HERE, tmp_path)
    assert ran == [f"train finetune TyDiQA --data_dir /data --output_dir {tmp_path}",
                   f"evaluate SQuAD --checkpoint {tmp_path} --data_dir /data --output {tmp_path}/readings.json"]
    distilled = made_by("logit_kd TyDiQA --teacher x/best --output_dir y", task="SQuAD", reading="continuous states")
    assert found.id in missing(distilled, [found, distilled], HERE)[0]
