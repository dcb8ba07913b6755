"""Shared by the tests of dictionaries: a teacher, and a dictionary of it."""

import pytest

from distill.__main__ import main
from distill.senses.dictionary import FILE
from tests import tiny
from tests.test_senses.builds import built
from tests.training import prepare_processes


@pytest.fixture(scope="session")
def made(tiny_bert, tmp_path_factory):
    """Folder with a CoLA task that has rare words, and a teacher of it."""
    prepare_processes()
    out = tmp_path_factory.mktemp("senses")
    glue = tiny.write_glue(out / "glue")
    with (glue / "CoLA/train.tsv").open("a") as file:
        file.write("src\t1\t\t" + "the man [MASK] ugly .\n" + "src\t0\t\tugly [MASK] tree .\n")  # a type with two occurrences
    assert main(["train", "finetune", "CoLA", "--model", str(tiny_bert), "--data_dir", str(glue), "--output_dir",
                 str(out / "teacher"), "--max_steps", "2"]) == 0
    return out


@pytest.fixture(scope="session")
def undisturbed(made):
    """The bytes of the dictionary that a build gives which nothing disturbs."""
    built(made, made / "undisturbed")
    return (made / "undisturbed" / FILE).read_bytes()
