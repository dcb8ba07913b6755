"""The task table: spellings, labels, splits."""
import dataclasses

import pytest

from data_utils import metrics
from data_utils.tasks import TASKS, get_task, task_names


@pytest.mark.parametrize("spelling, name", [
    ("sst2", "SST-2"), ("SST2", "SST-2"), ("sst-2", "SST-2"), ("SST", "SST-2"), ("COLA", "CoLA"), ("stsb", "STS-B"), ("sts_b", "STS-B"),
    ("mnli", "MNLI"), ("mrpc", "MRPC"), ("Qqp", "QQP"), ("diagnostic", "AX"), ("ax", "AX"), ("Demo", "demo"),
    ("boolq", "BoolQ"), ("MULTIRC", "MultiRC"), ("record", "ReCoRD"), ("wsc", "WSC"), ("ax_b", "AX-b"), ("AXg", "AX-g"),
    ("imdb", "IMDb"), ("aclImdb", "IMDb"),
    ("squad", "SQuAD"), ("squad_v2", "SQuAD2"), ("SQuAD2.0", "SQuAD2"), ("tydiqa-goldp-en", "TyDiQA")])
def test_every_usual_spelling_finds_its_task(spelling, name):
    assert get_task(spelling).name == name


def test_an_unknown_task_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match=r"'mrcp'; nearest: MRPC; tasks: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI, AX, BoolQ, CB, COPA, MultiRC, ReCoRD, WiC, WSC, AX-b, AX-g, SQuAD, SQuAD2, TyDiQA, IMDb, demo"):
        get_task("mrcp")
    with pytest.raises(ValueError, match="unknown task ''"):
        get_task("")


def test_an_unknown_split_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match="MNLI has no split 'dev'; nearest: dev_.*; splits: train, dev_matched"):
        get_task("mnli").split("dev")


def test_no_two_tasks_share_a_spelling_and_tasks_are_hashable_and_frozen():
    for task in TASKS:
        for spelling in (task.name, *task.folders):
            assert get_task(spelling) is task
    assert len(set(TASKS)) == len(TASKS) == len(task_names())
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASKS[0].name = "other"


def test_class_order_is_the_hubs_and_wnli_is_the_opposite_of_rte():
    # Source: the ClassLabel names in huggingface/datasets, datasets/glue/dataset_infos.json.
    assert get_task("mnli").labels == get_task("ax").labels == ("entailment", "neutral", "contradiction")
    assert get_task("rte").labels == get_task("qnli").labels == ("entailment", "not_entailment")
    assert get_task("wnli").labels == ("not_entailment", "entailment")
    assert get_task("mrpc").labels == ("not_equivalent", "equivalent")
    assert get_task("qqp").labels == ("not_duplicate", "duplicate")
    assert get_task("cola").labels == ("unacceptable", "acceptable")
    assert get_task("sst2").labels == ("negative", "positive")
    # datasets/super_glue/dataset_infos.json
    assert get_task("cb").labels == ("entailment", "contradiction", "neutral")
    assert get_task("axb").labels == get_task("axg").labels == get_task("rte").labels
    assert all(get_task(name).labels == ("False", "True") for name in ("boolq", "multirc", "wic", "wsc"))


def test_selection_uses_mnli_matched():
    assert get_task("mnli").dev_splits == ("dev_matched", "dev_mismatched")
    assert get_task("mnli").test_splits == ("test_matched", "test_mismatched")
    assert [split.submissions for split in get_task("mnli").splits] == [(), (), (), ("MNLI-m.tsv",), ("MNLI-mm.tsv",)]


def test_dev_splits_of_other_tasks_and_of_the_diagnostic_set():
    assert get_task("rte").dev_splits == ("dev",)
    assert get_task("ax").dev_splits == () and get_task("ax").predicted_by == "MNLI"


def test_models_of_imdb_alone_are_scored_on_the_test_set_which_selects_none():
    assert get_task("imdb").dev_splits == ("test",)
    assert [task.name for task in TASKS if task.scored_on_test] == ["IMDb"], "of AX-b and AX-g no model is trained"
    assert [task.name for task in TASKS if task.train_selects] == ["TyDiQA", "IMDb"]


def test_the_width_of_the_logits_is_one_for_regression_and_the_number_of_classes_else():
    assert {task.name: task.num_labels for task in TASKS} == {
        "CoLA": 2, "SST-2": 2, "MRPC": 2, "STS-B": 1, "QQP": 2, "MNLI": 3, "QNLI": 2, "RTE": 2, "WNLI": 2, "AX": 3, "demo": 2,
        "BoolQ": 2, "CB": 3, "COPA": 2, "MultiRC": 2, "ReCoRD": 2, "WiC": 2, "WSC": 2, "AX-b": 2, "AX-g": 2,
        "SQuAD": 2, "SQuAD2": 2, "TyDiQA": 2, "IMDb": 2}
    assert [task.name for task in TASKS if task.is_regression] == ["STS-B"]


def test_metrics_are_those_of_glue_and_all_exist():
    assert get_task("mrpc").metrics == get_task("qqp").metrics == ("f1", "accuracy")
    assert get_task("stsb").metrics == ("pearson", "spearman") and get_task("cola").metrics == ("matthews",)
    for task in TASKS:
        for name in task.metrics:
            metrics.check_metric(name)


def test_every_entry_is_consistent():
    for task in TASKS:
        assert len(task.raw_labels) == len(task.labels) and len(task.texts) in ((1 + task.num_choices,) if task.num_choices else (1, 2))
        assert task.num_choices in (0, len(task.labels))
        assert all(len(spelling) == len(task.labels) for spelling in (*task.spellings, task.submitted_labels) if spelling)
        assert bool(task.form) == bool(task.fields) and (task.form or task.name == "demo" or len(task.hub_texts) == len(task.texts))
        assert len({split.files for split in task.splits}) == len(task.splits)
        assert all(split.submissions or split.labelled for split in task.splits if task.name != "demo")
        assert all(not split.submissions for split in task.splits if split.name == "train" or split.name.startswith("dev"))


def test_questions_over_a_text_are_told_by_their_starts_and_ends_and_share_the_official_metrics():
    spans = [task for task in TASKS if task.spans]
    assert [task.name for task in spans] == ["SQuAD", "SQuAD2", "TyDiQA"] and [task.unanswerable for task in spans] == [False, True, False]
    assert {(task.texts, task.labels, task.metrics) for task in spans} == {(("question", "context"), ("start", "end"), ("squad_em", "squad_f1"))}


def test_lengths_are_the_published_ones():
    assert {task.name: task.max_length for task in TASKS} == {
        "CoLA": 128, "MNLI": 256, "MRPC": 128, "QNLI": 512, "QQP": 320, "RTE": 320, "SST-2": 128, "STS-B": 128, "WNLI": 128, "AX": 256,
        "demo": 64,
        "BoolQ": 256, "CB": 256, "COPA": 128, "MultiRC": 512, "ReCoRD": 512, "WiC": 256, "WSC": 256, "AX-b": 320, "AX-g": 320,
        "SQuAD": 384, "SQuAD2": 384, "TyDiQA": 384, "IMDb": 512}
