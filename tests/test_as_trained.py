"""A checkpoint is read as it was trained: as many tokens of an example, its senses by the same similarity, from the same dictionary."""

import json
import shutil
from pathlib import Path

import pytest

from models.checkpoint import load_encoder
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
