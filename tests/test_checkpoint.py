"""Checkpoint folders: ours as transformers reads them, transformers' as we read them, damaged ones."""

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
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from data_utils.metrics import compute_metrics
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.evaluate import dev_splits, predict
from distill.judging import predictions
from models.checkpoint import load_encoder
from models.downloaded import open_checkpoint
from models.heads import SenseLookup
from models.import_checkpoint import PUBLISHED_LABELS
from models.pretrained import pretrained_encoder
from models.weights import rename

PLAIN = {"tiny_bert": (BertConfig, BertForSequenceClassification), "tiny_deberta": (DebertaV2Config, DebertaV2ForSequenceClassification)}


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


@torch.no_grad()
def plain_logits(model, folder: Path, task: str, glue: Path) -> np.ndarray:
    """Through transformers alone, a row at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {"return_tensors": "pt", "truncation": True, "max_length": 128, "return_token_type_ids": model.config.type_vocab_size > 0}
    rows = [tokenizer(*example.texts, **settings) for example in read_examples(get_task(task), "dev", glue)]
    return torch.cat([model.eval()(**row).logits for row in rows]).numpy()


def open_for(task: str, folder: Path):
    entry = get_task(task)
    return open_checkpoint(folder, entry.name, entry.version, entry.texts, entry.labels)


def refused(folder: Path, glue: Path, capsys, task: str = "MRPC") -> str:
    """The one line with which `evaluate` refuses a checkpoint."""
    capsys.readouterr()
    assert main(["evaluate", task, "--checkpoint", str(folder), "--data_dir", str(glue)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    return line


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


# ---- transformers', read by us


def write_plain(model: Path, kind: str, folder: Path, glue: Path, names: list[str] | None, num_labels: int = 0) -> Path:
    """A plain transformers classifier with random weights, every class predicted somewhere; `names`: its labels in order."""
    config_class, model_class = PLAIN[kind]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}} if names else \
        {"num_labels": num_labels}
    torch.manual_seed(2)
    plain = model_class(config_class.from_pretrained(model, **labels, pooler_hidden_size=64, pooler_hidden_act="gelu"))
    with torch.no_grad():
        for tensor in plain.parameters():
            tensor.mul_(8 if tensor.dim() == 2 else 1)  # logits that differ from row to row
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
        plain.classifier.bias -= torch.from_numpy(np.median(plain_logits(plain, folder, "MRPC", glue), axis=0))
    plain.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_deberta"])
def test_a_plain_checkpoint_is_read_with_its_labels_mapped_by_name(model, request, tiny_glue, tmp_path):
    folder = write_plain(request.getfixturevalue(model), model, tmp_path / "plain", tiny_glue, ["Equivalent", "NOT_EQUIVALENT"])
    opened = open_for("MRPC", folder)
    assert opened.encoder.info.labels == ("equivalent", "not_equivalent") and not opened.pooling_known
    task = get_task("MRPC")
    logits = predict(opened.encoder, dev_splits(opened.encoder, task, str(tiny_glue))["dev"])
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert np.abs(logits - plain_logits(plain, folder, "MRPC", tiny_glue)).max() < 1e-5
    named = [plain.config.id2label[index].lower() for index in logits.argmax(1)]
    assert [task.labels[index] for index in predictions(logits, opened.encoder.info.labels, task)] == named
    assert len(set(named)) == 2, "one class only: the comparison shows nothing"


def test_exchanged_label_names_exchange_the_printed_classes(tiny_bert, tiny_glue, tmp_path):
    task = get_task("MRPC")
    targets = np.array([example.target for example in read_examples(task, "dev", tiny_glue)])
    found = []
    for names in (["not_equivalent", "equivalent"], ["equivalent", "not_equivalent"]):
        folder = write_plain(tiny_bert, "tiny_bert", tmp_path / names[0], tiny_glue, names)
        assert main(["evaluate", "MRPC", "--checkpoint", str(folder), "--data_dir", str(tiny_glue), "--pooling", "cls",
                     "--output", str(tmp_path / "out.json")]) == 0
        found.append(json.loads((tmp_path / "out.json").read_text())["continuous states"]["values"])
        logits = plain_logits(AutoModelForSequenceClassification.from_pretrained(folder), folder, "MRPC", tiny_glue)
        predicted = np.array([task.labels.index(names[index]) for index in logits.argmax(1)])
        expected = compute_metrics(task.metrics, predicted, targets)
        assert found[-1] == pytest.approx({f"dev/{metric}": value for metric, value in expected.items()})
    assert found[0] != found[1]


def test_unnamed_labels_are_taken_in_the_tasks_order_which_is_said_and_foreign_ones_refused(tiny_bert, tiny_glue, tmp_path, capsys, caplog):
    for task, labels in (("MRPC", ("not_equivalent", "equivalent")), ("MNLI", ("entailment", "neutral", "contradiction"))):
        unnamed = write_plain(tiny_bert, "tiny_bert", tmp_path / task, tiny_glue, None, num_labels=len(labels))
        caplog.clear()
        assert open_for(task, unnamed).encoder.info.labels == labels
        (line,) = caplog.messages
        assert f"{unnamed} calls its labels LABEL_0, LABEL_1" in line and f"taken for {', '.join(labels)}" in line and "id2label" in line
    foreign = write_plain(tiny_bert, "tiny_bert", tmp_path / "foreign", tiny_glue, ["spam", "ham"])
    line = refused(foreign, tiny_glue, capsys)
    assert "spam, ham" in line and "not_equivalent, equivalent" in line and "id2label" in line


def test_a_plain_regression_checkpoint_scores_stsb_and_nothing_else(tiny_bert, tiny_glue, tmp_path, capsys, caplog):
    folder = write_plain(tiny_bert, "tiny_bert", tmp_path / "plain", tiny_glue, None, num_labels=1)
    assert open_for("STS-B", folder).encoder.info.labels == () and not caplog.messages
    assert "has 1 outputs, the task needs 2" in refused(folder, tiny_glue, capsys)


@pytest.mark.parametrize("count, task", [(3, "MRPC"), (2, "STS-B"), (2, "MNLI")])
def test_another_number_of_labels_is_refused_with_both_numbers(count, task, tiny_bert, tiny_glue, tmp_path, capsys):
    folder = write_plain(tiny_bert, "tiny_bert", tmp_path / "plain", tiny_glue, None, num_labels=count)
    line = refused(folder, tiny_glue, capsys, task)
    assert f"has {count} outputs, the task needs {len(get_task(task).labels) or 1}" in line and "another task" in line


@pytest.mark.parametrize("name", sorted(PUBLISHED_LABELS))
def test_a_published_order_of_labels_gives_the_tasks_own_class_indices(name):
    task, labels = get_task(name), PUBLISHED_LABELS[name]
    if task.is_regression:
        assert predictions(np.array([[2.5], [0.5]]), labels, task).tolist() == [2.5, 0.5]
        return
    one_hot = np.eye(len(labels), dtype=np.float32)  # row i: the checkpoint says its i-th class
    assert [task.labels[index] for index in predictions(one_hot, labels, task)] == list(labels)


def test_published_mnli_class_zero_is_contradiction_and_our_class_zero_entailment():
    """The permutation that an assumed order would get wrong without any error."""
    assert predictions(np.eye(3), PUBLISHED_LABELS["MNLI"], get_task("MNLI")).tolist() == [2, 1, 0]
    assert predictions(np.eye(2), PUBLISHED_LABELS["RTE"], get_task("RTE")).tolist() == [1, 0]
    with pytest.raises(ValueError, match="trained for another task"):
        predictions(np.eye(2), ("equivalent", "not_equivalent"), get_task("RTE"))


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
    assert str(tmp_path / "empty") in refused(tmp_path / "empty", tiny_glue, capsys)


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
