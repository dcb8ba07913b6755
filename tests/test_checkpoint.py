"""Checkpoint folders: ours as transformers reads them, damaged ones."""

import json
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from data_utils.tasks import get_task
from distill.__main__ import main
from distill.evaluate import dev_splits, predict
from models.checkpoint import load_encoder
from models.heads import SenseLookup
from models.pretrained import pretrained_encoder
from models.weights import rename
from tests.plain import open_for, plain_logits, refused


def finetune(task: str, model: Path, glue: Path, out: Path, *words) -> Path:
    assert main(["train", "finetune", task, "--model", str(model), "--data_dir", str(glue), "--output_dir", str(out), "--pooling", "cls",
                 "--max_steps", "2", "--learning_rate", "3e-3", *words]) == 0
    return out / "best"


@pytest.fixture(scope="module")
def mrpc(tiny_bert, tiny_glue, tmp_path_factory):
    """A fine-tuned checkpoint folder."""
    return finetune("MRPC", tiny_bert, tiny_glue, tmp_path_factory.mktemp("run") / "teacher")


@pytest.fixture
def copy(mrpc, tmp_path):
    """The same, where a test may damage it."""
    return Path(shutil.copytree(mrpc, tmp_path / "checkpoint"))


def our_logits(folder: Path, task: str, glue: Path) -> np.ndarray:
    encoder = load_encoder(folder)
    return predict(encoder, dev_splits(encoder, get_task(task), str(glue))["dev"])


# ---- ours, read by transformers


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_deberta"])
@pytest.mark.parametrize("task", ["MRPC", "CoLA", "STS-B"])
def test_transformers_reads_a_cls_checkpoint_of_ours_to_the_same_logits(model, task, request, tiny_glue, tmp_path):
    folder = finetune(task, request.getfixturevalue(model), tiny_glue, tmp_path / "run")
    plain, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = our_logits(folder, task, tiny_glue)
    assert np.abs(plain_logits(plain, folder, task, tiny_glue) - expected).max() < 1e-6
    assert np.ptp(expected, axis=0).min() > 1e-5, "all rows alike: the comparison shows nothing"
    labels = get_task(task).labels
    assert tuple(plain.config.id2label.values()) == (labels or ("score",))
    assert plain.config.num_labels == len(labels or ("score",))
    assert plain.config.problem_type == ("single_label_classification" if labels else "regression")


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_deberta"])
def test_transformers_reads_a_truncated_student_to_the_same_logits(model, request, tiny_glue, tmp_path):
    folder = finetune("CoLA", request.getfixturevalue(model), tiny_glue, tmp_path / "run", "--layers", "layers:0,2")
    plain, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and plain.config.num_hidden_layers == 2
    assert np.abs(plain_logits(plain, folder, "CoLA", tiny_glue) - our_logits(folder, "CoLA", tiny_glue)).max() < 1e-5


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_deberta"])
@pytest.mark.parametrize("changed", [{"pooling": "mean"}, {"pooling": "first_token"}, {"head_input": "senses"}])
def test_transformers_lacks_the_head_of_a_checkpoint_that_it_would_answer_otherwise(model, changed, request, mrpc, tmp_path):
    backbone = request.getfixturevalue(model)
    encoder = pretrained_encoder(str(backbone), replace(load_encoder(mrpc).info, **changed), 0.0)
    encoder.senses = SenseLookup(torch.randn(5, encoder.width), torch.tensor([0, 2, 5])) if "head_input" in changed else None
    (tmp_path / "own").mkdir()
    encoder.save(tmp_path / "own")
    _, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert {"classifier.weight", "classifier.bias"} < set(loading["missing_keys"]) and any("pooler" in key for key in loading["missing_keys"])
    # As such checkpoints were written before: read as they were.
    tensors = rename(load_file(tmp_path / "own/model.safetensors"), encoder.names)
    assert "classifier.weight" in tensors
    save_file(tensors, tmp_path / "own/model.safetensors", {"format": "pt"})
    for name, tensor in load_encoder(tmp_path / "own").state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name])


# ---- damaged


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_give_one_line_that_names_the_file(share, copy, tiny_glue, capsys):
    file = copy / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:int(len(data) * share)])
    line = refused(copy, tiny_glue, capsys)
    assert str(file) in line and "truncated" in line


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"task": "MRPC"}', '{"head": 3}', "\xff\xfe"])
def test_a_broken_task_file_gives_one_line_that_names_it(text, copy, tiny_glue, capsys):
    (copy / "task.json").write_bytes(text.encode("latin1"))
    assert str(copy / "task.json") in refused(copy, tiny_glue, capsys)


@pytest.mark.parametrize("change", [{"pooling": "max"}, {"labels": ["a", "b"]}, {"head": {}}, {"unknown": 1}, {"labels": 3},
                                    {"head_input": "both"}, {"texts": ["sentence"]}])
def test_a_task_file_with_an_impossible_setting_gives_one_line(change, copy, tiny_glue, capsys):
    content = json.loads((copy / "task.json").read_text()) | change
    (copy / "task.json").write_text(json.dumps(content))
    line = refused(copy, tiny_glue, capsys)
    assert "not a task description of ours" in line or "trained for another task" in line


@pytest.mark.parametrize("file, text", [("config.json", "{"), ("config.json", '{"model_type": "no-such-model"}'),
                                        ("tokenizer.json", "{")])
def test_a_broken_configuration_or_tokenizer_gives_one_line(file, text, copy, tiny_glue, capsys):
    (copy / file).write_text(text)
    assert str(copy) in refused(copy, tiny_glue, capsys)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(file, copy, tiny_glue, capsys):
    (copy / file).unlink()
    assert file in refused(copy, tiny_glue, capsys)


def test_missing_misshapen_and_foreign_tensors_are_listed(copy, tiny_glue, capsys):
    tensors = load_file(copy / "model.safetensors")
    tensors["stranger"] = tensors.pop("classifier.bias")
    tensors["classifier.weight"] = tensors["classifier.weight"][:1].clone()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "model.safetensors is missing, truncated or altered" in refused(copy, tiny_glue, capsys)
    (copy / "checksums.json").unlink()
    line = refused(copy, tiny_glue, capsys)
    assert "head.out.bias" in line and "head.out.weight" in line and "stranger" in line


def test_a_checkpoint_of_another_task_is_refused_by_name(copy, tiny_glue, capsys):
    assert "was trained on MRPC, not on CoLA" in refused(copy, tiny_glue, capsys, "CoLA")


def test_a_missing_checkpoint_says_what_to_give(tiny_glue, tmp_path, capsys):
    assert f"no checkpoint {tmp_path / 'none'}" in refused(tmp_path / "none", tiny_glue, capsys)
    (tmp_path / "empty").mkdir()
    assert f"no checkpoint in {tmp_path / 'empty'}: expected config.json" in refused(tmp_path / "empty", tiny_glue, capsys)
    for seed in (2, 1):
        (tmp_path / f"seeds/seed-{seed}/best").mkdir(parents=True)
    assert f"holds several runs: give one of them, such as {tmp_path}/seeds/seed-1" in refused(tmp_path / "seeds", tiny_glue, capsys)


def test_a_checkpoint_that_says_its_pooling_is_not_probed(copy, tiny_glue, caplog):
    assert open_for("MRPC", copy).pooling_known
    assert main(["evaluate", "MRPC", "--checkpoint", str(copy), "--data_dir", str(tiny_glue)]) == 0
    assert "does not say what its head reads" not in caplog.text


def test_a_checkpoint_that_may_not_be_read_is_named(mrpc, tiny_glue, capsys):
    """As another user: root may read everything."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        folder = Path(shutil.copytree(mrpc, Path(open_to_all) / "teacher"))
        (folder / "model.safetensors").chmod(0)
        os.seteuid(65534)
        try:
            line = refused(folder, tiny_glue, capsys)
        finally:
            os.seteuid(0)
    assert f"{folder / 'model.safetensors'} cannot be read (Permission denied)" in line and "permissions" in line


def test_the_weights_may_be_read_by_whom_the_umask_allows(mrpc):
    assert stat.S_IMODE((mrpc / "model.safetensors").stat().st_mode) == stat.S_IMODE((mrpc / "config.json").stat().st_mode)
