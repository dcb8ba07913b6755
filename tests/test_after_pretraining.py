"""What becomes of a pre-training run: records, students on tasks, and what happens where its models are made anew or do not fit."""

import json
import shutil
import sys

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from data_utils.tasks import TEXT, get_task
from distill.config import parse
from distill.recipes import finetune, pretrain
from distill.report import read_records
from distill.report.reproduce import command
from distill.report.tables import table
from models.checkpoint import load_encoder
from models.pretrained import masked_lm
from tests.corpora import packed
from tests.pretraining import words, write_places
from tests.test_shell import sh
from tests.training import run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_places(tmp_path_factory.mktemp("after"))


@pytest.fixture(scope="module")
def student(places, tmp_path_factory):
    """A run of the preset distilbert, with one token type."""
    out = tmp_path_factory.mktemp("student") / "run"
    given = words(places, out, "--preset", "distilbert")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["distill", *given])
        assert run(*given) == 0
    return out


def test_a_pre_trained_student_is_fine_tuned_from_its_own_layers_on_one_text_and_on_two(student, tiny_glue, tmp_path):
    made = masked_lm(str(student / "best"))
    for task in ("CoLA", "MRPC"):
        given = ["--model", student / "best", "--data_dir", tiny_glue, "--output_dir", tmp_path / task, "--max_steps", 3, "--bf16", False]
        begun = finetune.start(parse(finetune.Config, [str(word) for word in given], {}), get_task(task))
        assert begun.depth == made.depth == 2 and not begun.type_ids
        assert all(torch.equal(one, other) for one, other in zip(begun.backbone.parameters(), made.backbone.parameters(), strict=True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["distill", "train", "finetune", task])
            assert run("train", "finetune", task, *given) == 0
        tuned = load_encoder(tmp_path / task / "best")
        moved = [not torch.equal(one, other) for one, other in zip(tuned.backbone.parameters(), made.backbone.parameters(), strict=True)]
        assert run("report", "--records", tmp_path / "records", "add", "pretraining", "it", tmp_path / task) == 0
        assert any(moved) and json.loads((tmp_path / task / "scores.json").read_text())["values"]
    assert {(found.steps, found.tokens > 0) for found in read_records(tmp_path / "records")} == {(12, True)}, "those of what it starts from"


def test_a_run_is_recorded_by_the_words_that_it_finds_with_its_steps_and_tokens(places, student, tmp_path, caplog):
    records = ("report", "--records", tmp_path / "results.jsonl")
    assert run(*records, "add", "pretraining", "distilbert", student) == 0
    (found,) = read_records(tmp_path / "results.jsonl")
    scores, log = json.loads((student / "scores.json").read_text()), map(json.loads, (student / "log.jsonl").read_text().splitlines())
    assert (found.task, found.split, found.metric, found.recipe, found.steps) == ("text", "heldout", "accuracy", "pretrain", 12)
    assert (found.value, found.n) == (scores["values"]["heldout/accuracy"], scores["counts"]["heldout/accuracy"])
    assert found.tokens == sum(line.get("tokens", 0) for line in log) > 0 and found.data
    header, _, line, _ = table([found]).splitlines()
    assert header == "| | text heldout, accuracy | selected on | pre-training, steps | pre-training, tokens |" and f"| 12 | {found.tokens:,} |" in line
    again = command(found, {"data_dir": "glue", "teacher": "t", "model": "", "senses": ""}, tmp_path / "again")
    assert "--data_dir" not in again and again[-2:] == ["--output_dir", str(tmp_path / "again")]
    assert run(*words(places, tmp_path / "relations", "--preset", "minilmv2", "--warmup_steps", 0, "--max_steps", 1)) == 0
    assert run(*records, "add", "pretraining", "minilmv2", tmp_path / "relations") == 0
    assert "has no score to record" in caplog.text and len(read_records(tmp_path / "results.jsonl")) == 1


@pytest.mark.parametrize("setting", ["teacher", "student"])
def test_a_finished_run_is_not_complete_where_a_model_that_it_read_was_made_anew(places, tmp_path, capsys, setting):
    shutil.copytree(places / "teacher", tmp_path / "model")
    command = words(places, tmp_path / "run", f"--{setting}", tmp_path / "model", "--max_steps", 1)
    assert run(*command) == 0 and run(*command) == 0
    BertForMaskedLM(BertConfig.from_pretrained(tmp_path / "model")).save_pretrained(tmp_path / "model")
    assert run(*command) == 1
    assert f"holds a run that read other {setting}" in capsys.readouterr().err


def test_unmasked_text_teaches_by_soft_targets_at_all_tokens_and_is_judged_by_masked_words(places, tmp_path):
    assert 0 == run(*words(places, tmp_path / "run", "--mlm_weight", 0, "--cos_weight", 0, "--mlm_probability", 0))
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["counts"]["heldout/accuracy"] > 0 and set(scores["terms"]) == {"kl"}


def test_a_teacher_whose_head_is_not_read_needs_none(places, tmp_path, capsys):
    command = words(places, tmp_path / "run", "--teacher", places / "bare", "--student", places / "teacher", "--max_steps", 1)
    assert run(*command) == 1 and "is not a masked language model" in capsys.readouterr().err, "soft targets are scores of its words"
    assert run(*command, "--kl_weight", 0) == 0
    assert run(*command, "--kl_weight", 0, "--student", "all") == 1, "its head is the student's first"
    assert run(*command, "--kl_weight", 0, "--student", "all", "--random_init", True, "--output_dir", tmp_path / "fresh") == 0


def test_text_of_no_known_word_is_refused_where_words_are_learned(places, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n\n".join(["\u4f60\u597d \u4e16\u754c " * 9] * 30))
    packed([tmp_path / "text.txt"], masked_lm(str(places / "teacher")).tokenizer, tmp_path / "corpus")
    assert run(*words(places, tmp_path / "run", "--corpus", tmp_path / "corpus")) == 1
    assert "no held-out token can be masked, its tokenizer knows none of these words" in capsys.readouterr().err


def test_rows_of_another_length_or_layout_are_other_data(places):
    found = [pretrain.facts(parse(pretrain.Config, words(places, "nowhere", *more)[3:], {}), TEXT)["data"]
             for more in ((), ("--seed", 3), ("--max_length", 16), ("--layout", "packed"))]
    assert found[0] == found[1] and len({data["heldout"] for data in found}) == 3


def test_help_of_the_script_packs_nothing(tmp_path):
    done = sh("scripts/pretrain.sh", "--help", RUNS=tmp_path, TEXT=tmp_path / "none")
    assert done.returncode == 0 and "--relation_heads" in done.stdout and not list(tmp_path.iterdir())


def test_runs_are_held_against_the_first_word_by_word(places, student, tmp_path, capsys):
    more = ("--preset", "mlm", "--bf16", False, "--eval_on_start", True)
    assert run(*words(places, tmp_path / "alone", *more)) == 0 and run(*words(places, tmp_path / "shorter", *more, "--max_length", 16)) == 0
    capsys.readouterr()
    assert run("report", "words", tmp_path / "alone", student, places, "--temperature", 3) == 1 and "neither a run directory" in capsys.readouterr().err
    assert run("report", "words", tmp_path / "alone", student, tmp_path / "alone", "--temperature", 1) == 0
    lines = [[part.strip() for part in line.split("|")[2:-1]] for line in capsys.readouterr().out.splitlines()[2:5]]
    scores = json.loads((tmp_path / "alone/scores.json").read_text())
    assert lines[0] == lines[2] and lines[0][:2] == [f"{100 * scores['values']['heldout/accuracy']:.1f}", f"{scores['terms']['mlm']:.3f}"]
    assert lines[0][2] == lines[0][3] and lines[0][4:] == ["-", "-"], "the entropy at temperature 1 is that of the distribution itself"
    assert float(lines[1][5].split(" ± ")[0]) == pytest.approx(float(lines[1][1]) - float(lines[0][1]), abs=2e-3)
    assert run("report", "words", tmp_path / "alone", tmp_path / "shorter") == 1 and "was judged on other words" in capsys.readouterr().err
