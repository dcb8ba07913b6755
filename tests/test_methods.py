"""logit_kd, pkd, tinybert and relation_kd end to end, through the command line's own entry; students that fit, and others."""

import gc
import json
import shutil
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_utils.tasks import get_task
from distill import distillation, recipes, workers
from distill.__main__ import main
from distill.evaluate import encode_split, predict
from distill.teacher_cache import CachedTeacher
from distill.verbs.evaluate import read_senses
from models.checkpoint import load_encoder
from models.weights import fingerprint
from tests import tiny

TERMS = {"logit_kd": {"kl"}, "pkd": {"kl", "cls"}, "tinybert": {"kl", "hidden", "attention"}, "relation_kd": {"kl", "relation"}}
OWN = {"tinybert": ("--intermediate_share", 0.5), "relation_kd": ("--relation_heads", 8)}  # 48 do not divide these widths


def run(*words) -> int:
    return main([str(word) for word in words])


def train(recipe: str, task: str, glue: Path, teacher: Path, out: Path, *words) -> int:
    """A short run of a student."""
    return run("train", recipe, task, "--teacher", teacher, "--data_dir", glue, "--output_dir", out, "--train_batch_size", 16,
               "--max_steps", 12, "--eval_steps", 12, "--learning_rate", 2e-3, "--logging_steps", 1, "--bf16", False,
               *OWN.get(recipe, ()), *words)


def teach(model: Path, task: str, glue: Path, out: Path) -> Path:
    """A short run of a teacher; its checkpoint."""
    assert run("train", "finetune", task, "--model", model, "--data_dir", glue, "--output_dir", out, "--learning_rate", 3e-3,
               "--train_batch_size", 16, "--max_steps", 12, "--eval_steps", 12, "--bf16", False) == 0
    return out / "best"


def logged(out: Path) -> list[dict]:
    return [line for line in map(json.loads, (out / "log.jsonl").open()) if "terms" in line]


@pytest.fixture(scope="module")
def teachers(tiny_bert, tiny_deberta, tiny_glue, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Teachers by model and task."""
    out = tmp_path_factory.mktemp("teachers")
    return {(name, task): teach(model, task, tiny_glue, out / f"{name}-{task}")
            for name, model, task in (("bert", tiny_bert, "CoLA"), ("deberta", tiny_deberta, "STS-B"))}


@pytest.fixture(scope="module")
def cola(teachers) -> Path:
    return teachers["bert", "CoLA"]


# ---- each method


@pytest.mark.parametrize("limit, gone", [(16, True), (0, False)])
def test_a_teacher_whose_outputs_are_cached_has_left_when_the_student_is_trained(limit, gone, cola, tiny_glue, tmp_path, monkeypatch):
    loaded, read, fit = [], distillation.load_encoder, distillation.fit_on_task

    def load(folder):
        teacher = read(folder)
        loaded.append(weakref.ref(teacher))
        return teacher

    def look(*given):
        gc.collect()
        assert (loaded[0]() is None) == gone
        return fit(*given)

    monkeypatch.setattr(distillation, "load_encoder", load)
    monkeypatch.setattr(distillation, "fit_on_task", look)
    assert train("tinybert", "CoLA", tiny_glue, cola, tmp_path, "--max_steps", 3, "--max_cache_gib", limit) == 0 and loaded


@pytest.mark.parametrize("model, task", [("bert", "CoLA"), ("deberta", "STS-B")])
@pytest.mark.parametrize("recipe", TERMS)
def test_a_method_trains_a_student_on_its_terms(recipe, model, task, teachers, tiny_glue, tmp_path):
    assert train(recipe, task, tiny_glue, teachers[model, task], tmp_path) == 0
    assert (tmp_path / "DONE").exists() and not (tmp_path / "cache").exists() and load_encoder(tmp_path / "best").depth == 2
    log, label = logged(tmp_path), "mse" if task == "STS-B" else "ce"
    assert len(log) == 12 and set().union(*(line["terms"] for line in log)) == log[0]["weights"].keys() == TERMS[recipe] | {label}
    assert np.isfinite([value for line in log for value in line["terms"].values()]).all()
    switch = [line["terms"].keys() for line in log]
    assert switch == ([{"hidden", "attention"}] * 6 + [{"kl", label}] * 6 if recipe == "tinybert" else [switch[0]] * 12)


def test_a_finished_run_is_left_alone_and_an_unfinished_one_uses_its_cache(cola, tiny_glue, tmp_path, caplog):
    for name in ("one", "two"):
        with caplog.at_level("INFO"):
            assert train("pkd", "CoLA", tiny_glue, cola, tmp_path / name, "--cache_dir", tmp_path / "cache") == 0
    assert caplog.text.count("running the teacher once over 48 examples") == 1
    assert train("pkd", "CoLA", tiny_glue, cola, tmp_path / "one", "--cache_dir", tmp_path / "cache") == 0
    assert logged(tmp_path / "one")[-1]["terms"] == logged(tmp_path / "two")[-1]["terms"]


@pytest.mark.parametrize("words, cached", [(("--max_steps", 2), False), (("--max_steps", 3), True), (("--max_steps", 2, "--cache_dir", "cache"), True),
                                           (("--max_steps", 0, "--num_train_epochs", 0.5), False), (("--max_steps", 2, "--student", "foreign"), True)])
def test_a_run_that_reads_a_part_of_train_asks_the_teacher_for_that_part(words, cached, foreign, cola, tiny_glue, tmp_path, caplog):
    words = [{"cache": tmp_path / "cache", "foreign": foreign}.get(word, word) for word in words]
    with caplog.at_level("INFO"):
        assert train("logit_kd", "CoLA", tiny_glue, cola, tmp_path / "run", *words) == 0
    assert ("running the teacher once over 48 examples" in caplog.text) == cached
    assert ("the teacher runs at every step: the run is shorter" in caplog.text) == (not cached)


def test_on_several_machines_the_teacher_runs_at_every_step(cola, tiny_glue, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(workers, "one_machine", lambda: False)
    with caplog.at_level("INFO"):
        assert train("logit_kd", "CoLA", tiny_glue, cola, tmp_path / "run") == 0
    assert "the teacher runs at every step: on several machines" in caplog.text


def test_where_nothing_of_the_teacher_is_read_it_never_runs(cola, tiny_glue, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert train("pkd", "CoLA", tiny_glue, cola, tmp_path / "run", "--kl_weight", 0, "--cls_weight", 0) == 0
    assert "the teacher" not in caplog.text and logged(tmp_path / "run")[0]["terms"].keys() == {"ce"}


def test_a_student_that_was_made_anew_is_noticed(cola, tiny_bert, tiny_glue, tmp_path, capsys):
    student = Path(shutil.copytree(tiny_bert, tmp_path / "student"))
    words = ("logit_kd", "CoLA", tiny_glue, cola, tmp_path / "run", "--student", student, "--max_steps", 1)
    assert train(*words) == 0 and train(*words) == 0
    shutil.copytree(tiny.write_bert(tmp_path / "another", hidden_dropout_prob=0.0, num_hidden_layers=3), student, dirs_exist_ok=True)
    assert train(*words) == 1 and "read other student" in capsys.readouterr().err


# ---- students with a vocabulary of their own


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """As wide as the teacher, of three layers, with ids that mean other words."""
    return tiny.write_bert(tmp_path_factory.mktemp("foreign") / "model", tiny.WORDS[::-1][:-2], num_hidden_layers=3)


@pytest.mark.parametrize("recipe, student", [("logit_kd", "tiny_deberta"), ("logit_kd", "foreign"), ("pkd", "foreign")])
def test_examples_are_compared_with_a_student_of_another_vocabulary_each_reading_its_own_ids(
        recipe, student, request, cola, tiny_glue, tmp_path):
    words = ("--student", request.getfixturevalue(student), "--student_layers", "truncate:2", "--max_cache_gib", 0,
             "--cache_dir", tmp_path / "cache")
    assert train(recipe, "CoLA", tiny_glue, cola, tmp_path / "run", *words) == 0
    saved, teacher = load_encoder(tmp_path / "run/best"), load_encoder(cola)
    assert saved.depth == 2 and saved.tokenizer.get_vocab() != teacher.tokenizer.get_vocab()
    (cache,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    data = encode_split(teacher, get_task("CoLA"), "train", str(tiny_glue))
    np.testing.assert_allclose(CachedTeacher(cache).columns["logits"], predict(teacher, data), atol=1e-5)


@pytest.mark.parametrize("recipe", ["tinybert", "relation_kd", "sense_kd"])
def test_methods_that_compare_tokens_refuse_another_vocabulary_and_name_those_that_do_not(
        recipe, foreign, cola, tiny_glue, tmp_path, capsys):
    words = []
    if recipe == "sense_kd":
        assert run("senses", "build", "CoLA", "--teacher", cola, "--data_dir", tiny_glue, "--num_senses", 3, "--output_dir", tmp_path / "senses") == 0
        words = ["--senses", tmp_path / "senses"]
    assert train(recipe, "CoLA", tiny_glue, cola, tmp_path / "run", "--student", foreign, *words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and "another vocabulary" in said and "logit_kd and pkd" in said and "truncate:N" in said
    assert not (tmp_path / "run").exists()


def test_evaluation_says_where_senses_are_of_another_teacher_than_the_models(cola, tiny_bert, tiny_glue, tmp_path, caplog):
    assert run("senses", "build", "CoLA", "--teacher", cola, "--data_dir", tiny_glue, "--num_senses", 3, "--output_dir", tmp_path / "senses") == 0
    assert train("sense_kd", "CoLA", tiny_glue, cola, tmp_path / "student", "--senses", tmp_path / "senses") == 0
    for place in (cola, tmp_path / "student", tmp_path / "student/best", tiny_bert):
        caplog.clear()
        read_senses(SimpleNamespace(senses=tmp_path / "senses", checkpoint=place, similarity=None), load_encoder(cola))
        assert bool(caplog.messages) == (place == tiny_bert), place
    assert f"{tiny_bert} has weights {fingerprint(tiny_bert)}: " in caplog.text and fingerprint(cola) in caplog.text


def test_sense_kd_takes_relations_beside_senses(cola, tiny_glue, tmp_path):
    assert run("senses", "build", "CoLA", "--teacher", cola, "--data_dir", tiny_glue, "--num_senses", 3, "--output_dir", tmp_path / "senses") == 0
    words = ("--senses", tmp_path / "senses", "--relation_weight", 2, "--relation_heads", 8)
    assert train("sense_kd", "CoLA", tiny_glue, cola, tmp_path / "run", *words) == 0
    assert set(next(line["terms"] for line in logged(tmp_path / "run") if "terms" in line)) == {"ce", "kl", "sense", "relation"}


# ---- students of another shape


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> dict[int, Path]:
    """Sixteen wide, two layers, the teacher's vocabulary; by the number of attention heads."""
    out = tmp_path_factory.mktemp("narrow")
    return {heads: tiny.write_bert(out / str(heads), hidden_size=16, num_hidden_layers=2, num_attention_heads=heads) for heads in (1, 2)}


@pytest.mark.parametrize("recipe, heads, words", [
    ("logit_kd", 1, ()), ("relation_kd", 1, ()), ("tinybert", 2, ()), ("tinybert", 1, ("--attention_weight", 0)),
    ("pkd", 1, ("--layer_map", "2:4"))])
def test_a_student_of_another_width_is_distilled_by_what_takes_any(recipe, heads, words, narrow, cola, tiny_glue, tmp_path):
    assert train(recipe, "CoLA", tiny_glue, cola, tmp_path, "--student", narrow[heads], *words) == 0
    saved = load_encoder(tmp_path / "best")
    assert (saved.config.hidden_size, saved.width) == (16, 32)
    own = logged(tmp_path)[0]["terms"].keys() - {"ce", "kl"}
    assert own == TERMS[recipe] - {"kl"} - ({"attention"} if "--attention_weight" in words else set())


@pytest.mark.parametrize("recipe, words, said", [
    ("pkd", (), "16 wide, the teacher's layer 2 32; relation_kd, tinybert and logit_kd take any width"),
    ("tinybert", (), "the student has 1, the teacher 2; set --attention_weight 0, or take relation_kd"),
    ("relation_kd", ("--relation_heads", 32), "--relation_heads 32 does not divide the student's 16 hidden units: give a common divisor"),
    ("relation_kd", ("--teacher_layer", 5), "the teacher has no layer 5, but 1 to 4"),
    ("tinybert", ("--layer_map", "0:0"), "--attention_weight 0"), ("pkd", ("--layer_map", "1:7"), "--layer_map 1:7 does not fit")])
def test_what_does_not_fit_says_what_does_before_anything_is_written(recipe, words, said, narrow, cola, tiny_glue, tmp_path, capsys):
    assert train(recipe, "CoLA", tiny_glue, cola, tmp_path / "run", "--student", narrow[1], *words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and said in line and not (tmp_path / "run").exists()


def test_a_student_reads_no_more_than_its_teacher_can_and_longer_texts_are_refused(tiny_bert, tiny_glue, tmp_path, capsys):
    short = teach(tiny.write_bert(tmp_path / "short", max_position_embeddings=12), "MRPC", tiny_glue, tmp_path / "teacher")
    assert train("logit_kd", "MRPC", tiny_glue, short, tmp_path / "run", "--student", tiny_bert, "--max_length", 16) == 1
    assert "the model has 12 positions; give no more" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert train("logit_kd", "MRPC", tiny_glue, short, tmp_path / "run", "--student", tiny_bert) == 0


# ---- one more method


COSINE = '''
"""Last states that point the same way."""

from dataclasses import dataclass

from torch.nn import functional as F

from distill import distillation
from distill.config import setting
from distill.distillation import DistilConfig, distil, label_terms
from distill.teacher import Wanted
from distill.terms import Term

default_preset = distillation.default_preset
PER_TASK = PRESET_DEFAULTS = {"small": {}}


@dataclass(frozen=True, kw_only=True)
class Config(DistilConfig):
    """Settings."""

    angle_weight: float = setting(1.0, "weight of the angle")


class Angle(Term):
    """1 - cos of last states, per token."""

    name = "angle"

    def __init__(self, layer):
        super().__init__()
        self.wanted = Wanted(hidden=(layer,))

    def count(self, batch):
        return batch.tokens

    def forward(self, found, target, batch):
        real = batch.attention_mask.bool()
        return (1 - F.cosine_similarity(found.hidden[-1][real], target.hidden[-1][real], dim=-1)).sum()


def run(cfg, task, run_dir):
    return distil(cfg, task, run_dir, lambda student, teacher: [*label_terms(cfg, task), (Angle(teacher.depth), cfg.angle_weight)])
'''


def test_a_method_is_one_new_file(cola, tiny_glue, tmp_path, monkeypatch, capsys):
    """Its terms, its setting and its name on the command line; a cache of what it wants, exact resume and the rest come with it."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/angle_kd.py").write_text(COSINE)
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path / "recipes")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    try:
        assert train("angle_kd", "CoLA", tiny_glue, cola, tmp_path / "run", "--angle_weight", 2.0, "--cache_dir", tmp_path / "cache") == 0
        assert train("angel_kd", "CoLA", tiny_glue, cola, tmp_path / "none") == 1
        assert "did you mean angle_kd?" in capsys.readouterr().err
        assert main(["train", "--help"]) == 0 and "angle_kd" in capsys.readouterr().out
    finally:
        sys.modules.pop("distill.recipes.angle_kd", None)
    log = logged(tmp_path / "run")
    assert log[-1]["weights"] == {"ce": 1.0, "kl": 1.0, "angle": 2.0} and log[-1]["terms"]["angle"] < log[0]["terms"]["angle"]
    assert {file.stem for file in (tmp_path / "cache").glob("*/*.bin")} == {"logits", "hidden.4"}
