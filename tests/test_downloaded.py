"""Downloaded checkpoints and dictionaries through `evaluate` and open_checkpoint: their logits, their pooling, their traps."""

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils.encode import encode
from data_utils.metrics import compute_metrics
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.evaluate import predict
from distill.senses.dictionary import SenseDictionary
from models.checkpoint import load_encoder
from models.downloaded import open_checkpoint
from tests.published_formats import Hostile, find_downloads, model_state, write_downloads

MRPC = get_task("MRPC")
WHOLE = 512  # tokens: some real rows are longer than the task's usual cut, and their expected logits are those of the whole
READINGS = {"teacher": ("teacher", None), "teacher_with_senses": ("teacher", "teacher_senses"),
            "student_with_senses": ("student", "student_senses")}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_downloads(tmp_path_factory.mktemp("downloads"))


@pytest.fixture(params=["written", pytest.param("real", marks=pytest.mark.realdata)])
def downloads(request, written, shared):
    return written if request.param == "written" else find_downloads(shared / "downloaded_formats")


@pytest.fixture
def copy(written, tmp_path):
    """The written downloads where a test may change them."""
    return find_downloads(Path(shutil.copytree(written.teacher.parents[3], tmp_path / "copy")))


def glue(downloads) -> Path:
    return downloads.teacher.parents[3] / "glue"


def evaluate(downloads, *words) -> int:
    return main([str(word) for word in ("evaluate", "MRPC", "--data_dir", glue(downloads), *words)])


def refused(capsys, downloads, *words) -> str:
    """The one line with which `evaluate` refuses these words."""
    capsys.readouterr()
    assert evaluate(downloads, *words) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error:") and not captured.out
    return line


def expected_scores(downloads, column: str) -> dict[str, float]:
    """The metrics of the expected logits on the dev file."""
    targets = [example.target for example in read_examples(MRPC, "dev", glue(downloads))]
    return compute_metrics(MRPC.metrics, np.array([row[column] for row in downloads.rows]).argmax(1), np.array(targets))


# ---- the numbers


@pytest.mark.parametrize("column", READINGS)
def test_opened_files_give_the_logits_of_the_published_programs(column, downloads):
    name, senses = READINGS[column]
    opened = open_checkpoint(getattr(downloads, name), "MRPC", MRPC.version, MRPC.texts, MRPC.labels, str(downloads.tokenizer))
    encoder = opened.encoder
    assert (encoder.info.pooling, opened.pooling_known) == ("first_token", False)
    if senses:
        encoder = encoder.with_head_input("senses", SenseDictionary.load(getattr(downloads, senses)).lookup())
    dataset = encode(read_examples(MRPC, "dev", glue(downloads)), encoder.tokenizer, WHOLE)
    logits = predict(encoder, dataset)
    expected = np.array([row[column] for row in downloads.rows])
    assert len(logits) == len(expected) == len(dataset)
    assert np.abs(logits - expected).max() < 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-2, "the rows are alike: the comparison shows nothing"


@pytest.mark.realdata
def test_all_96_real_rows_are_compared(shared):
    assert len(find_downloads(shared / "downloaded_formats").rows) == 96


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_evaluate_scores_a_download_plain_and_with_its_senses_as_the_published_programs_do(name, downloads, tmp_path, capsys):
    tokenizer = [] if name == "teacher" else ["--tokenizer", downloads.tokenizer.parent]
    senses = downloads.teacher_senses if name == "teacher" else downloads.student_senses
    assert evaluate(downloads, "--checkpoint", getattr(downloads, name), "--senses", senses, "--pooling", "first_token",
                    "--max_length", WHOLE, "--output", tmp_path / "scores.json", *tokenizer) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    columns = {"teacher": {"continuous states": "teacher", "chosen senses": "teacher_with_senses"},
               "student": {"chosen senses": "student_with_senses"}}[name]
    for reading, column in columns.items():
        assert found[reading]["values"] == pytest.approx(
            {f"dev/{metric}": value for metric, value in expected_scores(downloads, column).items()})
    lines = capsys.readouterr().out.splitlines()
    assert [bool(re.search(r"head reads (continuous states|chosen senses by dot): dev/f1 [\d.]+ \+- [\d.]+ \(n=\d+\)", line))
            for line in lines] == [True, True]


@pytest.mark.parametrize("reading, words", [("student_with_senses", ()), ("student_with_senses", ("--reading", "senses")), (None, ("--reading", "continuous"))])
def test_a_downloaded_students_answers_are_those_of_its_senses_unless_others_are_asked_for(reading, words, copy, tmp_path, caplog):
    caplog.set_level("INFO")
    lines = (glue(copy) / "MRPC/dev.tsv").read_text().splitlines()
    (glue(copy) / "MRPC/test.tsv").write_text("\n".join(["index\t#1 ID\t#2 ID\t#1 String\t#2 String", *(
        f"{row}\t{line.split(chr(9), 1)[1]}" for row, line in enumerate(lines[1:]))]) + "\n")
    assert evaluate(copy, "--checkpoint", copy.student, "--tokenizer", copy.tokenizer, "--senses", copy.student_senses, "--pooling", "first_token",
                    "--max_length", WHOLE, "--submission", tmp_path, *words) == 0
    answers = [int(line.split("\t")[1]) for line in (tmp_path / "MRPC.tsv").read_text().splitlines()[1:]]
    by_senses = np.array([row["student_with_senses"] for row in copy.rows]).argmax(1).tolist()
    assert (answers == by_senses) == bool(reading)
    assert f"MRPC.tsv, the head reading {'chosen senses' if reading else 'continuous states'}" in caplog.text


def test_a_negative_length_is_refused(copy, capsys):
    assert "--max_length -5: expected 0 or more" in refused(capsys, copy, "--checkpoint", copy.teacher, "--max_length", -5)


def test_a_reading_through_senses_needs_senses(copy, capsys):
    assert "--reading senses: the checkpoint has none of its own, give --senses" in refused(
        capsys, copy, "--checkpoint", copy.teacher, "--pooling", "first_token", "--reading", "senses")


# ---- pooling


def test_the_choice_of_an_unknown_pooling_is_said_with_both_scores(downloads, caplog):
    assert evaluate(downloads, "--checkpoint", downloads.teacher) == 0
    assert re.search(r"does not say what its head reads; on \d+ dev rows cls scores [\d.]+, first_token [\d.]+: taking "
                     r"(cls|first_token).*\(--pooling overrides\)", caplog.text)


def test_a_given_pooling_is_taken_without_a_probe_and_changes_the_scores(downloads, tmp_path, caplog):
    found = {}
    for pooling in ("cls", "first_token", "mean"):
        assert evaluate(downloads, "--checkpoint", downloads.teacher, "--pooling", pooling, "--max_length", WHOLE,
                        "--output", tmp_path / pooling) == 0
        found[pooling] = json.loads((tmp_path / pooling).read_text())["continuous states"]["values"]
    assert "does not say" not in caplog.text
    own = {f"dev/{metric}": value for metric, value in expected_scores(downloads, "teacher").items()}
    assert found["first_token"] == pytest.approx(own)
    assert len({tuple(values.values()) for values in found.values()}) > 1


@pytest.mark.parametrize("pooling", ["cls", "first_token"])
def test_the_probe_finds_the_pooling_with_which_the_labels_fit(pooling, written, tmp_path, caplog):
    """The dev labels are made from the model's own predictions under one pooling: that one is right on every row."""
    opened = open_checkpoint(written.teacher, "MRPC", MRPC.version, MRPC.texts, MRPC.labels)
    opened.encoder.info = replace(opened.encoder.info, pooling=pooling)
    examples = read_examples(MRPC, "dev", glue(written)) * 20
    answers = predict(opened.encoder, encode(examples, opened.encoder.tokenizer, MRPC.max_length)).argmax(1)
    (tmp_path / "MRPC").mkdir()
    rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *(
        "\t".join([str(answer), "1", "2", *example.texts]) for answer, example in zip(answers, examples, strict=True))]
    (tmp_path / "MRPC/dev.tsv").write_text("\n".join(rows) + "\n")
    assert main(["evaluate", "MRPC", "--data_dir", str(tmp_path), "--checkpoint", str(written.teacher),
                 "--output", str(tmp_path / "scores")]) == 0
    assert f"taking {pooling}" in caplog.text and "on 200 dev rows" in caplog.text
    assert ("against the format's convention" in caplog.text) == (pooling == "cls")
    assert json.loads((tmp_path / "scores").read_text())["continuous states"]["values"]["dev/accuracy"] == 1


# ---- traps


def test_a_hostile_checkpoint_or_dictionary_is_refused_by_name_and_not_run(copy, tmp_path, capsys, recwarn):
    marker = tmp_path / "marker"
    torch.save({"classifier.weight": Hostile(marker)}, copy.student)
    line = refused(capsys, copy, "--checkpoint", copy.student, "--tokenizer", copy.tokenizer)
    assert str(copy.student) in line and "posix.system" in line and "nothing in it was run" in line
    copy.teacher_senses.write_bytes(pickle.dumps({5: Hostile(marker)}))
    line = refused(capsys, copy, "--checkpoint", copy.teacher, "--senses", copy.teacher_senses)
    assert str(copy.teacher_senses) in line and "posix.system" in line
    copy.teacher.write_bytes(pickle.dumps(Hostile(marker)))
    assert "posix.system" in refused(capsys, copy, "--checkpoint", copy.teacher)
    assert not marker.exists() and not recwarn.list, "warnings are further lines on stderr"
    pickle.loads(pickle.dumps(Hostile(marker)))
    assert marker.exists(), "the trap itself is broken: the test shows nothing"


def test_a_hostile_dictionary_is_refused_by_senses_describe_and_import(copy, tmp_path, capsys):
    copy.student_senses.write_bytes(pickle.dumps({5: Hostile(tmp_path / "marker")}))
    for words in (["describe", copy.student_senses], ["import", copy.student_senses, tmp_path / "out.safetensors"]):
        assert main(["senses", *map(str, words)]) == 1
        assert "posix.system" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"copy"}


def test_a_missing_dictionary_or_checkpoint_names_what_makes_it(written, tmp_path, capsys):
    line = refused(capsys, written, "--checkpoint", written.teacher, "--senses", tmp_path / "none.kmeanspkl")
    assert f"no sense dictionary {tmp_path / 'none.kmeanspkl'}" in line and "r2_construct_sense_dictionary.sh" in line
    line = refused(capsys, written, "--checkpoint", tmp_path / "none.bin")
    assert f"no checkpoint {tmp_path / 'none.bin'}" in line and "*.ckpt" in line


@pytest.mark.parametrize("name", ["teacher", "student", "teacher_senses", "tokenizer"])
@pytest.mark.parametrize("share", [0, 0.3, 0.97])
def test_a_truncated_file_gives_one_line_that_names_it(name, share, copy, capsys):
    path = getattr(copy, name)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    checkpoint = copy.student if name == "student" else copy.teacher
    line = refused(capsys, copy, "--checkpoint", checkpoint, "--senses", copy.teacher_senses, "--tokenizer", copy.tokenizer)
    assert str(path) in line


def test_a_wrong_number_of_labels_is_refused_with_both_numbers(copy, capsys):
    vocabulary = len(torch.load(copy.teacher, weights_only=True)["deberta.embeddings.word_embeddings.weight"])
    torch.save(model_state(vocabulary, hidden=128, layers=2, seed=1, num_labels=3), copy.teacher)
    line = refused(capsys, copy, "--checkpoint", copy.teacher)
    assert "has 3 outputs, MRPC needs 2" in line and str(copy.teacher) in line


def test_a_student_without_a_tokenizer_asks_for_the_teachers(written, tmp_path, capsys):
    line = refused(capsys, written, "--checkpoint", written.student)
    assert "no spm.model beside" in line and "--tokenizer" in line
    assert "no such file" in refused(capsys, written, "--checkpoint", written.student, "--tokenizer", tmp_path / "spm.model")


def test_a_dictionary_of_another_width_is_refused_with_both_widths(written, tmp_path, capsys):
    SenseDictionary.from_senses({5: torch.ones(2, 48)}, {}).save(tmp_path / "narrow.safetensors")
    line = refused(capsys, written, "--checkpoint", written.teacher, "--senses", tmp_path / "narrow.safetensors")
    assert "48 wide" in line and "reads 128" in line


def test_a_task_without_published_checkpoints_is_refused_by_name(written, tiny_glue, capsys):
    assert main(["evaluate", "WNLI", "--data_dir", str(tiny_glue), "--checkpoint", str(written.teacher)]) == 1
    assert "no published checkpoint for WNLI" in capsys.readouterr().err


# ---- as a teacher


@pytest.mark.parametrize("senses", ["built", "downloaded"])
def test_a_converted_download_answers_as_before_gets_senses_and_teaches(senses, copy, tmp_path, capsys):
    teacher = tmp_path / "teacher"
    words = ["convert", "MRPC", copy.teacher, teacher, "--data_dir", glue(copy), "--pooling", "first_token"]
    assert main([str(word) for word in words]) == 0 and f"TEACHER={teacher} sh r2" in capsys.readouterr().out
    encoder = load_encoder(teacher)
    logits = predict(encoder, encode(read_examples(MRPC, "dev", glue(copy)), encoder.tokenizer, WHOLE))
    assert np.abs(logits - np.array([row["teacher"] for row in copy.rows])).max() < 1e-5
    shutil.copy(glue(copy) / "MRPC/dev.tsv", glue(copy) / "MRPC/train.tsv")
    of_teacher = copy.teacher_senses
    if senses == "built":
        of_teacher = tmp_path / "senses"
        assert main([str(word) for word in ("senses", "build", "MRPC", "--teacher", teacher, "--data_dir", glue(copy), "--num_senses", 2,
                                            "--output_dir", of_teacher)]) == 0
    assert main([str(word) for word in ("train", "sense_kd", "MRPC", "--teacher", teacher, "--senses", of_teacher, "--data_dir", glue(copy),
                                        "--output_dir", tmp_path / "student", "--max_steps", 2)]) == 0
    assert load_encoder(tmp_path / "student/best").depth == 1
    assert main([str(word) for word in words]) == 1 and "is there already" in capsys.readouterr().err


def test_who_takes_a_download_for_a_teacher_is_told_to_convert_it(copy, tmp_path, capsys):
    for teacher in (copy.teacher, copy.teacher.parent):
        assert main(["senses", "build", "MRPC", "--teacher", str(teacher), "--data_dir", str(glue(copy)), "--output_dir", str(tmp_path / "senses")]) == 1
        assert f"`python -m distill convert TASK {copy.teacher} FOLDER`" in capsys.readouterr().err


def test_what_a_converted_head_reads_is_probed_where_it_is_not_given(copy, tmp_path, caplog):
    assert main(["convert", "MRPC", str(copy.teacher), str(tmp_path / "teacher"), "--data_dir", str(glue(copy))]) == 0
    assert "does not say what its head reads" in caplog.text and load_encoder(tmp_path / "teacher").info.pooling in ("cls", "first_token")
