"""The shell scripts: what they look like, what they say, and the five of them in a row."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_utils.tasks import task_names
from distill import recipes

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob("*.sh"), *(ROOT / "scripts").glob("*.sh")])
FIVE = ["r1_teacher_model.sh", "r2_construct_sense_dictionary.sh", "r3_knowledge_distillation.sh", "run_eval_teacher.sh",
        "run_eval_student.sh"]
METHODS = {name: f"scripts/{name}.sh" for name in ("logit_kd", "pkd", "tinybert", "relation_kd")}
SELF_TEACHING = ["scripts/self_teaching.sh", "scripts/self_teaching_gradual.sh"]
HYPER_PARAMETERS = ("learning_rate", "epochs", "max_steps", "batch_size", "warmup", "weight_decay", "grad_norm", "dropout", "optimizer",
                    "scheduler", "temperature", "num_senses", "cap", "max_length", "bf16", "fp16", "pooling", "head_input")


def sh(script: str, *words, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run a script with PYTHON, the further variables, and nothing of the caller's that it would read."""
    clean = {name: value for name, value in os.environ.items() if name not in (
        "DATA", "METHOD", "MODEL", "RUNS", "RUN", "SCHEDULE", "TEACHER", "STUDENT", "SENSES", "CORPUS", "TOKENIZER",
        "PYTHONPATH")}
    return subprocess.run(["sh", str(ROOT / script), *map(str, words)], cwd=cwd, capture_output=True, text=True,
                          env=clean | {"PYTHON": sys.executable} | {name: str(value) for name, value in environment.items()})


@pytest.fixture
def recorder(tmp_path):
    """A PYTHON that answers `data` itself and writes down what else it is asked to run, one word per line."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nif [ "$3" = data ]; then exec "{sys.executable}" "$@"; fi\n'
                       f'printf "%s\\n" "$@" >> "{tmp_path}/words"\npwd > "{tmp_path}/folder"\n')
    program.chmod(0o755)
    return program


# ---- form


def test_the_five_scripts_are_there():
    assert set(FIVE) <= {path.name for path in SCRIPTS if path.parent == ROOT}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_plain_sh_that_stops_at_the_first_error_and_moves_to_its_folder(path):
    checked = subprocess.run([shutil.which("dash") or "sh", "-n", str(path)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/sh" and "set -eu" in lines
    assert any(line.startswith('cd "$(dirname "$0")') for line in lines) and os.access(path, os.X_OK)
    assert not any("| tee" in line or "[[" in line for line in lines)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_holds_no_hyper_parameter(path):
    code = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    words = set(re.findall(r'--([a-z][a-z_0-9]*)\b(?! "\$)', " ".join(code)))  # a sweep hands over its variable
    assert not [word for word in words if any(name in word for name in HYPER_PARAMETERS)]


@pytest.mark.parametrize("name", FIVE)
def test_the_program_takes_the_place_of_the_script_and_gets_every_further_word(name):
    text = (ROOT / name).read_text()
    last = text.rstrip().replace("\\\n", " ").splitlines()[-1]
    assert re.fullmatch(r'exec "\$PYTHON" -m distill .* "\$@"', last)
    settings = re.findall(r"^([A-Z]+)=", text, re.M)
    for variable in set(settings) - {"TASK"}:
        assert f"{variable}=${{{variable}:-" in text, f"{variable} cannot be set from outside"
    assert not re.search(r'(?<!")\$(?:DATA|RUNS?|MODEL|TEACHER|STUDENT|SENSES|CORPUS|TASK)\b(?!["/])', re.sub(r'"[^"]*"|#.*|=.*', "", text)), "unquoted"


# ---- what they say


@pytest.mark.parametrize("name", FIVE + SELF_TEACHING)
def test_without_a_task_a_script_shows_its_usage_and_the_tasks_and_ends_with_two(name, tmp_path):
    for words in ((), ("-h",)):
        done = sh(name, *words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(f"usage: sh {name} TASK")
        assert all(task in done.stderr for task in task_names())


@pytest.mark.parametrize("name", FIVE + SELF_TEACHING)
def test_an_unknown_task_is_answered_with_the_nearest_in_one_line(name, tmp_path):
    done = sh(name, "MRCP", cwd=tmp_path)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unknown task 'MRCP'; nearest: MRPC")


@pytest.mark.parametrize("name, present, missing, maker", [
    ("r2_construct_sense_dictionary.sh", [], "teacher/best", "r1_teacher_model.sh"),
    ("r3_knowledge_distillation.sh", [], "teacher/best", "r1_teacher_model.sh"),
    ("r3_knowledge_distillation.sh", ["teacher/best"], "senses", "r2_construct_sense_dictionary.sh"),
    ("run_eval_teacher.sh", [], "teacher", "r1_teacher_model.sh"),
    ("run_eval_teacher.sh", ["teacher"], "senses", "r2_construct_sense_dictionary.sh"),
    ("run_eval_student.sh", [], "student", "r3_knowledge_distillation.sh"),
    ("run_eval_student.sh", ["student"], "senses", "r2_construct_sense_dictionary.sh")])
def test_a_missing_input_names_the_script_that_makes_it(name, present, missing, maker, tmp_path):
    runs = tmp_path / "the runs"
    for folder in present:
        (runs / "CoLA" / folder).mkdir(parents=True)
    done = sh(name, "cola", RUNS=runs)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert f" {runs}/CoLA/{missing}:" in line and f"sh {maker} CoLA" in line


@pytest.mark.parametrize("name", FIVE)
def test_paths_from_the_environment_arrive_whole_and_further_words_last(name, recorder, tmp_path):
    blank = tmp_path / "a folder"
    blank.mkdir()
    given = {variable: blank for variable in ("DATA", "RUNS", "MODEL", "TEACHER", "SENSES", "TOKENIZER")}
    done = sh(name, "sst2", "--learning_rate", "1e-4", "two words", PYTHON=recorder, STUDENT=blank, **given)
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["-m", "distill"] and "SST-2" in words and words[-3:] == ["--learning_rate", "1e-4", "two words"]
    assert words[words.index("--data_dir") + 1] == str(blank)
    read = {"r1_teacher_model.sh": ["--model"], "r2_construct_sense_dictionary.sh": ["--teacher"],
            "r3_knowledge_distillation.sh": ["--teacher", "--senses", "--student"], "run_eval_teacher.sh": ["--checkpoint", "--senses"],
            "run_eval_student.sh": ["--checkpoint", "--senses", "--tokenizer"]}[name]
    assert all(words[words.index(flag) + 1] == str(blank) for flag in read)
    if name.startswith("r") and name[1].isdigit():
        assert words[words.index("--output_dir") + 1].startswith(f"{blank}/SST-2/")
    assert (tmp_path / "folder").read_text().strip() == str(ROOT)


# ---- one script per further method


def test_the_classical_methods_have_a_script_each():
    assert {"finetune", "sense_kd", *METHODS} <= set(recipes.names())
    assert all((ROOT / script).is_file() for script in METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_script_says_its_usage_an_unknown_task_and_a_missing_teacher(name, tmp_path):
    done = sh(METHODS[name], cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"usage: METHOD={name} sh scripts/distil.sh TASK") and "MRPC" in done.stderr
    done = sh(METHODS[name], "MRCP", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: unknown task 'MRCP'; nearest: MRPC")
    done = sh(METHODS[name], "cola", cwd=tmp_path, RUNS=tmp_path / "the runs")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"no teacher {tmp_path}/the runs/CoLA/teacher/best: train it with sh r1_teacher_model.sh CoLA")


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_script_runs_its_recipe_with_paths_whole_and_further_words_last(name, recorder, tmp_path):
    blank = tmp_path / "a folder"
    blank.mkdir()
    given = {variable: blank for variable in ("DATA", "RUNS", "TEACHER", "STUDENT")}
    done = sh(METHODS[name], "sst2", "--learning_rate", "1e-4", "two words", PYTHON=recorder, **given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "words").read_text().splitlines() == [
        "-m", "distill", "train", name, "SST-2", "--data_dir", str(blank), "--teacher", str(blank), "--student", str(blank),
        "--output_dir", f"{blank}/SST-2/{name}", "--learning_rate", "1e-4", "two words"]
    assert (tmp_path / "folder").read_text().strip() == str(ROOT)


@pytest.mark.parametrize("name, given, expected", [
    (SELF_TEACHING[0], {}, ["google-bert/bert-base-uncased", "all,half", "self_taught"]),
    (SELF_TEACHING[1], {}, ["google-bert/bert-large-uncased", "24,20,16,12", "self_taught_gradually"]),
    (SELF_TEACHING[1], {"MODEL": "a model", "SCHEDULE": "6,5,3", "RUN": "my run"}, ["a model", "6,5,3", "my run"])])
def test_self_teaching_trains_with_the_words_that_follow(name, given, expected, recorder, tmp_path):
    runs = tmp_path / "the runs"
    done = sh(name, "sst2", "--seed", 3, PYTHON=recorder, RUNS=runs, DATA="a folder", **given)
    assert done.returncode == 0, done.stderr
    model, schedule, run = expected
    (training,) = (tmp_path / "words").read_text().split("-m\ndistill\n")[1:]
    assert training.splitlines() == ["train", "self_teaching", "SST-2", "--data_dir", "a folder", "--model", model, "--schedule", schedule,
                                     "--output_dir", f"{runs}/SST-2/{run}", "--seed", "3"]


@pytest.mark.parametrize("script, words, given, model, run", [
    ("scripts/finetune.sh", ["sst2"], {}, "distilbert/distilbert-base-uncased", "SST-2/finetuned"),
    ("scripts/finetune.sh", ["IMDB"], {"MODEL": "a student/best", "RUN": "my run"}, "a student/best", "IMDb/my run"),
    ("scripts/finetune_imdb.sh", [], {}, "distilbert/distilbert-base-uncased", "IMDb/finetuned"),
    ("scripts/finetune_imdb.sh", [], {"MODEL": "a student/best", "RUN": "my run"}, "a student/best", "IMDb/my run")])
def test_fine_tuning_is_r1_with_a_model_and_a_run_of_its_own(script, words, given, model, run, recorder, tmp_path):
    runs = tmp_path / "the runs"
    done = sh(script, *words, "--seed", 3, PYTHON=recorder, RUNS=runs, DATA="a folder", **given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "words").read_text().splitlines() == [
        "-m", "distill", "train", "finetune", run.split("/")[0], "--data_dir", "a folder", "--model", model,
        "--output_dir", f"{runs}/{run}", "--seed", "3"]


def test_fine_tuning_says_its_own_usage_and_an_unknown_task(tmp_path):
    done = sh("scripts/finetune.sh", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: sh scripts/finetune.sh TASK") and "IMDb" in done.stderr
    done = sh("scripts/finetune.sh", "MRCP", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: unknown task 'MRCP'; nearest: MRPC")


# ---- the real thing


def test_the_five_scripts_run_in_a_row_from_anywhere_and_with_blanks_in_paths(tiny_bert, tiny_glue, tmp_path):
    data, model = (Path(shutil.copytree(source, tmp_path / f"my {source.name}")) for source in (tiny_glue, tiny_bert))
    (tmp_path / "elsewhere").mkdir()
    runs, small = tmp_path / "my runs", ["--max_steps", 4, "--train_batch_size", 16]
    printed = {}
    for name, words in zip(FIVE, (small, ["--num_senses", 4], small, [], []), strict=True):
        done = sh(name, "cola", *words, cwd=tmp_path / "elsewhere", DATA=data, MODEL=model, RUNS=runs, HF_HUB_OFFLINE=1)
        assert done.returncode == 0, done.stderr
        printed[name] = done.stdout
    for folder in ("teacher", "senses", "student"):
        assert (runs / "CoLA" / folder / "DONE").exists()
    assert "finetune on CoLA" in printed[FIVE[0]] and "types with" in printed[FIVE[1]] and "sense_kd on CoLA" in printed[FIVE[2]]
    for script, folder in (("run_eval_teacher.sh", "teacher"), ("run_eval_student.sh", "student")):
        plain, senses = printed[script].splitlines()
        value = json.loads((runs / "CoLA" / folder / "scores.json").read_text())["values"]["dev/matthews"]
        assert f"CoLA, head reads continuous states: dev/matthews {100 * value:.2f}" in plain and "head reads chosen senses" in senses
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_whole_job_reads_what_it_made_whatever_is_in_the_environment(recorder, tmp_path):
    out = tmp_path / "my runs/seed-3/CoLA"
    for folder in ("teacher/best", "senses", "student"):
        (out / folder).mkdir(parents=True)
    others = {name: tmp_path / "others" for name in ("TEACHER", "SENSES", "TOKENIZER", "RUN")}
    done = sh("scripts/pipeline.sh", "cola", 3, "mine", PYTHON=recorder, RUNS=tmp_path / "my runs", DATA="a folder", STUDENT="layers:0,2,4", **others)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "words").read_text()
    commands = [part.splitlines() for part in text.split("-m\ndistill\n")[1:]]
    assert "others" not in text
    given = [{flag: words[words.index(flag) + 1] for flag in ("--teacher", "--senses", "--student", "--layers", "--checkpoint") if flag in words}
             for words in commands if words[0] != "report"]
    teacher, senses, layers = {"--teacher": f"{out}/teacher/best"}, {"--senses": f"{out}/senses"}, "layers:0,2,4"
    assert given == [{}, teacher, {**teacher, **senses, "--student": layers}, {"--layers": layers}, {**teacher, **senses, "--student": layers},
                     {"--checkpoint": f"{out}/teacher", **senses}, {"--checkpoint": f"{out}/student", **senses}]


def test_mpdistil_trains_on_its_tasks(recorder, tmp_path):
    runs = tmp_path / "the runs"
    done = sh("scripts/mpdistil.sh", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: sh scripts/mpdistil.sh TASK") and "COPA" in done.stderr
    done = sh("scripts/mpdistil.sh", "copa", "--seed", 3, PYTHON=recorder, RUNS=runs, DATA="a folder", TASKS="WiC,WSC", MODEL="minilm")
    assert done.returncode == 0, done.stderr
    _, training = (tmp_path / "words").read_text().split("-m\ndistill\n")
    assert training.splitlines() == ["train", "mpdistil", "COPA", "--data_dir", "a folder", "--model", "minilm", "--tasks", "WiC,WSC",
                                     "--student", "truncate:half", "--output_dir", f"{runs}/COPA/mpdistil", "--seed", "3"]


def test_the_table_of_pre_training_has_a_fresh_head_in_every_row_and_fewer_runs_of_long_tasks(tmp_path):
    program, runs = tmp_path / "python", tmp_path / "runs"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/words"\n')
    program.chmod(0o755)
    done = sh("scripts/pretrain_table.sh", PYTHON=program, RUNS=runs, DATA="data", TEXT="aclImdb/train wiki.train.raw", TASKS="SST-2 CoLA", SEEDS="1 2",
              ROWS="encoder cut fresh distilbert without_kl constant", LONG_ROWS="cut constant", LONG_SEEDS="3", LONG_EPOCHS="0.5")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "words").read_text().splitlines()
    assert lines[0] == f"-m distill data pack aclImdb/train wiki.train.raw --tokenizer minilm --output_dir {runs}/corpus"
    tuned = [line.removeprefix("-m distill train finetune ").replace(f"{runs}/", "") for line in lines if "train finetune" in line]
    assert tuned == [f"{task} --data_dir data --model {model}/best --output_dir {task}/{row} --max_length 128{more} --seeds {seeds}" for task, row, model, more, seeds in (
        ("CoLA", "encoder", "head", "", "1 2"), ("SST-2", "cut", "teacher", " --num_train_epochs 0.5 --layers uniform:half", "3"),
        ("CoLA", "cut", "teacher", " --layers uniform:half", "1 2"), ("CoLA", "fresh", "head", " --layers uniform:half --random_init True", "1 2"),
        ("CoLA", "distilbert", "distilbert", "", "1 2"), ("CoLA", "without_kl", "without_kl", "", "1 2"))]
    assert [line.split(" constant ")[1] for line in lines if " constant " in line] == [f"{task} pretraining --data_dir data" for task in ("SST-2", "CoLA")]


@pytest.mark.parametrize("preset, student, launched", [("distilbert", [], False), ("head", ["--student", "my model"], False), ("distilbert", [], True)])
def test_pre_training_packs_whatever_is_there_and_gives_a_head_to_the_encoder_that_is_named(preset, student, launched, tmp_path):
    program, runs = tmp_path / "python of mine", tmp_path / "the runs"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/words"\n')
    program.chmod(0o755)
    (runs / "corpus").mkdir(parents=True)
    (runs / "corpus/corpus.json").write_text("{}")  # perhaps of another text: that is for `pack` to say
    (tmp_path / "launch.sh").write_text(f'[ "$1" = two ] && shift && exec "{program}" "$@"\n')
    launch = {"LAUNCH": f"sh {tmp_path}/launch.sh two"} if launched else {}
    done = sh("scripts/pretrain.sh", "--seed", 3, PYTHON=program, RUNS=runs, TEXT="a.txt b.txt", TEACHER="my model", PRESET=preset, **launch)
    assert done.returncode == 0, done.stderr
    packing, training = (tmp_path / "words").read_text().split("-m\ndistill\n")[1:]
    assert packing.splitlines() == ["data", "pack", "a.txt", "b.txt", "--tokenizer", "my model", "--output_dir", f"{runs}/corpus"]
    assert training.splitlines() == ["train", "pretrain", "text", "--corpus", f"{runs}/corpus", "--teacher", "my model", "--preset", preset,
                                     "--output_dir", f"{runs}/pretrain/{preset}", *student, "--seed", "3"]


@pytest.mark.parametrize("words, given, expected", [
    ([], {}, ["finetune", "SQuAD", "--data_dir", "a folder", "--model", "minilm", "--output_dir", "my runs/SQuAD/teacher"]),
    (["squad2", "--seed", 3], {}, ["finetune", "SQuAD2", "--data_dir", "a folder", "--model", "minilm", "--output_dir", "my runs/SQuAD2/teacher", "--seed", "3"]),
    (["--seed", 3], {"TEACHER": "tests"}, ["logit_kd", "SQuAD", "--data_dir", "a folder", "--teacher", "tests", "--student", "minilm",
                                          "--output_dir", "my runs/SQuAD/second_distillation", "--seed", "3"])])
def test_answers_in_a_text_are_trained_on_the_labels_or_with_a_teacher(words, given, expected, recorder, tmp_path):
    done = sh("scripts/finetune_squad.sh", *words, PYTHON=recorder, RUNS="my runs", DATA="a folder", MODEL="minilm", **given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "words").read_text().splitlines() == ["-m", "distill", "train", *expected]


def test_a_missing_teacher_of_answers_in_a_text_is_said(recorder, tmp_path):
    done, helped = (sh("scripts/finetune_squad.sh", word, PYTHON=recorder, TEACHER=tmp_path / "none") for word in ("tydiqa", "--help"))
    assert (done.returncode, helped.returncode) == (1, 2) and done.stderr.startswith(f"no teacher {tmp_path}/none: train one with MODEL=... sh scripts/finetune_squad.sh TyDiQA")
