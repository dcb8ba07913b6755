"""Records and the tables rendered from them."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data_utils.tasks import get_task
from distill.__main__ import main
from distill.report import Record, of_one_seed, read_records, write_records
from distill.report.constant import constant_of
from distill.report.tables import render, table, tables_of
from distill.scores import mean_and_error
from tests.finished import edit, write_run

ROOT = Path(__file__).resolve().parents[1]


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


def test_the_last_row_is_the_median_error_that_the_examples_bring():
    scored = [replace(record("teacher", 0.8, seed), stderr=error) for seed, error in enumerate((0.02, 0.03, 0.0))]
    assert table([*scored, record("teacher", 0.7, 1, task="CoLA")]).splitlines()[-1] == "| *one score, over examples* | ± 2.0 | ± 2.0 |"


def test_a_table_says_what_selected_and_of_how_many_evaluations_a_score_is_the_best():
    scored = [replace(record("long", 0.8, seed), selected_on="dev", evaluations=count) for seed, count in enumerate((40, 20))]
    scored += [record("old", 0.7, 1), *(replace(record("short", 0.7, 1, task=task), selected_on="heldout", evaluations=3) for task in ("MRPC", "CoLA"))]
    lines = table(scored, "old", "long").splitlines()
    assert [line.split("|")[-2].strip() for line in lines] == ["selected on", "---", "dev (best of 20 to 40)", "-", "heldout (best of 3)", "-"]
    assert "elected on" not in table([record("old", 0.7, 1)])
    uncounted = [replace(record("one", 0.7, 1), selected_on="dev"), replace(record("two", 0.7, 1), selected_on="dev"), record("constant", 0.5, 0)]
    assert "selected on |" not in table(uncounted) and table(uncounted).endswith("\n\nModels were selected on dev.")
    mixed = table([*uncounted, replace(record("two", 0.7, 2), selected_on="heldout")])
    assert "| two | 70.0 ± 0.0 (2) | dev, heldout |" in mixed


@pytest.mark.parametrize("changed, said", [({"task_version": 2}, "several versions: 1, and 2"), ({"data": "b"}, "several data, by their checksums: a, and b")])
def test_scores_on_other_data_or_versions_are_not_averaged(changed, said):
    scored = [replace(record("ours", 0.8, 1), data="a"), record("ours", 0.7, 2), replace(record("ours", 0.9, 3), **{"data": "a", **changed})]
    with pytest.raises(ValueError, match=said):
        table(scored)
    assert "(2)" in table(scored[:2]), "an older record, which does not say it, is trusted"


def test_an_answer_that_nothing_was_drawn_for_is_a_baseline_for_every_seed():
    control = replace(record("constant", 0.5, 0), recipe="constant")
    scored = [record("ours", value, seed) for seed, value in ((1, 0.8), (2, 0.82), (3, 0.81))]
    assert "**81.0 ± 0.6 (3)**" in table([*scored, control], "constant")


def test_a_record_replaces_the_one_that_says_the_same_and_no_other(tmp_path):
    path = tmp_path / "results.jsonl"
    write_records(path, [record("teacher", 0.8, 1), record("teacher", 0.9, 2)])
    write_records(path, [record("teacher", 0.85, 1)])
    assert sorted(entry.value for entry in read_records(path)) == [0.85, 0.9]


def test_a_record_of_another_model_is_not_replaced(tmp_path):
    path = tmp_path / "results.jsonl"
    write_records(path, [replace(record("teacher", 0.8, 1), parameters=22_000_000), record("constant", 0.5, 0)])
    with pytest.raises(ValueError, match="teacher on MRPC, seed 1, in the table main with a model of 22,000,000 parameters, this one has 110,000,000"):
        write_records(path, [replace(record("teacher", 0.9, 1), parameters=110_000_000)])
    write_records(path, [replace(record("teacher", 0.9, 1), parameters=22_000_000), record("constant", 0.6, 0)])
    assert [entry.value for entry in read_records(path)] == [0.9, 0.6]


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


def test_a_system_that_answers_in_two_ways_has_a_row_for_each():
    both = [record("teacher", 0.8, 1), *(replace(record("exits", value, 1), split=split) for split, value in (("dev", 0.7), ("dev, upper", 0.75)))]
    assert table(both).splitlines() == ["| | MRPC dev, f1 |", "|---|---|", "| teacher | 80.0 (1) |", "| exits | 70.0 (1) |", "| exits, upper | 75.0 (1) |",
                                        "| *one score, over examples* | ± 2.0 |"]


def test_what_is_kept_of_the_teacher_is_a_mean_over_its_tasks_for_each_seed_that_has_them():
    def both(row, values):
        return [record(row, value, seed, task) for task, by_seed in values.items() for seed, value in enumerate(by_seed)]

    records = [*both("teacher", {"MRPC": (0.8, 0.8), "CoLA": (0.5, 0.4), "SST-2": (0.9,)}), *both("student", {"MRPC": (0.72, 0.8), "CoLA": (0.4, 0.4)}),
               *both("half", {"MRPC": (0.8, 0.8)})]
    header, _, *lines = table(records, teacher="teacher").splitlines()
    assert header.endswith("| kept of the teacher's, mean over MRPC, CoLA |")
    assert [line.split(" | ")[-1] for line in lines] == ["100.0 ± 0.0 (2) |", "92.5 ± 7.5 (2) |", "- |", "- |"]  # (0.9 + 0.8) / 2 and 1
    marked = "<!-- table main against teacher keeping teacher -->\n<!-- end -->\n"
    assert table(records, "teacher", "teacher") in render(marked, tables_of(records))
    nothing = table([*records, *both("constant", {"MRPC": (0.5, 0.5), "CoLA": (0.0, 0.0)})], teacher="constant")
    assert all(line.endswith("| - |") for line in nothing.splitlines()[2:]), "nothing is a share of 0"
    held = [replace(record("teacher", 0.7, seed, "RTE"), split="heldout") for seed in range(2)]
    beside = table([*records, *held], teacher="teacher").splitlines()
    assert [line.split(" | ")[-1] for line in (beside[0], *beside[2:])] == [line.split(" | ")[-1] for line in (header, *lines)]
    with pytest.raises(ValueError, match="--teacher 'teacher' has no score on a dev set"):
        table(held, teacher="teacher")
    with pytest.raises(ValueError, match="--teacher 'teachr' is not a row"):
        table(records, teacher="teachr")


def test_rendering_replaces_the_marked_lines_only_and_refuses_an_unknown_table():
    text = "before\n<!-- table main -->\nold\n<!-- end -->\nafter\n"
    rendered = render(text, tables_of([record("teacher", 0.8, 1)]))
    assert rendered.startswith("before\n<!-- table main -->\n| | MRPC dev, f1 |") and rendered.endswith("<!-- end -->\nafter\n")
    assert "old" not in rendered
    with pytest.raises(ValueError, match="other"):
        render(text.replace("main", "other"), tables_of([record("teacher", 0.8, 1)]))


def test_old_lines_stay_as_they_are_when_a_record_joins_them(tmp_path):
    old = (ROOT / "scripts" / "results.jsonl").read_text()
    path = tmp_path / "results.jsonl"
    path.write_text(old)
    write_records(path, [replace(record("new", 0.8, 1), parameters=7)])
    assert path.read_text().startswith(old) and read_records(path)[-1].parameters == 7


def test_ids_are_short_stable_and_tell_all_records_apart():
    records = read_records(ROOT / "scripts" / "results.jsonl")
    assert len({found.id for found in records}) == len(records)
    (named,) = (found for found in records if found.id == "a8d55ba6")
    assert (named.row, named.task, named.seed) == ("logit_kd", "CoLA", 1), "it is a name: it must not change"
    assert replace(records[0], value=0.1, commit="other").id == records[0].id != replace(records[0], seed=9).id


@pytest.mark.parametrize("values, is_bold", [([0.80, 0.83, 0.81], True), ([0.80, 0.83], False), ([0.71, 0.80, 0.71], False),
                                             ([0.60, 0.63, 0.61], False)])
def test_what_beats_the_named_control_beyond_the_errors_of_the_paired_difference_is_bold(values, is_bold):
    control = [record("control", value, seed) for seed, value in enumerate((0.70, 0.72, 0.71))]
    ours = [record("ours", value, seed) for seed, value in enumerate(values)]
    assert ("| **" in table([*control, *ours], "control")) == is_bold
    assert "**" not in table([*control, *ours])
    shifted = [replace(found, seed=found.seed + 9) for found in ours]
    assert "**" not in table([*control, *shifted], "control"), "no seed is shared"
    with pytest.raises(ValueError, match="--baseline 'contrl' is not a row: did you mean 'control'"):
        table([*control, *ours], "contrl")


def test_a_marker_may_name_the_control():
    records = [record(row, value + seed / 1000 * value, seed) for row, value in (("the control", 0.7), ("ours", 0.8)) for seed in (1, 2, 3)]
    text = "<!-- table main against the control -->\nold\n<!-- end -->\n"
    rendered = render(text, tables_of(records))
    assert rendered == f"<!-- table main against the control -->\n{table(records, 'the control')}\n<!-- end -->\n"
    assert "| ours | **80.2 ± 0.0 (3)** |" in rendered and render(rendered, tables_of(records)) == rendered


@pytest.mark.parametrize("text", ["<!-- table main -->\nold\n\nprose\n\n<!-- table main -->\nold\n<!-- end -->\n", "<!-- table main agianst ours -->\nold\n<!-- end -->\n",
                                  "prose\n<!-- table main -->\nold\n"])
def test_a_marker_that_is_mistyped_or_has_no_end_is_refused(text):
    records = [record("ours", 0.8, 1)]
    with pytest.raises(ValueError, match="line [12], '<!-- table main.*expected"):
        render(text, tables_of(records))


def test_a_folder_of_seeds_is_added_with_the_command_of_each_seed_and_its_parameters(tmp_path):
    path, words = tmp_path / "results.jsonl", ["x", "train", "pkd", "CoLA", "--seeds", "1", "2", "--teacher", "/a/t/seed-{seed}/best",
                                               "--output_dir", "/a/CoLA/pkd", "--bf16", "False"]
    for seed in (1, 2):
        write_run(tmp_path / "pkd" / f"seed-{seed}", "CoLA", seed, command=words)
    edit(tmp_path / "pkd/seed-1/scores.json", values={"heldout/matthews": 0.9, "dev/matthews": 0.5})
    assert main(["report", "--records", str(path), "add", "main", "pkd", str(tmp_path / "pkd")]) == 0
    first, second = read_records(path)
    assert (first.seed, second.seed, first.value, first.split) == (1, 2, 0.5, "dev"), "what is held out of train only selects"
    assert second.command == ("python -m distill train pkd CoLA --seed 2 --teacher a/t/seed-2/best --bf16 False --output_dir CoLA/pkd/seed-2")
    assert first.recipe == "pkd" and first.parameters == 1000 and first.reading == ""


def test_the_command_of_a_seed_has_the_folder_that_was_given_last():
    words = ["train", "pkd", "CoLA", "--output_dir", "ours", "--seeds", "1", "2", "--output_dir=mine"]
    assert of_one_seed(words, 2) == ["train", "pkd", "CoLA", "--seed", "2", "--output_dir", "mine/seed-2"]


def test_a_reading_says_so_and_is_of_one_run(tmp_path, capsys):
    path, scores = tmp_path / "results.jsonl", tmp_path / "readings.json"
    for seed in (1, 2):
        write_run(tmp_path / "pkd" / f"seed-{seed}", "CoLA", seed)
    scores.write_text(json.dumps({"chosen senses": json.loads((tmp_path / "pkd/seed-1/scores.json").read_text())}))
    words = ["report", "--records", str(path), "add", "main", "pkd", "--scores", str(scores)]
    assert main([*words, str(tmp_path / "pkd")]) == 1 and not path.exists()
    assert "is a reading of one run" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "pkd/seed-1")]) == 0 and read_records(path)[0].reading == "chosen senses"
    assert main([*words, "--reading", "states", str(tmp_path / "pkd/seed-1")]) == 1
    assert f"--reading 'states': {scores} has 'chosen senses'" in capsys.readouterr().err
    assert main([*words[:6], "--reading", "chosen senses", str(tmp_path / "pkd/seed-1")]) == 1
    assert "give it with --scores FILE" in capsys.readouterr().err
    edit(scores, **{"chosen senses": {**json.loads(scores.read_text())["chosen senses"], "checkpoint": "0123"}})
    assert main([*words, str(tmp_path / "pkd/seed-1")]) == 1
    assert f"the scores are of a checkpoint with weights 0123, {tmp_path}/pkd/seed-1 has " in capsys.readouterr().err


def test_a_reading_may_be_of_another_task_than_the_runs(tmp_path):
    path, scores = tmp_path / "results.jsonl", tmp_path / "readings.json"
    write_run(tmp_path / "run", "TyDiQA", 1, command=["x", "train", "finetune", "TyDiQA", "--seed", "1"])
    reached = {"task": "SQuAD", "version": 3, "data": {"dev": "d" * 64}, "values": {"dev/squad_f1": 0.5}, "counts": {"dev/squad_f1": 9}, "errors": {"dev/squad_f1": 0.1}}
    scores.write_text(json.dumps({"continuous states": reached}))
    assert main(["report", "--records", str(path), "add", "main", "row", "--scores", str(scores), "--reading", "continuous states",
                 str(tmp_path / "run")]) == 0
    (found,) = read_records(path)
    assert (found.task, found.task_version, found.value, found.reading) == ("SQuAD", 3, 0.5, "continuous states")
    assert found.command == "python -m distill train finetune TyDiQA --seed 1" and found.data == "d" * 16


def test_a_record_says_how_the_senses_were_chosen(tmp_path):
    path, scores = tmp_path / "results.jsonl", tmp_path / "readings.json"
    for row, senses in (("none", None), ("published", {}), ("own", {"similarity": "distance"})):
        write_run(tmp_path / row)
        if senses is not None:
            edit(tmp_path / row / "origin.json", senses=senses)
        assert main(["report", "--records", str(path), "add", "main", row, str(tmp_path / row)]) == 0
    scores.write_text(json.dumps({"chosen senses": {**json.loads((tmp_path / "own/scores.json").read_text()), "similarity": "dot"}}))
    assert main(["report", "--records", str(path), "add", "main", "read", "--scores", str(scores), str(tmp_path / "own")]) == 0
    assert [record.similarity for record in read_records(path)] == ["", "dot", "distance", "dot"]


def test_a_run_with_scores_on_what_is_held_out_alone_is_reported_without_a_column(tmp_path, capsys, caplog):
    write_run(tmp_path / "runs/CoLA/pkd")
    edit(tmp_path / "runs/CoLA/pkd/scores.json", values={"heldout/matthews": 0.9, "heldout, teacher exit/matthews": 0.9})
    words = ["report", "--records", str(tmp_path / "r.jsonl")]
    assert main([*words, "folder", str(tmp_path / "runs"), "--csv", str(tmp_path / "a.csv"), "--plots", str(tmp_path / "plots")]) == 0
    assert "heldout" not in capsys.readouterr().out and not (tmp_path / "a.csv").read_text()
    assert (tmp_path / "plots/comparison.png").is_file() and "no run has a score on a split that is reported" in caplog.text
    assert main([*words, "add", "main", "pkd", str(tmp_path / "runs/CoLA/pkd")]) == 0
    assert "what is held out of train only selects" in caplog.text and not (tmp_path / "r.jsonl").exists()


def test_nothing_is_added_of_a_folder_with_an_unfinished_seed(tmp_path, capsys):
    for seed in (1, 2):
        write_run(tmp_path / "pkd" / f"seed-{seed}", "CoLA", seed)
    (tmp_path / "pkd/seed-2/DONE").unlink()
    assert main(["report", "--records", str(tmp_path / "r.jsonl"), "add", "main", "pkd", str(tmp_path / "pkd")]) == 1
    assert "seed-2 is not finished" in capsys.readouterr().err and not (tmp_path / "r.jsonl").exists()


def test_the_constant_answer_is_the_most_frequent_class_or_the_mean_score_of_train(tiny_glue, tmp_path):
    glue = tmp_path / "glue"
    for name in ("CoLA", "MRPC", "STS-B"):
        shutil.copytree(tiny_glue / name, glue / name)
    lines = (glue / "MRPC/train.tsv").read_text(encoding="utf-8").splitlines()
    (glue / "MRPC/train.tsv").write_text("\n".join([*lines, lines[2], lines[2]]) + "\n", encoding="utf-8")
    assert lines[2].startswith("1\t")
    for task in ("mrpc", "CoLA", "STS-B"):
        assert main(["report", "--records", str(tmp_path / "r.jsonl"), "constant", task, "main", "--data_dir", str(glue)]) == 0
    found = {(entry.task, entry.metric): entry for entry in read_records(tmp_path / "r.jsonl")}
    dev = [line[0] for line in (glue / "MRPC/dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    share = dev.count("1") / len(dev)
    assert found["MRPC", "accuracy"].value == pytest.approx(share) and found["MRPC", "f1"].value == pytest.approx(2 * share / (1 + share))
    assert found["CoLA", "matthews"].value == found["STS-B", "pearson"].value == found["STS-B", "spearman"].value == 0.0
    assert found["MRPC", "f1"].command.startswith("python -m distill report constant MRPC main --data_dir ")
    assert constant_of(get_task("STS-B"), str(glue)).answer == pytest.approx(2.5)
    assert constant_of(get_task("CoLA"), str(glue)).name == "class unacceptable", "of equally frequent classes the first"


def test_ids_and_the_csv_of_a_table_name_each_record(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    records = [record("ours", 0.8, 1), replace(record("ours", 0.8, 1), table="other")]
    write_records(path, records)
    assert main(["report", "--records", str(path), "ids", "main"]) == 0
    assert capsys.readouterr().out == f"{records[0].id}  main  MRPC dev, f1  80.0  seed 1  ours\n"
    assert main(["report", "--records", str(path), "table", "main", "--csv", str(tmp_path / "t.csv")]) == 0
    header, line = (tmp_path / "t.csv").read_text().splitlines()
    assert header.startswith("id,table,row,task") and line.startswith(f"{records[0].id},main,ours,MRPC")


def test_the_speed_table_takes_no_baseline_and_an_unknown_table_is_answered_with_the_list(capsys):
    assert main(["report", "table", "speed", "--baseline", "x"]) == 1
    assert "each row of the table `speed` names what it is compared with" in capsys.readouterr().err
    assert main(["report", "table", "method"]) == 1
    assert re.search(r"there are choices, .*\bmethods\b", capsys.readouterr().err)
