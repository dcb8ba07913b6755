"""SQuAD: files and the Hub come to the same questions; answers are compared as the official script compares them."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from data_utils.answers import EXACT, credit, normalised, words_f1
from data_utils.metrics import bootstrap_standard_error, compute_metrics
from data_utils.readers import data_fingerprint, hub, read_examples
from data_utils.tasks import Example, get_task

CONTEXT = "Ann Lee met Bo in  Rome  ."
FILE = {"version": "1.1", "data": [
    {"title": "One", "paragraphs": [{"context": CONTEXT, "qas": [
        {"id": "q1", "question": "Who met Bo?", "answers": [{"text": "Ann Lee", "answer_start": 0}, {"text": "Lee", "answer_start": 4}]},
        {"id": "q2", "question": "Where?", "answers": [{"text": " Rome ", "answer_start": 18}]}]}]},
    {"title": "Two", "paragraphs": [{"context": "x é y", "qas": [{"id": "q3", "question": "y?", "answers": [{"text": "y", "answer_start": 4}]}]}]}]}
MEANT = [Example(0, ("Who met Bo?", CONTEXT), None, id="q1", answers=(("Ann Lee", 0), ("Lee", 4))),
         Example(1, ("Where?", CONTEXT), None, id="q2", answers=(("Rome", 19),)),
         Example(2, ("y?", "x é y"), None, id="q3", answers=(("y", 4),))]


def put(root: Path, content, task: str = "SQuAD", file: str = "dev-v1.1.json") -> Path:
    path = root / task / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if type(content) is str else json.dumps(content), "utf-8")
    return root


def changed(place: list, value) -> dict:
    """FILE with another value at `place`."""
    copy = json.loads(json.dumps(FILE))
    entry = copy
    for step in place[:-1]:
        entry = entry[step]
    entry[place[-1]] = value
    return copy


FIRST = ["data", 0, "paragraphs", 0, "qas"]


# ---- reading


def test_a_file_means_its_questions_in_order_with_all_their_answers(tmp_path):
    assert read_examples(get_task("squad"), "dev", put(tmp_path, FILE)) == MEANT
    assert read_examples(get_task("squad"), "dev", put(tmp_path / "mark", "\ufeff" + json.dumps(FILE))) == MEANT


def test_the_hub_gives_the_same_questions(tmp_path, monkeypatch):
    rows = [{"id": question["id"], "title": article["title"], "context": paragraph["context"], "question": question["question"],
             "answers": {name: [answer[name] for answer in question["answers"]] for name in ("text", "answer_start")}}
            for article in FILE["data"] for paragraph in article["paragraphs"] for question in paragraph["qas"]]
    asked = []
    monkeypatch.setattr(hub, "answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: asked.append((*given, named["split"])) or datasets.Dataset.from_list(rows))
    (tmp_path / "empty").mkdir()
    assert read_examples(get_task("squad"), "dev", tmp_path / "empty") == MEANT
    one = data_fingerprint(get_task("squad"), "dev", tmp_path / "empty")
    rows[0]["answers"]["text"][0], rows[0]["answers"]["answer_start"][0] = "Bo", 12
    assert data_fingerprint(get_task("squad"), "dev", tmp_path / "empty") != one, "other answers are other data"
    read_examples(get_task("squad2"), "train", tmp_path / "empty")
    assert asked[0] == ("rajpurkar/squad", "plain_text", "validation") and asked[-1] == ("rajpurkar/squad_v2", "squad_v2", "train")


@pytest.mark.parametrize("content, expected", [
    ("{not json", r"dev-v1.1.json: expected SQuAD dev as one JSON object.*line 1 column 2"),
    ({"data": []}, "found no question"), ([], r"SQuAD's format, found another one at the top"),
    ({"data": [{"paragraphs": []}, {"title": "no paragraphs"}]}, r"found another one at data\[1\] \(KeyError: 'paragraphs'\)"),
    (changed(["data", 1, "paragraphs", 0], {"qas": [{}]}), r"data\[1\].paragraphs\[0\]: expected a record of SQuAD.*KeyError: 'context'"),
    (changed([*FIRST, 1], {"id": "q2", "question": "Where?"}), r"data\[0\].paragraphs\[0\]: expected a record.*KeyError: 'answers'"),
    (changed([*FIRST, 1, "answers", 0, "answer_start"], 0), r"data\[0\].paragraphs\[0\]: question q2: expected the answer ' Rome ' at letter 0 of the "
                                                            r"context, found 'Ann Le'; correct answer_start"),
    (changed([*FIRST, 0, "answers", 1, "answer_start"], -3), "question q1: expected the answer 'Lee' at letter -3"),
    (changed([*FIRST, 0, "answers", 0, "answer_start"], "0"), "question q1: expected a text and a whole number as an answer, found 'Ann Lee' and '0'"),
    (changed([*FIRST, 1, "answers"], []), r"data\[0\].paragraphs\[0\], question q2: expected an answer, found none or an empty one \(1 such questions of 3\)"),
    (changed([*FIRST, 1, "question"], None), r"data\[0\].paragraphs\[0\]: question q2: expected a text as its question, found None"),
    (changed([*FIRST, 1, "question"], " "), "expected a text in column 'question', found an empty one")])
def test_what_is_malformed_is_refused_with_file_and_place(content, expected, tmp_path):
    with pytest.raises(ValueError, match=expected) as found:
        read_examples(get_task("squad"), "dev", put(tmp_path, content))
    assert str(tmp_path) in str(found.value) and "dev-v1.1.json" in str(found.value)


def test_questions_of_squad2_may_have_no_answer(tmp_path):
    bare = changed([*FIRST, 1], {"id": "q2", "question": "Where?", "answers": [], "is_impossible": True,
                                 "plausible_answers": [{"text": "Rome", "answer_start": 19}]})
    found = read_examples(get_task("squad2"), "dev", put(tmp_path, bare, "SQuAD2", "dev-v2.0.json"))
    assert [example.answers for example in found] == [MEANT[0].answers, (), MEANT[2].answers]


def test_a_copy_without_any_answer_can_be_read_but_does_not_tell_them(squad, caplog):
    found = read_examples(get_task("tydiqa"), "dev", squad)
    assert len(found) == 8 and {example.answers for example in found} == {None}
    assert "every answer is empty, they were taken out of this copy" in caplog.text


def test_a_task_that_nobody_hosts_says_which_files_are_needed(tmp_path):
    with pytest.raises(ValueError, match=r"the Hub has no copy of it; put tydiqa.goldp.en.train.json and tydiqa.goldp.en.dev.json into .*TyDiQA"):
        read_examples(get_task("tydiqa"), "train", tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize("task, split, questions, answers", [("TyDiQA", "train", 3696, 3696), ("TyDiQA", "dev", 440, None), ("SQuAD", "dev", 10570, 34726)])
def test_the_real_files_are_read_whole(task, split, questions, answers, shared):
    """Every answer stands where it is said to: the reader refuses others."""
    found = read_examples(get_task(task), split, shared)
    assert len(found) == questions
    if answers:
        assert sum(len(example.answers) for example in found) == answers
    else:
        assert {example.answers for example in found} == {None}


# ---- comparing answers


@pytest.mark.parametrize("answer, expected", [
    ("The Cat!", "cat"), ("a  b\tc", "b c"), ("theatre", "theatre"), ("U.S.A.", "usa"), ("an-other", "another"), ("A", ""),
    ("end–the–beginning", "end– –beginning"), ("«The» x", "« » x"), ("don't", "dont"), ("24–10", "24–10"), ("the\u00a0cat", "cat")])
def test_answers_are_normalised_as_the_official_script_does(answer, expected):
    """Lower case, ASCII punctuation away, then articles as whole words (also between other signs), then single spaces."""
    assert normalised(answer) == expected


@pytest.mark.parametrize("found, golds, em, f1", [
    ("The Denver Broncos", ["Denver Broncos"], 1, 1), ("denver  broncos!", ["Denver Broncos."], 1, 1),
    ("Broncos", ["Denver Broncos"], 0, 2 / 3), ("Broncos", ["Denver Broncos", "the Broncos"], 1, 1), ("x", ["y", "x z", "x y z"], 0, 2 / 3),
    ("Broncos Denver", ["Denver Broncos"], 0, 1), ("x", ["y"], 0, 0), ("x x y", ["x y y"], 0, 2 / 3), ("x x", ["x"], 0, 2 / 3),
    ("", ["x"], 0, 0), ("", [], 1, 1), ("x", [], 0, 0), ("the", [], 1, 1), ("", ["x", "."], 0, 0)])
def test_exact_match_and_f1_by_hand(found, golds, em, f1):
    """Articles, punctuation, the best of several golds, word order, multisets, empty answers, no common word."""
    metrics = compute_metrics(("squad_em", "squad_f1"), [credit(found, golds)], [1.0])
    assert metrics == {"squad_em": em, "squad_f1": pytest.approx(f1)}


def test_words_count_as_often_as_they_are_there():
    assert words_f1("x x y", "x y y") == pytest.approx(2 * 2 / 6), "sets would give 1"


def test_the_metrics_are_means_over_questions_with_an_error_by_resampling_them():
    credits = np.array([EXACT, 0.5, 1.0, 0.0])
    assert compute_metrics(("squad_em", "squad_f1"), credits, np.ones(4)) == {"squad_em": 0.25, "squad_f1": 0.625}
    error = bootstrap_standard_error("squad_em", np.repeat(credits, 25), np.ones(100))
    assert error == pytest.approx((0.25 * 0.75 / 100) ** 0.5, rel=0.1)
