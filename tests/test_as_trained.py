"""A checkpoint is read as it was trained: as many tokens of an example, its senses by the same similarity, from the same dictionary."""

import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_encoder
from tests.finished import edit
from tests.test_readme import README
from tests.test_recipes import build, student_words, teach
from tests.training import run

SHORT = 5  # tokens: most examples are cut


@pytest.fixture(scope="module")
def short(tiny_bert, tiny_glue, tmp_path_factory) -> Path:
    """Folder with a teacher that read SHORT tokens of an example, and its senses, which are chosen by distance."""
    out = tmp_path_factory.mktemp("short")
    teach(tiny_bert, "STS-B", tiny_glue, out, "--max_length", SHORT)
    build("STS-B", tiny_glue, out)
    return out


def evaluated(folder: Path, glue: Path, tmp_path: Path, *words) -> dict[str, dict]:
    """What `evaluate` says of a checkpoint, by what its head reads."""
    assert run("evaluate", "STS-B", "--checkpoint", folder, "--data_dir", glue, "--output", tmp_path / "scores", *words) == 0
    return json.loads((tmp_path / "scores").read_text())


def reached(folder: Path) -> dict[str, float]:
    """What a run says of itself."""
    return json.loads((folder / "scores.json").read_text())["values"]


def test_a_checkpoint_and_its_students_read_as_many_tokens_as_in_training(short, tiny_glue, tmp_path):
    assert run(*student_words("STS-B", tiny_glue, short, "student")) == 0
    assert run(*student_words("STS-B", tiny_glue, short, "longer", "--max_length", 16)) == 0
    for name, length in (("teacher", SHORT), ("student", SHORT), ("longer", 16)):
        assert load_encoder(short / name / "best").info.max_length == length
        assert evaluated(short / name, tiny_glue, tmp_path)["continuous states"]["values"] == pytest.approx(reached(short / name))
    whole = evaluated(short / "teacher", tiny_glue, tmp_path, "--max_length", 16)["continuous states"]["values"]
    assert whole != pytest.approx(reached(short / "teacher"), abs=0.01)


@pytest.mark.parametrize("head_input, reading", [("continuous", "continuous states"), ("senses", "chosen senses")])
def test_a_student_is_read_through_senses_by_the_similarity_that_it_learned(head_input, reading, short, tiny_glue, tmp_path, capsys):
    out = short / f"reads_{head_input}"
    assert run(*student_words("STS-B", tiny_glue, short, out.name, "--similarity", "dot", "--head_input", head_input)) == 0
    found = evaluated(out, tiny_glue, tmp_path, "--senses", short / "senses")
    assert found[reading]["values"] == pytest.approx(reached(out)) and found["chosen senses"]["similarity"] == "dot"
    assert "head reads chosen senses by dot:" in capsys.readouterr().out
    assert evaluated(out, tiny_glue, tmp_path, "--senses", short / "senses", "--similarity", "distance")["chosen senses"]["similarity"] == "distance"
    assert evaluated(short / "teacher", tiny_glue, tmp_path, "--senses", short / "senses")["chosen senses"]["similarity"] == "distance"


def test_senses_that_were_built_again_are_not_those_that_a_student_learned_from(short, tiny_glue, tmp_path, capsys, caplog):
    place = Path(shutil.copytree(short, tmp_path / "place"))
    words = student_words("STS-B", tiny_glue, place, "again")
    assert run(*words) == 0 and run(*words) == 0
    shutil.rmtree(place / "senses")
    build("STS-B", tiny_glue, place, "--num_senses", 2)
    assert run(*words) == 1 and "holds a run that read other senses and sense dictionary" in capsys.readouterr().err
    evaluated(place / "again", tiny_glue, tmp_path, "--senses", place / "senses")
    assert "are not those that" in caplog.text
    shutil.rmtree(place / "senses")
    build("STS-B", tiny_glue, place, "--layer", 1)
    assert run("evaluate", "STS-B", "--checkpoint", place / "teacher", "--data_dir", tiny_glue, "--senses", place / "senses") == 1
    assert "--senses were built from layer 1 of the teacher, and its last hidden states are compared" in capsys.readouterr().err


def test_a_finished_run_and_finished_senses_are_complete_only_while_their_data_are_the_same(short, tiny_glue, tmp_path, capsys):
    glue = Path(shutil.copytree(tiny_glue, tmp_path / "glue"))
    place = Path(shutil.copytree(short, tmp_path / "place"))
    words = ("senses", "build", "STS-B", "--teacher", place / "teacher/best", "--data_dir", glue, "--output_dir", tmp_path / "senses")
    student = student_words("STS-B", glue, place, "on_this")
    assert run(*words) == 0 and run(*student) == 0
    with (glue / "STS-B/train.tsv").open("a") as file:
        file.write((glue / "STS-B/train.tsv").read_text().splitlines()[-1] + "\n")
    assert run(*words) == 1 and "holds a run that read other corpus" in capsys.readouterr().err
    assert run(*student) == 1 and "holds a run that read other data" in capsys.readouterr().err


# ---- as a teacher


def reordered(folder: Path, made: Path) -> Path:
    """The checkpoint with its two labels, and what answers for them, the other way round."""
    encoder = load_encoder(folder)
    encoder.order_labels(encoder.info.labels[::-1])
    made.mkdir()
    encoder.save(made)
    return made


def test_labels_in_another_order_are_refused_of_a_teacher_and_brought_into_order(tiny_bert, tiny_glue, tmp_path, capsys):
    taught = teach(tiny_bert, "CoLA", tiny_glue, tmp_path) / "best"
    other = reordered(taught, tmp_path / "other")
    words = ("train", "logit_kd", "CoLA", "--data_dir", tiny_glue, "--output_dir", tmp_path / "student", "--max_steps", 2, "--teacher")
    assert run(*words, other) == 1
    assert f"convert CoLA {other} FOLDER` brings them into order" in capsys.readouterr().err and not (tmp_path / "student").exists()
    assert run("convert", "CoLA", other, tmp_path / "converted", "--data_dir", tiny_glue) == 0
    ours, theirs = (load_encoder(folder) for folder in (taught, tmp_path / "converted"))
    assert ours.info.labels == theirs.info.labels and load_encoder(other).info.labels == ours.info.labels[::-1]
    assert all(torch.equal(one, another) for one, another in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not torch.equal(ours.head.out.weight, load_encoder(other).head.out.weight) and run(*words, tmp_path / "converted") == 0


def test_what_a_teachers_head_reads_is_part_of_what_a_run_and_a_cache_are_made_from(short, tiny_glue, tmp_path, capsys):
    teacher = Path(shutil.copytree(short / "teacher/best", tmp_path / "teacher"))
    words = ("train", "logit_kd", "STS-B", "--data_dir", tiny_glue, "--max_steps", 9, "--teacher", teacher, "--cache_dir", tmp_path / "cache", "--output_dir")
    assert run(*words, tmp_path / "one") == 0
    edit(teacher / "task.json", pooling="mean" if load_encoder(teacher).info.pooling != "mean" else "cls")
    assert run(*words, tmp_path / "one") == 1 and "read other teacher's head" in capsys.readouterr().err
    assert run(*words, tmp_path / "two") == 0 and len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2


def test_readmes_example_of_using_a_result_runs(tiny_bert, tiny_glue, tmp_path, capsys):
    teach(tiny_bert, "SST-2", tiny_glue, tmp_path)
    (example,) = re.findall(r"((?:    .*\n|\n)*    print\(\[encoder.*\n)", README)
    exec(textwrap.dedent(example).replace("runs/SST-2/student/best", str(tmp_path / "teacher/best")), {})
    assert capsys.readouterr().out.splitlines()[-1] in ("['negative']", "['positive']")
