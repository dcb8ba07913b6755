"""r1, r2, r3 and both evaluations end to end, on tiny models and tasks, through the command line's own entry."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel, DebertaV2Config, DebertaV2Model

from data_utils.tasks import get_task
from distill.__main__ import main
from distill.evaluate import dev_splits, predict
from distill.senses.dictionary import SenseDictionary
from models.checkpoint import load_encoder
from models.heads import SenseLookup

CASES = [("tiny_bert", "MRPC"), ("tiny_bert", "CoLA"), ("tiny_bert", "STS-B"), ("tiny_deberta", "MRPC"), ("tiny_deberta", "CoLA")]
TRAINED = {"DONE", "config.json", "origin.json", "log.jsonl", "best", "last", "scores.json"}
CHECKPOINT = {"config.json", "model.safetensors", "task.json", "scores.json", "tokenizer.json", "tokenizer_config.json"}


def distil(*words) -> None:
    assert main([str(word) for word in words]) == 0


def teach(model: Path, task: str, glue: Path, out: Path, *words) -> Path:
    distil("train", "finetune", task, "--model", model, "--data_dir", glue, "--output_dir", out / "teacher",
           "--learning_rate", 3e-3, "--train_batch_size", 16, "--max_steps", 12, *words)
    return out / "teacher"


def build(task: str, glue: Path, out: Path, *words) -> Path:
    distil("senses", "build", task, "--teacher", out / "teacher/best", "--data_dir", glue, "--num_senses", 4,
           "--output_dir", out / "senses", *words)
    return out / "senses"


def student_words(task: str, glue: Path, out: Path, name: str, *words) -> list[str]:
    """The command line of a student of the teacher and senses in `out`."""
    return [str(word) for word in ("train", "sense_kd", task, "--teacher", out / "teacher/best", "--senses", out / "senses",
                                   "--data_dir", glue, "--output_dir", out / name, "--max_steps", 4, "--train_batch_size", 16,
                                   *words)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def printed(capsys, reading: str) -> dict[str, float]:
    """The metrics in percent of the one printed line whose head reads `reading`."""
    (line,) = [line for line in capsys.readouterr().out.splitlines() if re.search(f"head reads {reading}( by \\w+)?:", line)]
    return {name: float(value) for name, value in re.findall(r"(\w+/\w+) (-?[\d.]+) \+-", line)}


def percent(run: Path) -> dict[str, float]:
    """The best scores of a run as `evaluate` would print them."""
    values = json.loads((run / "best/scores.json").read_text())["values"]
    return {name: float(f"{100 * value:.2f}") for name, value in values.items()}


def dev_logits(folder: Path, task: str, glue: Path) -> np.ndarray:
    encoder = load_encoder(folder)
    return predict(encoder, dev_splits(encoder, get_task(task), str(glue))["dev"])


@pytest.fixture(scope="module")
def cola(tiny_bert, tiny_glue, tmp_path_factory):
    """Folder with a CoLA teacher and its senses."""
    out = tmp_path_factory.mktemp("cola")
    teach(tiny_bert, "CoLA", tiny_glue, out)
    build("CoLA", tiny_glue, out)
    return out


@pytest.mark.parametrize("model, task", CASES)
def test_the_main_job_runs_through_leaves_complete_runs_and_its_scores_are_those_of_evaluate(
        model, task, request, tiny_glue, tmp_path, capsys):
    teacher = teach(request.getfixturevalue(model), task, tiny_glue, tmp_path)
    senses = build(task, tiny_glue, tmp_path)
    command = student_words(task, tiny_glue, tmp_path, "student")
    distil(*command)
    student = tmp_path / "student"

    for run in (teacher, student):
        assert {path.name for path in run.iterdir()} - {".lock"} == TRAINED
        assert {path.name for path in (run / "best").iterdir()} >= CHECKPOINT
        assert {path.name for path in (run / "last").iterdir()} >= CHECKPOINT | {"trainer_state.pt"}
        origin, log = json.loads((run / "origin.json").read_text()), (run / "log.jsonl").read_text().splitlines()
        assert origin["command"] and origin["torch"] == torch.__version__ and set(origin["data"]) == {"train", "dev"}
        assert json.loads((run / "config.json").read_text())["output_dir"] == str(run)
        assert json.loads(log[-1])["step"] == (12 if run == teacher else 4)
        final, best = (json.loads((run / name).read_text()) for name in ("scores.json", "best/scores.json"))
        assert final["values"] == best["values"] and final["counts"] == dict.fromkeys(final["values"], 16)
    assert {path.name for path in senses.iterdir()} - {".lock"} == {"DONE", "config.json", "origin.json", "scores.json",
                                                                    "senses.safetensors"}
    terms = [json.loads(line) for line in (student / "log.jsonl").read_text().splitlines() if '"terms"' in line]
    label = "mse" if task == "STS-B" else "ce"
    assert terms[-1]["terms"].keys() == terms[-1]["weights"].keys() == {"sense", label, "kl"}
    assert load_encoder(student / "best").depth == 2  # half of 4

    capsys.readouterr()
    for run in (teacher, student):
        words = ["evaluate", task, "--checkpoint", run, "--senses", senses, "--data_dir", tiny_glue]
        distil(*words, "--output", tmp_path / "scores")
        found = json.loads((tmp_path / "scores").read_text())
        assert found.keys() == {"continuous states", "chosen senses"}
        assert found["continuous states"]["values"] == pytest.approx(json.loads((run / "scores.json").read_text())["values"])
        assert printed(capsys, "continuous states") == percent(run) != {}

    before = {run: contents(run) for run in (teacher, senses, student)}
    distil(*command)
    build(task, tiny_glue, tmp_path)
    teach(request.getfixturevalue(model), task, tiny_glue, tmp_path)
    assert {run: contents(run) for run in (teacher, senses, student)} == before


def test_a_complete_run_says_so_and_prints_its_scores_again(cola, tiny_glue, capsys, caplog):
    words = student_words("CoLA", tiny_glue, cola, "again")
    distil(*words)
    first = capsys.readouterr().out
    with caplog.at_level("INFO"):
        distil(*words)
    assert capsys.readouterr().out == first and "dev/matthews" in first
    assert f"{cola / 'again'} is complete: nothing to do" in caplog.text


def test_a_complete_run_is_not_overwritten_by_other_settings(cola, tiny_glue, capsys):
    distil(*student_words("CoLA", tiny_glue, cola, "kept"))
    before = contents(cola / "kept")
    assert main(student_words("CoLA", tiny_glue, cola, "kept", "--learning_rate", "0.5")) == 1
    assert "holds a run with other settings (learning_rate: 0.0001 -> 0.5)" in capsys.readouterr().err
    assert contents(cola / "kept") == before


def test_a_teacher_learns_the_tiny_task_so_that_equal_scores_mean_something(tiny_bert, tiny_glue, tmp_path):
    teacher = teach(tiny_bert, "SST-2", tiny_glue, tmp_path, "--max_steps", 60, "--max_length", 16)
    assert json.loads((teacher / "scores.json").read_text())["values"]["dev/accuracy"] >= 0.9


@pytest.mark.parametrize("spec, layers", [("truncate:1", [0]), ("truncate:3", [0, 1, 2]), ("layers:0,2", [0, 2])])
def test_a_student_starts_with_the_teachers_layers_that_were_named(spec, layers, cola, tiny_glue):
    name = spec.replace(":", "-")
    distil(*student_words("CoLA", tiny_glue, cola, name, "--student", spec, "--learning_rate", 1e-12, "--weight_decay", 0))
    teacher, student = (load_file(cola / run / "best/model.safetensors") for run in ("teacher", name))
    depth = len({key.split(".")[3] for key in student if ".layer." in key})
    assert depth == len(layers)
    for place, layer in enumerate(layers):
        for part in ("attention.self.query.weight", "output.dense.bias"):
            assert torch.allclose(student[f"bert.encoder.layer.{place}.{part}"], teacher[f"bert.encoder.layer.{layer}.{part}"],
                                  atol=1e-9)
    assert torch.allclose(student["head.out.weight"], teacher["head.out.weight"], atol=1e-9)


@pytest.mark.parametrize("pooling", ["cls", "first_token", "mean"])
def test_every_pooling_and_head_input_is_saved_and_reloads_to_the_same_scores(pooling, tiny_bert, tiny_glue, tmp_path, capsys):
    teach(tiny_bert, "STS-B", tiny_glue, tmp_path, "--pooling", pooling, "--max_steps", 3)
    build("STS-B", tiny_glue, tmp_path, "--num_senses", 8)
    for head_input, reading in (("continuous", "continuous states"), ("senses", "chosen senses")):
        distil(*student_words("STS-B", tiny_glue, tmp_path, f"by-{head_input}", "--head_input", head_input))
        best = tmp_path / f"by-{head_input}" / "best"
        stored = json.loads((best / "task.json").read_text())
        assert (stored["pooling"], stored["head_input"]) == (pooling, head_input)
        assert (best / "senses.safetensors").exists() == (head_input == "senses")
        capsys.readouterr()
        # A student that reads senses carries them: no --senses is needed.
        distil("evaluate", "STS-B", "--checkpoint", tmp_path / f"by-{head_input}", "--data_dir", tiny_glue)
        assert printed(capsys, reading) == percent(tmp_path / f"by-{head_input}")


def test_what_the_head_reads_changes_the_logits(cola, tiny_glue):
    """Otherwise the tests above would hold with a pooling or a head input that is ignored."""
    encoder = load_encoder(cola / "teacher/best")
    lookup = SenseDictionary.load(cola / "senses").lookup()
    dev = dev_splits(encoder, get_task("CoLA"), str(tiny_glue))["dev"]
    found = []
    for pooling in ("cls", "first_token", "mean"):
        encoder.info = replace(encoder.info, pooling=pooling)
        found += [predict(encoder, dev), predict(encoder.with_head_input("senses", lookup), dev)]
    for index, logits in enumerate(found):
        assert all(np.abs(logits - other).max() > 1e-4 for other in found[:index])


def test_a_dictionary_is_read_by_its_own_similarity_or_by_the_one_that_is_asked_for(cola, tiny_glue, tmp_path, monkeypatch, capsys):
    used, made = [], SenseLookup.__init__
    monkeypatch.setattr(SenseLookup, "__init__", lambda self, *given: made(self, *given) or used.append(self.similarity))
    words = ("evaluate", "CoLA", "--checkpoint", cola / "teacher", "--data_dir", tiny_glue)
    distil(*words, "--senses", cola / "senses")
    distil(*words, "--senses", cola / "senses", "--similarity", "dot")
    assert used == ["distance", "dot"]
    assert main([*map(str, words), "--similarity", "dot"]) == 1
    assert "--similarity dot: it says how --senses are read" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_a_narrower_student_of_the_same_vocabulary_gets_an_adaptor_that_is_saved(kind, request, tiny_glue, tmp_path, capsys):
    model = request.getfixturevalue(f"tiny_{kind}")
    teach(model, "CoLA", tiny_glue, tmp_path)
    build("CoLA", tiny_glue, tmp_path)
    narrow = write_narrow(model, kind, tmp_path / "narrow")
    distil(*student_words("CoLA", tiny_glue, tmp_path, "student", "--student", narrow, "--head_input", "senses"))
    best = tmp_path / "student/best"
    width = load_encoder(tmp_path / "teacher/best").width
    tensors = load_file(best / "model.safetensors")
    assert tensors["adaptor.weight"].shape == (width, 16) and tensors["head.out.weight"].shape == (2, width)
    reloaded = load_encoder(best)
    assert (reloaded.config.hidden_size, reloaded.width, reloaded.depth) == (16, width, 2)
    capsys.readouterr()
    distil("evaluate", "CoLA", "--checkpoint", tmp_path / "student", "--data_dir", tiny_glue)
    assert printed(capsys, "chosen senses") == percent(tmp_path / "student")


def write_narrow(model: Path, kind: str, folder: Path) -> Path:
    """A pre-trained-looking model of the same vocabulary and family, 16 wide."""
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    config_class, model_class = {"bert": (BertConfig, BertModel), "deberta": (DebertaV2Config, DebertaV2Model)}[kind]
    settings = config_class.from_pretrained(model).to_dict() | {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
                                                               "num_attention_heads": 1, "pooler_hidden_size": 16}
    torch.manual_seed(3)
    model_class(config_class(**settings)).save_pretrained(folder)
    return folder


def test_a_student_with_another_vocabulary_is_refused_before_anything_is_written(cola, tiny_deberta, tiny_glue, capsys):
    assert main(student_words("CoLA", tiny_glue, cola, "foreign", "--student", str(tiny_deberta))) == 1
    assert "another vocabulary than the teacher" in capsys.readouterr().err
    assert not (cola / "foreign").exists()


def test_a_saved_student_reloads_to_the_same_logits(cola, tiny_glue, tmp_path):
    for name, words in {"reload": (), "reload-senses": ("--head_input", "senses")}.items():
        distil(*student_words("CoLA", tiny_glue, cola, name, *words))
        expected = dev_logits(cola / name / "best", "CoLA", tiny_glue)
        (tmp_path / name).mkdir()
        load_encoder(cola / name / "best").save(tmp_path / name)
        assert np.array_equal(dev_logits(tmp_path / name, "CoLA", tiny_glue), expected)


def test_the_teacher_is_left_as_it_was_by_distillation(cola, tiny_glue):
    before = contents(cola / "teacher"), contents(cola / "senses")
    distil(*student_words("CoLA", tiny_glue, cola, "harmless", "--learning_rate", 0.01))
    assert (contents(cola / "teacher"), contents(cola / "senses")) == before


def test_a_frozen_head_stays_and_a_free_one_moves(cola, tiny_glue):
    teacher = load_file(cola / "teacher/best/model.safetensors")["head.out.weight"]
    for name, words, same in (("free", (), False), ("frozen", ("--freeze_head", "True"), True),
                              ("senses-only", ("--ce_weight", 0, "--kl_weight", 0), True)):
        distil(*student_words("CoLA", tiny_glue, cola, f"head-{name}", "--learning_rate", 0.01, *words))
        assert torch.equal(load_file(cola / f"head-{name}/last/model.safetensors")["head.out.weight"], teacher) == same


def test_the_published_preset_trains_the_senses_alone_under_its_own_optimiser(cola, tiny_glue):
    distil(*student_words("CoLA", tiny_glue, cola, "paper", "--preset", "paper"))
    config = json.loads((cola / "paper/config.json").read_text())
    assert (config["optimizer"], config["lr_scheduler_type"], config["head_input"]) == ("ranger_adabelief", "one_cycle", "senses")
    assert (config["learning_rate"], config["train_batch_size"]) == (1e-3, 16)  # the task's own, and the word given
    last = [line for line in (cola / "paper/log.jsonl").read_text().splitlines() if '"terms"' in line][-1]
    assert json.loads(last)["terms"].keys() == {"sense"}


def test_a_student_for_another_task_than_its_teachers_is_refused(cola, tiny_glue, tmp_path, capsys):
    assert main(student_words("MRPC", tiny_glue, cola, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert "was trained on CoLA, not on MRPC" in said and "r1_teacher_model.sh MRPC" in said
    assert not (tmp_path / "out").exists()
