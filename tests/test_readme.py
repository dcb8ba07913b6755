"""README says what is so: its tables come from the records, its commands and files exist."""

import re
from pathlib import Path

from data_utils.tasks import task_names
from distill.report import read_records
from distill.report.tables import render
from distill.verbs.report import all_tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_table_is_what_the_records_give():
    assert render(README, all_tables(ROOT / "scripts" / "results.jsonl", ROOT / "scripts" / "speed.jsonl")) == README


def test_every_script_that_it_names_exists():
    named = set(re.findall(r"\bsh ((?:scripts/)?\w+\.sh)", README))
    assert named >= {"scripts/quickstart.sh", "scripts/test.sh", "r1_teacher_model.sh", "run_eval_student.sh"}
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_file_of_code_that_it_names_exists():
    named = set(re.findall(r"\b((?:data_utils|models|distill|tests)/[\w/]+\.py)", README))
    assert len(named) >= 5 and [name for name in named - {"distill/recipes/yours.py"} if not (ROOT / name).is_file()] == []


def test_a_number_that_is_made_again_has_a_record():
    (named,) = re.findall(r"reproduce\.sh ([0-9a-f]{8})", README)
    (record,) = (record for record in read_records(ROOT / "scripts" / "results.jsonl") if record.id == named)
    assert not re.search("--(teacher|senses)", record.command), "nothing that another run makes"


def test_every_task_is_listed():
    assert [name for name in task_names() if name not in README] == []


def test_ci_runs_the_test_command():
    assert "sh scripts/test.sh" in README
    assert "sh scripts/test.sh" in (ROOT / ".ci" / "run").read_text()


def test_every_variable_of_the_scripts_is_explained():
    scripts = [path for path in ROOT.glob("*.sh")]
    variables = {name for path in scripts for name in re.findall(r"^(\w+)=\$\{\1:-", path.read_text(), re.MULTILINE)}
    assert variables >= {"DATA", "MODEL", "RUNS"}
    assert [name for name in variables - {"PYTHON"} if f"`{name}`" not in README] == []
