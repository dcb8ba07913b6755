"""Submission files: the leaderboard's header, names and values, for every kind of task."""

import numpy as np
import pytest

from data_utils.tasks import get_task
from distill.__main__ import main
from data_utils.submission import table_text


def test_classes_are_spelled_as_the_leaderboard_spells_them():
    assert table_text(get_task("MRPC"), np.array([0, 1])) == "index\tprediction\n0\t0\n1\t1\n"
    assert table_text(get_task("MNLI"), np.array([2])) == "index\tprediction\n0\tcontradiction\n"
    assert table_text(get_task("RTE"), np.array([1])) == "index\tprediction\n0\tnot_entailment\n"
    assert table_text(get_task("WNLI"), np.array([1])) == "index\tprediction\n0\t1\n"


def test_scores_have_three_decimals_and_stay_in_their_range():
    assert table_text(get_task("STS-B"), np.array([-0.2, 2.34567, 5.4])) == "index\tprediction\n0\t0.000\n1\t2.346\n2\t5.000\n"


def write_mnli(folder):
    """MNLI with three labels, and AX, in the official columns."""
    for name in ("MNLI", "diagnostic"):
        (folder / name).mkdir(parents=True)
    head = ["index", "promptID", "pairID", "genre", "s1_binary_parse", "s2_binary_parse", "s1_parse", "s2_parse", "sentence1", "sentence2"]
    rows = [[str(row), "p", "q", "fiction", "", "", "", "", "the film was good .", "a day of rain was sad ."] for row in range(6)]
    labels = ["entailment", "neutral", "contradiction"] * 2
    files = {"train": ["label1", "gold_label"], "dev_matched": [*(f"label{n}" for n in range(1, 6)), "gold_label"]}
    files["dev_mismatched"] = files["dev_matched"]
    for split, columns in files.items():
        lines = ["\t".join(head + columns)] + ["\t".join(row + [label] * len(columns)) for row, label in zip(rows, labels)]
        (folder / "MNLI" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    for split in ("test_matched", "test_mismatched"):
        (folder / "MNLI" / f"{split}.tsv").write_text("\n".join("\t".join(row) for row in [head, *rows[:4]]) + "\n")
    (folder / "diagnostic" / "diagnostic.tsv").write_text("index\tsentence1\tsentence2\n0\tthe film\twas sad .\n1\ta bank\ta tree .\n")
    return folder


@pytest.fixture(scope="module")
def mnli(tiny_bert, tmp_path_factory):
    """A data folder with MNLI and AX, and an MNLI model trained there for two steps."""
    folder = tmp_path_factory.mktemp("mnli")
    assert main(["train", "finetune", "mnli", "--model", str(tiny_bert), "--data_dir", str(write_mnli(folder / "glue")),
                 "--output_dir", str(folder / "run"), "--max_steps", "2"]) == 0
    return folder


def test_mnli_is_scored_apart_and_submitted_in_two_files(mnli, capsys):
    assert main(["evaluate", "MNLI", "--checkpoint", str(mnli / "run"), "--data_dir", str(mnli / "glue"),
                 "--submission", str(mnli / "out")]) == 0
    printed = capsys.readouterr().out
    assert "dev_matched/accuracy" in printed and "dev_mismatched/accuracy" in printed
    for name in ("MNLI-m.tsv", "MNLI-mm.tsv"):
        lines = (mnli / "out" / name).read_text().splitlines()
        assert len(lines) == 5 and lines[0] == "index\tprediction"
        assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "neutral", "contradiction"}


def test_ax_is_predicted_by_the_mnli_model_and_cannot_be_scored(mnli, capsys):
    words = ["evaluate", "AX", "--checkpoint", str(mnli / "run"), "--data_dir", str(mnli / "glue")]
    assert main(words) == 1 and "--submission" in capsys.readouterr().err
    assert main([*words, "--submission", str(mnli / "out")]) == 0
    assert len((mnli / "out" / "AX.tsv").read_text().splitlines()) == 3
