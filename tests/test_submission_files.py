"""Submission files of SuperGLUE: what is written is in its format, and what is not is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_utils import submission
from data_utils.readers import read_rows
from data_utils.tasks import get_task
from distill.submission import write_submission
from models.checkpoint import load_encoder
from tests.training import run


@pytest.mark.parametrize("name", ["COPA", "MultiRC", "ReCoRD", "RTE"])
def test_a_submission_answers_what_the_test_split_asks(name, superglue_teachers, superglue, tmp_path):
    assert run("evaluate", name, "--checkpoint", superglue_teachers[name], "--data_dir", superglue, "--submission", tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    assert run("data", "submission", name, tmp_path / f"{name}.jsonl", "--data_dir", superglue) == 0
    assert [line["idx"] for line in lines] == list(range(6))
    if name == "MultiRC":
        assert lines[1]["passage"]["questions"][0].keys() == {"idx", "answers"} and [a["idx"] for a in lines[1]["passage"]["questions"][0]["answers"]] == [3, 4, 5]
        assert {answer["label"] for line in lines for answer in line["passage"]["questions"][0]["answers"]} <= {0, 1}
    elif name == "ReCoRD":
        texts = [json.loads(line)["passage"]["text"] for line in (superglue / "ReCoRD/test.jsonl").read_text().splitlines()]
        assert all(line["label"] in text.split()[1:-1] for line, text in zip(lines, texts, strict=True))
    else:
        assert {line["label"] for line in lines} <= ({0, 1} if name == "COPA" else {"entailment", "not_entailment"})
    if name == "RTE":
        assert (tmp_path / "RTE.tsv").read_text().startswith("index\tprediction\n0\t"), "RTE is in GLUE too"


def test_candidates_are_chosen_by_the_names_of_the_labels_not_by_their_order(superglue_teachers, superglue, tmp_path):
    encoder, task = load_encoder(superglue_teachers["ReCoRD"]), get_task("ReCoRD")
    (one,) = write_submission(encoder, task, str(superglue), tmp_path / "one")
    with torch.no_grad():
        encoder.head.out.weight.copy_(encoder.head.out.weight.flip(0).clone())
        encoder.head.out.bias.copy_(encoder.head.out.bias.flip(0).clone())
    encoder.info = replace(encoder.info, labels=encoder.info.labels[::-1])
    (other,) = write_submission(encoder, task, str(superglue), tmp_path / "other")
    assert one.read_text() == other.read_text()


SPELLED = {"boolq": ("false", "true"), "cb": ("entailment", "contradiction", "neutral"), "copa": (0, 1), "multirc": (0, 1), "wic": ("false", "true"),
           "wsc": ("False", "True"), "rte": ("entailment", "not_entailment"), "axb": ("entailment", "not_entailment"), "axg": ("entailment", "not_entailment")}


def test_classes_are_spelled_as_the_leaderboard_spells_them():
    for name, expected in SPELLED.items():
        task = get_task(name)
        assert tuple(submission.spelled(task, index) for index in range(task.num_labels)) == expected


def changed(lines: list[str], row: int, **fields) -> str:
    return "".join(line + "\n" for line in [*lines[:row], json.dumps({**json.loads(lines[row]), **fields}), *lines[row + 1:]])


WRONG = [
    ("WSC", lambda lines: "".join(line + "\n" for line in lines[:-1]), r"expected 6 answers, one to each of WSC test, found 5"),
    ("WSC", lambda lines: changed(lines, 2, label="true"), r"WSC\.jsonl:3: expected a label among 'False', 'True', found 'true'"),
    ("WSC", lambda lines: changed(lines, 2, idx=4), r"WSC\.jsonl:3: expected the answer to 2, found that to 4"),
    ("WSC", lambda lines: lines[0] + "\n[]\n", r"WSC\.jsonl:2: expected a record as WSC's leaderboard takes it"),
    ("COPA", lambda lines: changed(lines, 0, label="0"), r"COPA\.jsonl:1: expected a label among 0, 1, found '0'"),
    ("COPA", lambda lines: changed(lines, 0, label=True), r"COPA\.jsonl:1: expected a label among 0, 1, found True"),
    ("COPA", lambda lines: changed(lines, 1, idx=True), r"COPA\.jsonl:2: expected the answer to 1, found that to True"),
    ("MultiRC", lambda lines: changed(lines, 1, passage={"questions": []}), r"expected 18 answers, one to each of MultiRC test, found 15"),
    ("ReCoRD", lambda lines: changed(lines, 3, label="nobody"), r"ReCoRD\.jsonl:4: expected a label among .*, found 'nobody'"),
]


@pytest.mark.parametrize("name, spoil, message", WRONG, ids=range(len(WRONG)))
def test_a_submission_that_is_not_in_its_format_is_refused(name, spoil, message, superglue, tmp_path, capsys):
    task = get_task(name)
    rows = read_rows(task, "test", superglue)
    predicted = np.array([row % 3 == 0 for row in range(len(rows))], int)
    path = tmp_path / f"{name}.jsonl"
    path.write_text(submission.records_text(task, rows, predicted))
    assert run("data", "submission", name, path, "--data_dir", superglue) == 0
    path.write_text(spoil(path.read_text().splitlines()))
    assert run("data", "submission", name, path, "--data_dir", superglue) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("content, message", [
    ("index\tprediction\n0\tentailment\n", "expected 6 answers"), ("0\tentailment\n", r"RTE\.tsv:1: expected the header"),
    ("index\tprediction\n" + "".join(f"{row}\t1\n" for row in range(6)), r"RTE\.tsv:2: expected a label among 'entailment', 'not_entailment', found '1'"),
    ("index\tprediction\nzero\tentailment\n", r"RTE\.tsv:2: expected a row number, a tab and a label"), ("", r"RTE\.tsv:1: expected the header")])
def test_glues_tables_are_checked_too(content, message, superglue, tmp_path):
    (tmp_path / "RTE.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        submission.check_submission(get_task("RTE"), tmp_path / "RTE.tsv", str(superglue))
    with pytest.raises(ValueError, match="expected a file called RTE.tsv or RTE.jsonl"):
        submission.check_submission(get_task("RTE"), tmp_path / "rte.txt", str(superglue))
