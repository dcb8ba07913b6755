"""What a user can do wrong: one clear line, a status that is not zero, nothing half-written, never a traceback."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill import engine
from distill.__main__ import main
from distill.senses.dictionary import FILE
from tests.training import fill_disk, prepare_processes, start

ROOT = Path(__file__).resolve().parents[1]


def teacher_words(model: Path, glue: Path, out: Path, *words) -> list[str]:
    return [str(word) for word in ("train", "finetune", "CoLA", "--model", model, "--data_dir", glue, "--output_dir", out,
                                   "--max_steps", 4, "--train_batch_size", 16, *words)]


@pytest.fixture(scope="module")
def made(tiny_bert, tiny_glue, tmp_path_factory):
    """Folder with a teacher and its senses."""
    prepare_processes()
    out = tmp_path_factory.mktemp("made")
    assert main(teacher_words(tiny_bert, tiny_glue, out / "teacher")) == 0
    assert main(["senses", "build", "CoLA", "--teacher", str(out / "teacher/best"), "--data_dir", str(tiny_glue),
                 "--output_dir", str(out / "senses"), "--num_senses", "4"]) == 0
    return out


@pytest.fixture
def glue(tiny_glue, tmp_path):
    """The tiny tasks, where a test may damage them."""
    return Path(shutil.copytree(tiny_glue, tmp_path / "glue"))


def run(capsys, *words) -> tuple[int, list[str]]:
    """Status and lines on stderr; an exception that reaches the user fails here."""
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as end:  # argparse
        status = end.code
    return status, capsys.readouterr().err.splitlines()


def refused(capsys, *words) -> str:
    """The one line with which these words are refused."""
    status, lines = run(capsys, *words)
    assert status == 1 and len(lines) == 1 and lines[0].startswith("error: "), (status, lines)
    return lines[0]


def assert_nothing_half_written(folder: Path) -> None:
    for pattern in ("DONE", "*.tmp", "*.old", FILE, "model.safetensors"):
        assert not list(folder.rglob(pattern)), list(folder.rglob(pattern))


# ---- names


def test_an_unknown_verb_recipe_task_or_setting_is_answered_with_the_nearest_and_the_list(made, tiny_bert, tiny_glue, tmp_path, capsys):
    status, lines = run(capsys, "trian", "finetune")
    assert status == 2 and "unknown verb 'trian': did you mean train?" in lines[0]
    line = refused(capsys, "train", "finetun", "CoLA")
    assert "unknown recipe 'finetun': did you mean finetune?" in line and "sense_kd" in line
    for words in (["train", "finetune", "MRCP"], ["senses", "build", "MRCP"], ["evaluate", "MRCP", "--checkpoint", tmp_path],
                  ["data", "name", "MRCP"]):
        line = refused(capsys, *words)
        assert "unknown task 'MRCP'; nearest: MRPC" in line and "STS-B" in line
    line = refused(capsys, *teacher_words(tiny_bert, tiny_glue, tmp_path / "out", "--learning_rat", 1))
    assert "unknown setting '--learning_rat': did you mean --learning_rate?" in line
    assert "unknown preset 'larg'" in refused(capsys, *teacher_words(tiny_bert, tiny_glue, tmp_path / "out", "--preset", "larg"))
    assert "expected one of cls, first_token, mean" in refused(capsys, *teacher_words(tiny_bert, tiny_glue, tmp_path / "out", "--pooling", "max"))
    assert_nothing_half_written(tmp_path)


@pytest.mark.parametrize("words", [[], ["train"], ["train", "finetune"], ["senses"], ["senses", "mend"], ["evaluate", "CoLA"], ["data"],
                                   ["train", "finetune", "CoLA", "--model", "TINY", "--max_steps", "many"]])
def test_missing_words_and_values_of_another_type_are_status_two_and_end_in_a_line_that_says_so(words, tiny_bert, capsys):
    status, lines = run(capsys, *[tiny_bert if word == "TINY" else word for word in words])
    assert status == 2 and 0 < len(lines) < 12 and "Traceback" not in "".join(lines)


@pytest.mark.parametrize("setting, value, said", [
    ("learning_rate", 0, "expected a number above 0"), ("train_batch_size", -1, "above 0"), ("warmup_ratio", 1, "0 up to"),
    ("max_steps", -1, "0 or more"), ("optimizer", "sgd", "adamw"), ("lr_scheduler_type", "sqrt", "cosine"), ("layers", "first", "truncate:N"),
    ("layers", "truncate:9", "4 layers")])
def test_a_setting_that_makes_no_sense_is_refused_before_anything_is_written(setting, value, said, tiny_bert, tiny_glue, tmp_path, capsys):
    assert said in refused(capsys, *teacher_words(tiny_bert, tiny_glue, tmp_path / "out", f"--{setting}", value))
    assert_nothing_half_written(tmp_path)


# ---- what is not there


def test_a_missing_data_folder_or_file_names_it_and_the_command_that_fetches_it(tiny_bert, glue, tmp_path, capsys):
    line = refused(capsys, *teacher_words(tiny_bert, tmp_path / "none", tmp_path / "out"))
    assert str(tmp_path / "none") in line and "data_utils/download_glue_data.py" in line
    (glue / "CoLA/dev.tsv").unlink()
    line = refused(capsys, *teacher_words(tiny_bert, glue, tmp_path / "out"))
    assert str(glue / "CoLA/dev.tsv") in line and "download_glue_data.py" in line and "--tasks CoLA" in line
    assert not (tmp_path / "out").exists()


def test_a_missing_teacher_or_dictionary_names_the_script_that_makes_it(made, tiny_glue, tmp_path, capsys):
    none, out = tmp_path / "none", ["--data_dir", tiny_glue, "--output_dir", tmp_path / "out"]
    for words in (["senses", "build", "CoLA", "--teacher", none], ["train", "sense_kd", "CoLA", "--teacher", none, "--senses", made / "senses"],
                  ["train", "sense_kd", "CoLA", "--teacher", "runs/teacher", "--senses", made / "senses"]):
        line = refused(capsys, *words, *out)
        assert "no checkpoint in" in line and "r1_teacher_model.sh" in line
    for words in (["train", "sense_kd", "CoLA", "--teacher", made / "teacher/best", "--senses", none, *out],
                  ["evaluate", "CoLA", "--checkpoint", made / "teacher", "--senses", none, "--data_dir", tiny_glue]):
        line = refused(capsys, *words)
        assert f"no sense dictionary {none}" in line and "r2_construct_sense_dictionary.sh" in line
    assert not (tmp_path / "out").exists()
    line = refused(capsys, "senses", "build", "CoLA", "--teacher", made / "teacher", *out)
    assert f"is a run directory: give the checkpoint in it, {made / 'teacher'}/best" in line


# ---- data that is not as expected


BAD_ROWS = {
    "empty file": (None, "CoLA/train.tsv", "expected"),
    "wrong column count": (b"src\t1\tgood film\n", "train.tsv:49:", "expected 4 tab-separated fields"),
    "unknown label": (b"src\tmaybe\t\tgood film\n", "train.tsv:49:", "expected a label among 0, 1"),
    "no UTF-8": (b"src\t1\t\tcaf\xe9\n", "train.tsv:49:", "0xe9"),
    "10,000 words": (b"src\t1\t\t" + b"good " * 10000 + b"\n", "train.tsv:49:", "found 10000"),
    "empty sentence": (b"src\t1\t\t \n", "train.tsv:49:", "found an empty one"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_bad_row_stops_every_verb_with_file_line_expected_and_found(what, made, tiny_bert, glue, tmp_path, capsys):
    (row, where, said), in_dev = BAD_ROWS[what], BAD_ROWS[what][1].replace("train", "dev").replace(":49:", ":17:")
    for split in ("train", "dev"):
        path = glue / f"CoLA/{split}.tsv"
        path.write_bytes(b"" if row is None else path.read_bytes() + row)
    for words in (teacher_words(tiny_bert, glue, tmp_path / "out"),
                  ["senses", "build", "CoLA", "--teacher", made / "teacher/best", "--data_dir", glue, "--output_dir", tmp_path / "out"],
                  ["train", "sense_kd", "CoLA", "--teacher", made / "teacher/best", "--senses", made / "senses", "--data_dir", glue,
                   "--output_dir", tmp_path / "out"]):
        line = refused(capsys, *words)
        assert (where in line or in_dev in line) and said in line and "expected" in line and len(line) < 600
    line = refused(capsys, "evaluate", "CoLA", "--checkpoint", made / "teacher", "--data_dir", glue, "--output", tmp_path / "scores")
    assert in_dev in line and not (tmp_path / "scores").exists()
    assert_nothing_half_written(tmp_path)


def test_five_thousand_words_are_read_and_one_more_is_not(made, glue, capsys):
    path = glue / "CoLA/dev.tsv"
    before = path.read_text()
    for count, status in ((5000, 0), (5001, 1)):
        path.write_text(before + "src\t1\t\t" + " ".join(["good"] * count) + "\n")
        assert run(capsys, "evaluate", "CoLA", "--checkpoint", made / "teacher", "--data_dir", glue, "--max_length", 32)[0] == status


# ---- disk


def test_a_full_disk_while_saving_keeps_the_checkpoint_before_and_the_same_command_goes_on(small_disk, tiny_bert, tiny_glue, tmp_path, capsys):
    words = ["--learning_rate", 3e-3, "--eval_steps", 2, "--max_steps", 8]
    undisturbed, out = teacher_words(tiny_bert, tiny_glue, tmp_path / "whole", *words), small_disk / "run"
    assert main(undisturbed) == 0
    command = teacher_words(tiny_bert, tiny_glue, out, *words)

    whole, ballast = engine.save_last, []

    def save(training, run_dir, keep):
        if training.step == 4:
            ballast.append(fill_disk(small_disk, leave=60_000))
        whole(training, run_dir, keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "save_last", save)
        line = refused(capsys, *command)
    assert f"cannot write {out / 'last'}" in line and "free some space" in line and "What was saved before is kept" in line
    assert not list(small_disk.rglob("*.tmp")) and not (out / "DONE").exists()
    assert main(["evaluate", "CoLA", "--checkpoint", str(out / "last"), "--data_dir", str(tiny_glue)]) == 0  # of step 2
    ballast[0].unlink()
    assert main(command) == 0
    for name in ("best", "last"):
        assert (out / name / "model.safetensors").read_bytes() == (tmp_path / "whole" / name / "model.safetensors").read_bytes()


def test_a_full_disk_while_building_senses_is_said_and_the_same_command_goes_on(small_disk, made, tiny_glue, capsys):
    ballast = fill_disk(small_disk, leave=40_000)
    words = ["senses", "build", "CoLA", "--teacher", made / "teacher/best", "--data_dir", tiny_glue, "--output_dir", small_disk / "out",
             "--num_senses", 4]
    line = refused(capsys, *words)
    assert "cannot write" in line or "No space left" in line
    assert not list(small_disk.rglob("*.tmp")) and not list(small_disk.rglob("DONE"))
    ballast.unlink()
    assert run(capsys, *words)[0] == 0
    assert (small_disk / "out" / FILE).read_bytes()[-1000:] == (made / "senses" / FILE).read_bytes()[-1000:]


def test_an_output_folder_that_cannot_be_used_is_said(tiny_bert, tiny_glue, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = refused(capsys, *teacher_words(tiny_bert, tiny_glue, tmp_path / "file/run"))
    assert f"cannot use the run directory {tmp_path / 'file/run'}" in line


def limited(words: list[str], said: Path) -> None:
    """The program where no file may grow beyond 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    with said.open("w") as file, contextlib.redirect_stderr(file):
        sys.exit(main(words))


def test_a_file_size_limit_while_saving_gives_one_line(tiny_bert, tiny_glue, tmp_path):
    """A process of its own, as under `ulimit -f`."""
    process = start(limited, teacher_words(tiny_bert, tiny_glue, tmp_path / "out"), tmp_path / "said")
    process.join(120)
    assert process.exitcode == 1
    (line,) = [line for line in (tmp_path / "said").read_text().splitlines() if not line.startswith(("settings:", "training "))]
    assert line.startswith("error: cannot write")
    assert_nothing_half_written(tmp_path)


# ---- checkpoints


def test_a_last_checkpoint_that_cannot_be_read_is_named_with_what_to_remove(tiny_bert, tiny_glue, tmp_path, capsys):
    command = teacher_words(tiny_bert, tiny_glue, tmp_path / "out")
    assert main(command) == 0
    (tmp_path / "out/DONE").unlink()
    for file in ("trainer_state.pt", "model.safetensors"):
        path = tmp_path / "out/last" / file
        data = path.read_bytes()
        path.write_bytes(data[:len(data) // 2])
        line = refused(capsys, *command)
        assert str(path) in line
        path.write_bytes(data)
    assert main(command) == 0


def test_a_teacher_that_cannot_be_read_is_named(made, tiny_glue, tmp_path, capsys):
    teacher = Path(shutil.copytree(made / "teacher/best", tmp_path / "teacher"))
    data = (teacher / "model.safetensors").read_bytes()
    (teacher / "model.safetensors").write_bytes(data[:1000])
    words = ["--teacher", teacher, "--data_dir", tiny_glue, "--output_dir", tmp_path / "out"]
    for verb in (["senses", "build", "CoLA"], ["train", "sense_kd", "CoLA", "--senses", made / "senses"]):
        line = refused(capsys, *verb, *words)
        assert str(teacher / "model.safetensors") in line and "truncated" in line
    assert not (tmp_path / "out").exists()


def test_senses_of_another_teacher_or_layer_are_refused_by_those_who_distil_and_read_where_the_teacher_moved(made, tiny_bert, tiny_glue, tmp_path, capsys):
    assert main(teacher_words(tiny_bert, tiny_glue, tmp_path / "other", "--seed", 1)) == 0
    assert main(["senses", "build", "CoLA", "--teacher", str(made / "teacher/best"), "--data_dir", str(tiny_glue), "--output_dir",
                 str(tmp_path / "senses"), "--layer", "1"]) == 0
    words = ["train", "sense_kd", "CoLA", "--data_dir", tiny_glue, "--output_dir", tmp_path / "out", "--max_steps", 1]
    assert "another teacher" in refused(capsys, *words, "--teacher", tmp_path / "other/best", "--senses", made / "senses")
    assert "from layer 1 of the teacher" in refused(capsys, *words, "--teacher", made / "teacher/best", "--senses", tmp_path / "senses")
    assert not (tmp_path / "out").exists()
    shutil.copytree(made / "teacher/best", tmp_path / "moved")
    assert run(capsys, *words, "--teacher", tmp_path / "moved", "--senses", made / "senses")[0] == 0


# ---- the hub


HUB_SCRIPT = """
import sys, time
from distill.recipes import finetune
from distill.__main__ import main
for words in (["--data_dir", sys.argv[1]], ["--model", sys.argv[2]]):
    started = time.monotonic()
    status = main(["train", "finetune", "CoLA", "--output_dir", "out", *words])
    print(status, time.monotonic() - started)
"""


@pytest.mark.parametrize("offline", [False, True])
def test_an_unreachable_hub_is_answered_within_seconds_with_what_to_do(offline, tiny_bert, tiny_glue, tmp_path):
    """First the model is not there, then the data."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:9"} | (
        {"HF_HUB_OFFLINE": "1"} if offline else {})
    done = subprocess.run([sys.executable, "-c", HUB_SCRIPT, tiny_glue, tiny_bert], cwd=tmp_path, env=environment, capture_output=True, text=True)
    ends = [line.split() for line in done.stdout.splitlines()]
    assert [status for status, _ in ends] == ["1", "1"] and all(float(seconds) < 15 for _, seconds in ends), done.stderr
    model, data = [line for line in done.stderr.splitlines() if not line.startswith("settings:")]
    assert model.startswith("error: ") and "microsoft/deberta-v3-large" in model and "minilm" in model
    assert data.startswith("error: ") and "download_glue_data.py" in data and "--data_dir" in data
    assert not (tmp_path / "out").exists()


def test_a_python_without_what_is_needed_is_told_of_the_set_up():
    done = subprocess.run([sys.executable, "-S", "-m", "distill", "train", "finetune", "CoLA"], capture_output=True, text=True, cwd=ROOT)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: No module named ") and "sh scripts/setup.sh" in line
