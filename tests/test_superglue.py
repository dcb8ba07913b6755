"""SuperGLUE: records, tables and the Hub come to the same examples."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_utils.answers import EXACT, words_f1
from data_utils import superglue
from data_utils.readers import data_fingerprint, read_examples
from data_utils.tasks import TASKS, Example, get_task

WSC = {"text": "Mark told Pete that he, Mark , was wrong.", "idx": 3, "label": True,
       "target": {"span1_index": 0, "span1_text": "Mark", "span2_index": 4, "span2_text": "he"}}
WIC = {"word": "place", "sentence1": "Come over to my place later?", "sentence2": "No place for groups.", "idx": 1, "label": False,
       "start1": 16, "end1": 21, "start2": 3, "end2": 8, "version": 1.1}
COPA = {"premise": "My body cast a shadow.", "choice1": "The sun rose.", "choice2": "The grass grew.", "question": "cause", "label": 0, "idx": 0}
MULTIRC = {"idx": 5, "version": 1.1, "passage": {"text": "A cat sat.", "questions": [
    {"question": "Who sat?", "idx": 8, "answers": [{"text": "A cat", "idx": 20, "label": 1}, {"text": "A dog", "idx": 21, "label": 0}]},
    {"question": "Did it run?", "idx": 9, "answers": [{"text": "No", "idx": 22, "label": 1}]}]}}
RECORD = {"source": "CNN", "idx": 2, "passage": {"text": "Ann Lee met Bo.\n@highlight\nLee won", "entities": [
    {"start": 0, "end": 6}, {"start": 12, "end": 13}, {"start": 27, "end": 29}, {"start": 12, "end": 13}]},
    "qas": [{"query": "Then @placeholder lost", "idx": 40, "answers": [{"start": 12, "end": 13, "text": "Bo"}]},
            {"query": "@placeholder won", "idx": 41, "answers": [{"start": 0, "end": 6, "text": "Ann Lee"}]}]}
MARKED_WIC = ("place : Come over to my * place * later?", "No * place * for groups.")
MARKED_WSC = ("Mark told Pete that * he *, Mark , was wrong.", "Mark")
ASKED_COPA = ("My body cast a shadow. What was the cause?", "The sun rose.", "The grass grew.")
PASSAGE = "Ann Lee met Bo. Lee won"

# task, split, file, its content, the examples that it means
GOLDEN = [
    ("boolq", "dev", "val.jsonl", {"question": "is it", "passage": "It is.", "idx": 0, "label": True}, [Example(0, ("is it", "It is."), 1)]),
    ("boolq", "dev", "dev.tsv", "idx\tquestion\tpassage\tlabel\n0\tis it\tIt is.\tFalse\n", [Example(0, ("is it", "It is."), 0)]),
    ("cb", "train", "train.jsonl", {"premise": "p", "hypothesis": "h", "label": "neutral", "idx": 0}, [Example(0, ("p", "h"), 2)]),
    ("cb", "dev", "dev.tsv", "idx\tpremise\thypothesis\tlabel\n7\tp\th\tcontradiction\n", [Example(0, ("p", "h"), 1)]),
    ("copa", "dev", "val.jsonl", COPA, [Example(0, ASKED_COPA, 0)]),
    ("copa", "dev", "dev.tsv", "idx\tpremise\tchoice1\tchoice2\tquestion\tlabel\n0\tIt fell.\tIt broke.\tIt flew.\teffect\t1\n",
     [Example(0, ("It fell. What happened as a result?", "It broke.", "It flew."), 1)]),
    ("copa", "test", "test.jsonl", COPA, [Example(0, ASKED_COPA, None)]),
    ("multirc", "dev", "val.jsonl", MULTIRC, [Example(0, ("A cat sat.", "Who sat? A cat"), 1), Example(1, ("A cat sat.", "Who sat? A dog"), 0, group=0),
                                              Example(2, ("A cat sat.", "Did it run? No"), 1)]),
    ("record", "dev", "val.jsonl", RECORD, [
        Example(0, (PASSAGE, "Then Ann Lee lost"), 0, 0, 0.0), Example(1, (PASSAGE, "Then Bo lost"), 1, 0, EXACT), Example(2, (PASSAGE, "Then Lee lost"), 0, 0, 0.0),
        Example(3, (PASSAGE, "Ann Lee won"), 1, 3, EXACT), Example(4, (PASSAGE, "Bo won"), 0, 3, 0.0), Example(5, (PASSAGE, "Lee won"), 0, 3, 2 / 3)]),
    ("rte", "dev", "val.jsonl", {"premise": "a b", "hypothesis": "a", "label": "entailment", "idx": 0}, [Example(0, ("a b", "a"), 0)]),
    ("rte", "dev", "dev.tsv", "idx\tpremise\thypothesis\tlabel\n0\ta b\ta\tnot_entailment\n", [Example(0, ("a b", "a"), 1)]),
    ("wic", "dev", "val.jsonl", WIC, [Example(0, MARKED_WIC, 0)]),
    ("wic", "dev", "dev.tsv", "idx\tword\tsentence1\tsentence2\tstart1\tstart2\tend1\tend2\tlabel\n"
     f"0\tplace\t{WIC['sentence1']}\t{WIC['sentence2']}\t16\t3\t21\t8\t1\n", [Example(0, MARKED_WIC, 1)]),
    ("wsc", "dev", "val.jsonl", WSC, [Example(0, MARKED_WSC, 1)]),
    ("wsc", "dev", "dev.tsv", f"idx\ttext\tspan1_idx\tspan2_idx\tspan1_txt\tspan2_txt\tlabel\n0\t{WSC['text']}\t0\t4\tMark\the\tfalse\n",
     [Example(0, MARKED_WSC, 0)]),
    ("axb", "test", "AX-b.jsonl", {"idx": "0", "label": "not_entailment", "sentence1": "a", "sentence2": "b", "logic": "Negation"},
     [Example(0, ("a", "b"), 1)]),
    ("axg", "test", "AX-g.jsonl", {"hypothesis": "h", "idx": 0, "label": "entailment", "pair_id": 551646, "premise": "his"}, [Example(0, ("his", "h"), 0)]),
]


def put(root: Path, name: str, file: str, content: dict | list | str) -> Path:
    path = root / get_task(name).name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    records = content if isinstance(content, list) else [content]
    path.write_text(content if isinstance(content, str) else "".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.mark.parametrize("name, split, file, content, expected", GOLDEN, ids=[f"{row[0]}-{row[2]}" for row in GOLDEN])
def test_a_golden_row_of_each_task_is_read_as_it_is_meant(tmp_path, name, split, file, content, expected):
    put(tmp_path, name, file, content)
    found = read_examples(get_task(name), split, tmp_path)
    assert [(row.uid, row.texts, row.target, row.group) for row in found] == [(row.uid, row.texts, row.target, row.group) for row in expected]
    assert np.array_equal([row.credit for row in found], [row.credit for row in expected], equal_nan=True)
    assert data_fingerprint(get_task(name), split, tmp_path)


def test_every_task_has_a_golden_row_and_pairs_are_grouped(tmp_path):
    assert {get_task(row[0]).name for row in GOLDEN} == {task.name for task in TASKS if task.suite == "superglue"} | {"RTE"}
    record = GOLDEN[-1][3]
    put(tmp_path, "axg", "AX-g.jsonl", [record] * 4)
    assert [row.group for row in read_examples(get_task("axg"), "test", tmp_path)] == [0, 0, 2, 2]


HUB = [
    ("copa", "validation", {**{name: [COPA[name]] for name in ("premise", "choice1", "choice2", "question", "idx")}, "label": [0]},
     ("choice1", "choice2"), [Example(0, ASKED_COPA, 0)]),
    ("wsc.fixed", "validation", {"text": [WSC["text"]], **{name: [value] for name, value in WSC["target"].items()}, "idx": [0], "label": [1]},
     ("False", "True"), [Example(0, MARKED_WSC, 1)]),
    ("multirc", "validation", {"paragraph": ["A cat sat."] * 2, "question": ["Who sat?"] * 2, "answer": ["A cat", "A dog"],
                               "idx": [{"paragraph": 0, "question": 4, "answer": answer} for answer in (9, 10)], "label": [1, 0]},
     ("False", "True"), [Example(0, ("A cat sat.", "Who sat? A cat"), 1), Example(1, ("A cat sat.", "Who sat? A dog"), 0, group=0)]),
    ("record", "validation", {"passage": ["Ann met Bo"], "query": ["@placeholder won"], "entities": [["Ann", "Bo"]], "answers": [["Bo"]],
                              "idx": [{"passage": 0, "query": 7}]},
     (), [Example(0, ("Ann met Bo", "Ann won"), 0, 0, 0.0), Example(1, ("Ann met Bo", "Bo won"), 1, 0, EXACT)]),
    ("axg", "test", {"premise": ["his"], "hypothesis": ["h"], "idx": [0], "label": [1]}, ("entailment", "not_entailment"), [Example(0, ("his", "h"), 1)]),
]


@pytest.mark.parametrize("config, split, columns, labels, expected", HUB, ids=[row[0] for row in HUB])
def test_the_hub_is_read_like_the_files(tmp_path, monkeypatch, config, split, columns, labels, expected):
    datasets = pytest.importorskip("datasets")
    served = datasets.Dataset.from_dict(columns)
    if labels:
        served = served.cast_column("label", datasets.ClassLabel(names=list(labels)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: {("aps/super_glue", config, split): served}[name, config, split])
    task = next(task for task in TASKS if task.hub_config == config)
    part = next(part.name for part in task.splits if part.hub == split)
    assert repr(read_examples(task, part, tmp_path)) == repr(expected)


MALFORMED = [
    ("boolq", "not json", r"val\.jsonl:1: expected a JSON object, found 'not json'"),
    ("boolq", "", r"val\.jsonl:1: expected BoolQ dev, found an empty file"),
    ("boolq", {"question": "is it", "idx": 0, "label": True}, r"val\.jsonl:1: expected the columns \['question', 'passage', 'label'\], found"),
    ("boolq", {"question": "is it", "passage": "It.", "label": "maybe"}, r"val\.jsonl:1: expected a label among false, true, False, True, found 'maybe'"),
    ("boolq", "[1]", r"val\.jsonl:1: expected a record of BoolQ"),
    ("multirc", {"idx": 0, "passage": {"text": "a"}}, r"val\.jsonl:1: expected a record of MultiRC as its official files have it"),
    ("copa", {**COPA, "question": "reason"}, r"val\.jsonl:1: expected cause or effect in column 'question', found 'reason'"),
    ("copa", {**COPA, "choice2": " "}, r"val\.jsonl:1: expected a text in column 'choice2', found an empty one"),
    ("wic", {**WIC, "end1": 99}, r"val\.jsonl:1: expected a span within the 28 letters of the text, found 16 to 99"),
    ("wic", {**WIC, "start2": -1}, r"val\.jsonl:1: expected a whole number in column 'start2', found '-1'"),
    ("wsc", {**WSC, "target": {**WSC["target"], "span2_text": "she"}}, r"val\.jsonl:1: expected 'she', column 'span2_text', in the text"),
    ("wsc", {**WSC, "target": {**WSC["target"], "span2_index": 30}}, r"val\.jsonl:1: expected a word index below 9 in column 'span2_index', found 30"),
    ("wsc", {**WSC, "target": {**WSC["target"], "span2_text": " "}}, r"val\.jsonl:1: expected a text in columns 'span1_text' and 'span2_text'"),
    ("record", {**RECORD, "qas": [{**RECORD["qas"][0], "query": "who"}]}, r"val\.jsonl:1: expected @placeholder in column 'query', found 'who'"),
    ("boolq", {"question": None, "passage": "It.", "label": True}, r"val\.jsonl:1: expected the columns \['question', 'passage', 'label'\], found \['passage', 'label'\]"),
    ("record", {**RECORD, "qas": [{"query": "@placeholder", "idx": 4}]}, r"val\.jsonl:1: expected the columns .*'label'"),
]


@pytest.mark.parametrize("name, content, message", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_record_is_refused_with_file_and_line(tmp_path, name, content, message):
    put(tmp_path, name, "val.jsonl", content)
    with pytest.raises(ValueError, match=message):
        read_examples(get_task(name), "dev", tmp_path)


def test_a_file_that_is_not_there_is_said_with_all_its_names(tmp_path):
    (tmp_path / "COPA").mkdir()
    with pytest.raises(ValueError, match=r"expected .*COPA/val\.jsonl or dev\.tsv, which is not there; fetch it: .* --tasks COPA"):
        read_examples(get_task("copa"), "dev", tmp_path)


def test_a_table_has_no_place_for_the_answers_to_record(tmp_path):
    put(tmp_path, "record", "dev.tsv", "passage\tquery\tentity\tquery_idx\tlabel\na\t@placeholder\ta\t0\t1\n")
    with pytest.raises(ValueError, match=r"expected .*ReCoRD/val\.jsonl, which is not there"):
        read_examples(get_task("record"), "dev", tmp_path)


def test_the_pronoun_that_is_marked_is_the_one_at_the_index():
    fields = {"text": "he said that he won; He did", "span1_text": "Bo", "span2_text": "He", "span2_index": "3"}
    assert superglue.wsc_texts(fields)[0] == "he said that * he * won; He did"
    assert superglue.wsc_texts({**fields, "span2_index": "4"})[0] == "he said that * he * won; He did", "off by one"
    assert superglue.wsc_texts({**fields, "span2_index": "5"})[0] == "he said that he won; * He * did"


def test_words_f1_is_squads():
    assert words_f1("The U.S. Army", "US army") == 1.0
    assert words_f1("Ann Lee", "Lee") == pytest.approx(2 / 3) and words_f1("Bo", "Ann") == 0.0
    assert words_f1("an x", "the x") == 1.0, "articles do not count"
    assert words_f1("x x y", "x y y") == pytest.approx(2 * 2 / 6)


def test_the_same_words_in_another_order_are_no_exact_match():
    answers = {"passage": "a", "query": "@placeholder won", "entities": ["Lee, Ann", "Ann Lee", "Ann"], "answers": ["ann lee"], "idx": {"query": 3}}
    assert [(row["label"], float(row["credit"])) for row in superglue.record_rows(answers)] == [("0", 1.0), ("1", EXACT), ("0", pytest.approx(2 / 3))]


@pytest.mark.realdata
def test_the_real_files_are_read_whole(shared):
    counts = {"COPA": (400, 100, 500), "WiC": (5428, 638, 1400), "WSC": (554, 104, 146), "MultiRC": (27243, 4848, 9693), "BoolQ": (None, 3270, 3245)}
    for name, expected in counts.items():
        task = get_task(name)
        for split, count in zip(("train", "dev", "test"), expected):
            if count:
                found = read_examples(task, split, shared / "superglue")
                assert len(found) == count and {example.target for example in found} == ({None} if split == "test" else {0, 1})
    groups = [example.group for example in read_examples(get_task("multirc"), "dev", shared / "superglue")]
    assert len(set(groups)) == 953 and groups == sorted(groups)
    found = read_examples(get_task("axg"), "test", shared / "superglue")
    assert len(found) == 356 and all(found[i].texts[1] == found[i + 1].texts[1] for i in range(0, 356, 2)), "pairs share their hypothesis"
    assert len(read_examples(get_task("axb"), "test", shared / "superglue")) == 1104
