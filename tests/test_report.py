"""Records and the tables rendered from them."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from distill.report import Record, read_records, write_records
from distill.report.paired import mean_and_error
from distill.report.tables import render, table, tables_of


def record(row: str, value: float, seed: int, task: str = "MRPC", metric: str = "f1") -> Record:
    return Record("main", row, task, 1, "dev", metric, value, 408, 0.02, seed, "finetune", "python -m distill train finetune",
                  "abc", "0123", "cpu", 1.0)


def test_the_error_over_seeds_is_the_sample_deviation_over_root_n():
    mean, error = mean_and_error([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2)
    assert error == pytest.approx(0.1 / 3 ** 0.5)
    assert mean_and_error([0.5]) == (0.5, None)


def test_a_cell_gives_mean_error_and_number_of_seeds_and_a_missing_one_is_a_dash():
    rendered = table([record("teacher", 0.80, 1), record("teacher", 0.82, 2), record("student", 0.7, 1, task="CoLA")])
    assert "| teacher | 81.0 ± 1.0 (2) | - |" in rendered
    assert "| student | - | 70.0 (1) |" in rendered


def test_a_record_replaces_the_one_that_says_the_same_and_no_other(tmp_path):
    path = tmp_path / "results.jsonl"
    write_records(path, [record("teacher", 0.8, 1), record("teacher", 0.9, 2)])
    write_records(path, [record("teacher", 0.85, 1)])
    assert sorted(entry.value for entry in read_records(path)) == [0.85, 0.9]


def test_pipelines_side_by_side_lose_no_record(tmp_path):
    path = tmp_path / "results.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: write_records(path, [record("teacher", 0.8, seed)]), range(40)))
    assert sorted(entry.seed for entry in read_records(path)) == list(range(40))


def test_a_line_that_is_no_record_is_named_with_its_number(tmp_path):
    path = tmp_path / "results.jsonl"
    content = asdict(record("teacher", 0.8, 1))
    path.write_text(json.dumps(content) + "\n" + json.dumps({"row": "teacher"}) + "\n")
    with pytest.raises(ValueError, match="results.jsonl:2"):
        read_records(path)


def test_rendering_replaces_the_marked_lines_only_and_refuses_an_unknown_table():
    text = "before\n<!-- table main -->\nold\n<!-- end -->\nafter\n"
    rendered = render(text, tables_of([record("teacher", 0.8, 1)]))
    assert rendered.startswith("before\n<!-- table main -->\n| | MRPC dev, f1 |") and rendered.endswith("<!-- end -->\nafter\n")
    assert "old" not in rendered
    with pytest.raises(ValueError, match="other"):
        render(text.replace("main", "other"), tables_of([record("teacher", 0.8, 1)]))
