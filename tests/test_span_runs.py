"""Answers in a text through training, distillation and evaluation."""

import json

import pytest
import torch

from data_utils.batching import TrainStream
from data_utils.tasks import get_task
from distill.bench.latency import measure_latency
from distill.evaluate import answer_questions
from distill.scores import load_predictions
from distill.spans import answers_by_id
from models.checkpoint import load_encoder
from tests.spans import CUT, dev
from tests.training import only, run

# ---- training


def test_fine_tuning_learns_to_answer_and_every_question_is_judged_once(span_teachers, squad):
    for (task, model), folder in span_teachers.items():
        scores = json.loads((folder / "scores.json").read_text())
        split = "heldout" if task == "TyDiQA" else "dev"
        assert set(scores["values"]) == {f"{split}/squad_em", f"{split}/squad_f1"} and scores["selected_on"] == split
        if task == "SQuAD":
            assert scores["counts"]["dev/squad_f1"] == 8 and scores["values"]["dev/squad_f1"] > 0.4, model
            kept = load_predictions(folder / "predictions.npz")["dev"]
            assert kept.uid.tolist() == list(range(8)) and all(isinstance(text, str) for text in kept.texts().values())
    encoder = load_encoder(span_teachers["SQuAD", "bert"])
    assert encoder.info.spans and encoder.info.labels == ("start", "end") and encoder.width == 32


@pytest.mark.parametrize("recipe, words", [("logit_kd", ()), ("pkd", ()), ("tinybert", ()), ("relation_kd", ("--relation_heads", 8))])
def test_methods_distil_from_a_cache_as_from_the_live_teacher(recipe, words, span_teachers, squad, tmp_path):
    weights = []
    for limit in (1, 0):  # GiB of cache
        assert run("train", recipe, "SQuAD", "--teacher", span_teachers["SQuAD", "bert"], "--data_dir", squad, "--output_dir", tmp_path / str(limit), "--max_steps", 4,
                   "--train_batch_size", 6, "--bf16", False, "--max_cache_gib", limit, *CUT, *words) == 0
        weights.append(load_encoder(tmp_path / str(limit) / "best").state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-4, rtol=1e-2)


def test_the_second_distillation_weighs_its_terms_as_published_and_starts_at_zero_from_the_whole_teacher(span_teachers, squad, tmp_path):
    assert run("train", "logit_kd", "SQuAD", "--teacher", span_teachers["SQuAD", "bert"], "--student", "all", "--data_dir", squad, "--output_dir", tmp_path,
               "--max_steps", 2, "--logging_steps", 1, "--bf16", False, *CUT) == 0
    config, first = json.loads((tmp_path / "config.json").read_text()), json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert (config["ce_weight"], config["kl_weight"], config["temperature"]) == (0.5, 0.5, 2.0) and set(first["terms"]) == {"span_ce", "kl"}
    assert first["weights"] == {"span_ce": 0.5, "kl": 0.5} and first["terms"]["span_ce"] > 1e-6


def test_a_student_with_another_vocabulary_is_refused(span_teachers, squad, tiny_deberta, tmp_path, capsys):
    assert run("train", "logit_kd", "SQuAD", "--teacher", span_teachers["SQuAD", "bert"], "--student", tiny_deberta, "--data_dir", squad, "--output_dir", tmp_path / "run", *CUT) == 1
    said = capsys.readouterr().err
    assert "SQuAD compares their tokens one by one: take a student with the teacher's vocabulary" in said and "pkd" not in said


def test_an_interrupted_run_ends_as_an_undisturbed_one(squad, tiny_bert, tmp_path, exact):
    words = ["train", "finetune", "SQuAD2", "--model", tiny_bert, "--data_dir", squad, "--max_steps", 6, "--train_batch_size", 8, "--save_steps", 2,
             "--eval_steps", 3, "--bf16", False, *CUT]
    assert run(*words, "--output_dir", tmp_path / "whole") == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        only(TrainStream, 5, monkeypatch)
        assert run(*words, "--output_dir", tmp_path / "cut") != 0 and not (tmp_path / "cut/DONE").exists()
    assert run(*words, "--output_dir", tmp_path / "cut") == 0
    whole, cut = (load_encoder(tmp_path / name / "last").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    one, other = (json.loads((tmp_path / name / "scores.json").read_text())["values"] for name in ("whole", "cut"))
    assert one == other


def test_senses_of_questions_need_no_windows(span_teachers, squad, tmp_path):
    assert run("senses", "build", "SQuAD", "--teacher", span_teachers["SQuAD", "bert"], "--data_dir", squad, "--output_dir", tmp_path, "--num_senses", 2,
               "--max_length", 48, "--bf16", False) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["coverage"]["dev"] > 0.9


def test_self_teaching_cuts_a_network_that_answers_in_a_text(squad, tiny_bert, tmp_path):
    assert run("train", "self_teaching", "SQuAD", "--model", tiny_bert, "--data_dir", squad, "--output_dir", tmp_path, "--max_steps", 4, "--bf16", False, *CUT) == 0
    student, dataset = dev(tmp_path / "best", squad)
    assert student.depth == 2 and len(answer_questions(student, get_task("SQuAD"), dataset)) == 8


def test_mpdistil_and_the_constant_answer_refuse_them(squad, tiny_bert, tmp_path, capsys):
    assert run("train", "mpdistil", "SQuAD", "--model", tiny_bert, "--data_dir", squad, "--output_dir", tmp_path / "run", *CUT) == 1
    assert "mpdistil cannot study SQuAD, its answers are parts of a text" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert run("report", "--records", tmp_path / "records.jsonl", "constant", "SQuAD", "main", "--data_dir", squad) == 1
    assert "there is no constant one" in capsys.readouterr().err


def test_every_token_is_read_and_another_pooling_is_refused(squad, tiny_glue, tiny_bert, tmp_path, capsys):
    for task, data, pooling, said in (("SQuAD", squad, "cls", "SQuAD has them"), ("CoLA", tiny_glue, "tokens", "CoLA has none")):
        for recipe in ("finetune", "self_teaching"):
            assert run("train", recipe, task, "--model", tiny_bert, "--data_dir", data, "--output_dir", tmp_path / "run", "--pooling", pooling) == 1
            assert f"--pooling {pooling}" in (line := capsys.readouterr().err) and said in line and not (tmp_path / "run").exists()


def test_a_copy_without_answers_selects_on_a_part_of_train_or_says_so(squad, tiny_bert, tmp_path, capsys):
    words = ("train", "finetune", "TyDiQA", "--model", tiny_bert, "--data_dir", squad, "--output_dir", tmp_path / "run", "--max_steps", 1, *CUT)
    assert run(*words, "--select_on", "dev") == 1
    assert "came without its answers; train with --select_on heldout" in capsys.readouterr().err
    assert run(*words) == 0 and json.loads((tmp_path / "run/config.json").read_text())["select_on"] == "heldout"


def test_windows_are_a_setting_and_other_tasks_refuse_it(squad, tiny_glue, tiny_bert, tmp_path, capsys):
    terms = []
    for stride in (2, 12):
        out = tmp_path / str(stride)
        assert run("train", "finetune", "SQuAD", "--model", tiny_bert, "--data_dir", squad, "--output_dir", out, "--max_steps", 1, "--max_length", 24,
                   "--stride", stride, "--max_query_length", 4) == 0
        terms.append(json.loads((out / "log.jsonl").read_text().splitlines()[0])["terms"])
    assert terms[0] != terms[1], "other windows"
    assert run("train", "finetune", "CoLA", "--model", tiny_bert, "--data_dir", tiny_glue, "--output_dir", tmp_path / "cola", "--stride", 8) == 1
    assert "the examples of CoLA are read whole" in capsys.readouterr().err


# ---- evaluate


def test_one_tasks_model_answers_the_others_questions_and_writes_the_answers(span_teachers, squad, tmp_path, capsys):
    words = ("--checkpoint", span_teachers["SQuAD", "bert"], "--data_dir", squad)  # cut as in training
    assert run("evaluate", "SQuAD", *words, "--predictions", tmp_path / "squad.json", "--output", tmp_path / "scores.json") == 0
    encoder, dataset = dev(span_teachers["SQuAD", "bert"], squad)
    expected = answers_by_id(answer_questions(encoder, get_task("SQuAD"), dataset), dataset)
    assert json.loads((tmp_path / "squad.json").read_text()) == expected and list(expected)[0] == "SQuAD-dev-v1.1.json-0"
    assert run("evaluate", "TyDiQA", *words, "--predictions", tmp_path / "tydiqa.json") == 0
    assert len(json.loads((tmp_path / "tydiqa.json").read_text())) == 8, "unlabelled copies can be answered"
    capsys.readouterr()
    assert run("evaluate", "TyDiQA", *words) == 1 and "give --predictions FILE" in capsys.readouterr().err
    assert run("evaluate", "SQuAD2", *words) == 0
    printed = capsys.readouterr().out
    assert "dev/squad_em" in printed and "dev, questions with an answer (n=4) squad_em" in printed and "; without one (n=4) squad_em" in printed


def test_a_model_of_short_windows_is_scored_and_timed_by_them(span_teachers, squad):
    words = ("--checkpoint", span_teachers["SQuAD", "deberta"], "--data_dir", squad)
    assert run("evaluate", "SQuAD", *words) == 0
    assert run("evaluate", "SQuAD", *words, "--stride", 60) == 1, "64 tokens, of a question 8"
    assert measure_latency(span_teachers["SQuAD", "deberta"].parent, squad, batches=1)["tokens"] <= 64


def test_what_an_answer_may_be_is_a_setting_of_evaluate(span_teachers, squad, tmp_path, capsys):
    words = ("--checkpoint", span_teachers["SQuAD2", "bert"], "--data_dir", squad, *CUT, "--predictions", tmp_path / "found.json")
    assert run("evaluate", "SQuAD2", *words, "--no_answer_threshold", -1000) == 0
    assert set(json.loads((tmp_path / "found.json").read_text()).values()) == {""}
    assert run("evaluate", "SQuAD2", *words, "--no_answer_threshold", 1000, "--max_answer_length", 1) == 0
    found = json.loads((tmp_path / "found.json").read_text()).values()
    assert "" not in found and all(len(text.split()) == 1 for text in found)
    capsys.readouterr()
    for bad in (("--n_best", 0), ("--max_answer_length", 0), ("--pooling", "mean"), ("--stride", -1), ("--max_query_length", 0),
                ("--output", tmp_path / "none/scores.json")):
        assert run("evaluate", "SQuAD2", *words, *bad) == 1 and bad[0] in capsys.readouterr().err


def test_tasks_without_texts_to_search_refuse_those_settings(tiny_glue, tmp_path, capsys):
    for words in (("--predictions", tmp_path / "x"), ("--n_best", 3)):
        assert run("evaluate", "CoLA", "--checkpoint", tmp_path, "--data_dir", tiny_glue, *words) == 1
        assert "are for answers in a text, CoLA has none" in capsys.readouterr().err
