"""What selects the best epoch, what is then reported, and the predictions that are kept with it."""

import json

import numpy as np
import pytest

from data_utils.draws import held_out, splitmix64
from data_utils.encode import EncodedDataset
from data_utils.metrics import compute_metrics, selection_score
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill import evaluate
from distill.__main__ import main
from distill.config import TaskConfig
from distill.rundir import RunDir
from distill.scores import Predictions, Scores, load_predictions, save_predictions
from distill.splits import read_splits, warn_of_seen
from models.checkpoint import load_encoder

FIRST_HELD_OUT = [2, 18, 29, 30, 31, 43, 68, 72, 75, 82]  # published: results on held-out examples depend on it
TASKS = ("SST-2", "STS-B")


def words(task, model, glue, out, *more) -> list[str]:
    return [str(word) for word in ("train", "finetune", task, "--model", model, "--data_dir", glue, "--output_dir", out, "--bf16",
                                   False, "--train_batch_size", 8, "--learning_rate", 2e-3, "--eval_steps", 2, *more)]


@pytest.fixture(scope="module")
def selected(tiny_bert, tiny_glue, tmp_path_factory):
    """Runs that were selected on the held-out examples, by task."""
    found = {}
    for task in TASKS:
        found[task] = tmp_path_factory.mktemp("selected") / task
        assert main(words(task, tiny_bert, tiny_glue, found[task], "--max_steps", 12, "--select_on", "heldout")) == 0
    return found


# ---- the held-out tenth


def test_the_held_out_tenth_is_what_was_published():
    assert splitmix64(np.array([0, 0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    held = held_out(np.arange(300_000))
    assert np.flatnonzero(held)[:10].tolist() == FIRST_HELD_OUT
    assert abs(held.mean() - 0.1) < 0.002
    assert np.array_equal(held_out(np.arange(300_000)[::-1])[::-1], held), "a function of the row alone"


def test_what_is_reported_is_scored_where_the_held_out_tenth_finds_a_new_best(selected):
    found = set()
    for run in selected.values():
        best = -np.inf
        for scores in (line["scores"] for line in RunDir(run).logged() if "scores" in line):
            selection = np.mean([value for name, value in scores.items() if name.startswith("heldout/")])
            reported = any(name.startswith("dev/") for name in scores)
            assert reported == (selection > best)
            best = max(best, selection)
            found.add(reported)
    assert found == {True, False}


def test_the_command_line_prints_the_held_out_rows(tiny_glue, capsys):
    assert main(["data", "heldout", "cola", "--data_dir", str(tiny_glue)]) == 0
    assert [int(line) for line in capsys.readouterr().out.splitlines()] == [row for row in FIRST_HELD_OUT if row < 48]


@pytest.mark.parametrize("task", TASKS)
def test_held_out_examples_are_not_trained_on_and_all_others_are_whole(task, tiny_glue, selected):
    task, encoder = get_task(task), load_encoder(selected[task] / "best")
    train, evaluation = read_splits(encoder, task, TaskConfig(data_dir=str(tiny_glue), select_on="heldout"))
    assert list(evaluation) == ["heldout", "dev"]
    assert evaluation["heldout"].uid.tolist() == [row for row in FIRST_HELD_OUT if row < 48]
    assert sorted([*train.uid, *evaluation["heldout"].uid]) == list(range(48))
    examples = read_examples(task, "train", str(tiny_glue))
    for dataset in (train, evaluation["heldout"]):
        for place, uid in enumerate(dataset.uid):
            assert dataset.target[place] == examples[uid].target
            assert dataset.ids[dataset.offsets[place]:dataset.offsets[place + 1]].tolist() == \
                encoder.tokenizer(*examples[uid].texts)["input_ids"]
    plain, dev = read_splits(encoder, task, TaskConfig(data_dir=str(tiny_glue)))
    assert plain.uid.tolist() == list(range(48)) and list(dev) == ["dev"]
    assert dev["dev"].ids.tolist() == evaluation["dev"].ids.tolist()


def test_where_nothing_is_held_out_the_run_is_refused_in_one_line(tiny_bert, tiny_glue, tmp_path, capsys):
    (tmp_path / "CoLA").mkdir()
    for split in ("train", "dev"):
        lines = (tiny_glue / f"CoLA/{split}.tsv").read_text().splitlines()[:2]
        (tmp_path / f"CoLA/{split}.tsv").write_text("\n".join(lines) + "\n")
    assert main(words("CoLA", tiny_bert, tmp_path, tmp_path / "out", "--select_on", "heldout")) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "of the 2 train examples of CoLA" in said and "--select_on dev" in said and not (tmp_path / "out").exists()
    assert main(words("CoLA", tiny_bert, tiny_glue, tmp_path / "out", "--select_on", "test")) == 1
    assert "--select_on test: expected one of dev, heldout" in capsys.readouterr().err


# ---- selection


def test_the_first_split_that_is_scored_selects(monkeypatch):
    data = EncodedDataset(np.arange(4), np.zeros(4, np.int32), np.arange(5), np.ones(4, np.int32), np.array([0, 1, 0, 1]))
    right, wrong = (np.eye(2)[[0, 1, 0, 1]], np.eye(2)[[0, 1, 1, 1]])
    encoder = type("Encoder", (), {"info": get_task("SST-2")})
    answers = iter([wrong, right, right, wrong])
    monkeypatch.setattr(evaluate, "predict", lambda encoder, dataset, read: next(answers)[:, None])
    for first, second, expected in (("heldout", "dev", 0.75), ("dev", "other", 1.0)):
        scores = evaluate.score(encoder, get_task("SST-2"), {first: data, second: data})
        assert (scores.selected_on, scores.selection) == (first, expected) == (first, scores.values[f"{first}/accuracy"])
        assert list(scores.predictions) == [first, second]


def test_the_best_evaluation_is_the_best_on_the_held_out_examples_and_dev_is_reported_beside_it(selected):
    run, metrics = selected["STS-B"], get_task("STS-B").metrics
    scores = json.loads((run / "scores.json").read_text())
    assert scores["selected_on"] == "heldout"
    assert list(scores["values"]) == [f"{split}/{metric}" for split in ("heldout", "dev") for metric in metrics]
    assert set(scores["counts"].values()) == {6, 16}
    logged = [line["scores"] for line in map(json.loads, (run / "log.jsonl").open()) if "scores" in line]
    on_heldout = [np.mean([found[f"heldout/{metric}"] for metric in metrics]) for found in logged]
    assert len(logged) == 6 and len(set(on_heldout)) > 1
    assert scores["values"] == logged[int(np.argmax(on_heldout))] and scores["selection"] == max(on_heldout)


def test_a_run_says_on_which_split_it_was_selected(selected, tiny_bert, tiny_glue, tmp_path, capsys):
    again = words("SST-2", tiny_bert, tiny_glue, selected["SST-2"], "--max_steps", 12, "--select_on")
    assert main([*again, "heldout"]) == 0
    assert "finetune on SST-2, best evaluation, selected on heldout: heldout/accuracy" in capsys.readouterr().out
    assert main([*again, "dev"]) == 1
    assert "select_on: heldout -> dev" in capsys.readouterr().err


def test_scores_of_before_were_selected_on_their_first_split(tmp_path):
    old = {"values": {"dev_matched/accuracy": 0.8, "dev_mismatched/accuracy": 0.7}, "selection": 0.8,
           "errors": {"dev_matched/accuracy": 0.01}, "counts": {"dev_matched/accuracy": 100}, "seconds": 3.0}
    (tmp_path / "scores.json").write_text(json.dumps(old)), (tmp_path / "DONE").touch()
    scores = RunDir(tmp_path).scores()
    assert scores.selected_on == "dev_matched" and scores.values == old["values"] and scores.counts == old["counts"]
    assert Scores.from_json({**old, "selected_on": "heldout"}).selected_on == "heldout"


@pytest.mark.parametrize("student", ["truncate:half", "deberta"])
def test_a_student_learns_from_the_teachers_answers_on_what_is_not_held_out(
        student, selected, tiny_glue, tiny_deberta, tmp_path, capsys, caplog):
    """With a vocabulary of its own the student's examples are not the teacher's: both must leave out the same ones."""
    student = str(tiny_deberta) if student == "deberta" else student
    assert main(["train", "logit_kd", "SST-2", "--teacher", str(selected["SST-2"] / "best"), "--student", student, "--data_dir",
                 str(tiny_glue), "--output_dir", str(tmp_path / "out"), "--max_steps", "3", "--select_on", "heldout",
                 "--cache_dir", str(tmp_path / "cache")]) == 0
    assert "selected on heldout" in capsys.readouterr().out and "trained on the held-out" not in caplog.text
    (uid,) = (np.load(file) for file in (tmp_path / "cache").rglob("uid.npy"))
    assert uid.tolist() == np.flatnonzero(~held_out(np.arange(48))).tolist()


def test_a_teacher_that_was_trained_on_the_held_out_examples_is_said(selected, tiny_bert, tiny_glue, tmp_path, caplog):
    teacher, said = tmp_path / "teacher/best", "was selected on dev and trained on the held-out examples"
    assert main(words("SST-2", tiny_bert, tiny_glue, tmp_path / "teacher", "--max_steps", 1)) == 0
    for select_on in ("dev", "heldout"):
        assert said not in caplog.text
        assert main(["train", "logit_kd", "SST-2", "--teacher", str(teacher), "--data_dir", str(tiny_glue), "--output_dir",
                     str(tmp_path / select_on), "--max_steps", "1", "--select_on", select_on]) == 0
    assert said in caplog.text
    caplog.clear()
    (teacher / "scores.json").unlink()
    for unknown_or_fair in (teacher, selected["SST-2"] / "best"):
        warn_of_seen(unknown_or_fair, TaskConfig(select_on="heldout"))
    assert said not in caplog.text


# ---- predictions


@pytest.mark.parametrize("task", TASKS)
def test_the_predictions_that_are_kept_give_the_scores_again(task, selected, tiny_glue):
    run, task = selected[task], get_task(task)
    scores, kept = RunDir(run).scores(), load_predictions(run / "best/predictions.npz")
    assert list(kept) == ["heldout", "dev"]
    for split, found in kept.items():
        values = compute_metrics(task.metrics, found.predicted, found.target)
        assert {f"{split}/{name}": value for name, value in values.items()} == \
            {key: value for key, value in scores.values.items() if key.startswith(f"{split}/")}
        examples = read_examples(task, "dev" if split == "dev" else "train", str(tiny_glue))
        assert [examples[uid].target for uid in found.uid] == found.target.tolist()
    assert selection_score(compute_metrics(task.metrics, kept["heldout"].predicted, kept["heldout"].target)) == scores.selection
    assert "predictions" not in json.loads((run / "best/scores.json").read_text())
    assert not (run / "last/predictions.npz").exists()


def test_predictions_are_read_as_they_were_written_and_are_no_part_of_the_json(tmp_path):
    given = {"dev": Predictions(np.array([3, 1]), np.array([0.5, 1.5], np.float32), np.array([1.0, 2.0], np.float32)),
             "dev/odd": Predictions(np.array([7]), np.array([1]), np.array([0]))}
    save_predictions(given, tmp_path / "predictions.npz")
    found = load_predictions(tmp_path / "predictions.npz")
    assert list(found) == list(given)
    for split in given:
        assert found[split].group is None
        for name in ("uid", "predicted", "target"):
            array = vars(given[split])[name]
            assert np.array_equal(vars(found[split])[name], array) and vars(found[split])[name].dtype == array.dtype
    scores = Scores({"dev/accuracy": 0.5}, 0.5, selected_on="dev", predictions=given)
    assert json.loads(json.dumps(scores.to_json())).keys() == {"values", "selection", "errors", "counts", "selected_on"}
    assert Scores.from_json(scores.to_json()) == scores
