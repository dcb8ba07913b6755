"""Checkpoint folders that transformers alone wrote, as we read them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig, RobertaConfig

from data_utils.batching import Batch
from data_utils.metrics import compute_metrics
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.evaluate import dev_splits, predict
from distill.judging import predictions
from models.checkpoint import load_encoder
from models.encoder import TaskInfo
from models.import_checkpoint import PUBLISHED_LABELS
from models.pretrained import pretrained_encoder
from tests.plain import open_for, plain_logits, refused, write_plain


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


@pytest.mark.parametrize("layout", ["older names", "pickle", "shards"])
def test_a_plain_checkpoint_is_read_however_transformers_wrote_it(layout, tiny_bert, tiny_glue, tmp_path):
    folder = write_plain(tiny_bert, "tiny_bert", tmp_path / "plain", tiny_glue, ["equivalent", "not_equivalent"])
    expected = load_file(folder / "model.safetensors")
    if layout == "shards":
        AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 1
        (folder / "model.safetensors").unlink(missing_ok=True)
    elif layout == "pickle":
        torch.save(expected, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        older = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in expected.items()}
        save_file({**older, "bert.embeddings.position_ids": torch.arange(64)[None]}, folder / "model.safetensors", metadata={"format": "pt"})
    found = open_for("MRPC", folder).encoder.state_dict()
    assert torch.equal(found["head.out.weight"], expected["classifier.weight"])
    name = "encoder.layer.1.output.LayerNorm.weight"
    assert torch.equal(found[f"backbone.{name}"], expected[f"bert.{name}"])


@pytest.mark.parametrize("left", [{}, {"classifier.weight": torch.zeros(5, 32), "classifier.bias": torch.zeros(5)}])
def test_a_plain_checkpoint_without_a_head_that_fits_is_refused(left, tiny_bert, tiny_glue, tmp_path, capsys):
    folder = write_plain(tiny_bert, "tiny_bert", tmp_path / "plain", tiny_glue, ["equivalent", "not_equivalent"])
    body = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "classifier" not in name}
    save_file(body | left, folder / "model.safetensors", metadata={"format": "pt"})
    assert "initialise classifier.bias, classifier.weight randomly" in refused(folder, tiny_glue, capsys)


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


def test_a_distilberts_head_is_transformers_own_in_both_directions(tiny_bert, tiny_glue, tmp_path):
    """And that of a kind whose class answers in another way is not called so."""
    tokenizer, info = AutoTokenizer.from_pretrained(tiny_bert), TaskInfo("MRPC", 1, ("a", "b"), ("x", "y"), "cls")
    ids = tokenizer("the film", "a story", return_tensors="pt").input_ids
    torch.manual_seed(3)
    for config in (DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=64),
                   RobertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)):
        folder = tmp_path / config.model_type
        tokenizer.save_pretrained(folder)
        AutoModel.from_config(config).save_pretrained(folder)
        encoder = pretrained_encoder(str(folder), info, 0.0).eval()
        encoder.save(folder)
        assert encoder.is_transformers_own == (config.model_type == "distilbert")
        assert encoder.max_positions == (64 if encoder.is_transformers_own else 510), "RoBERTa counts from the position after padding's"
        longest = ids.new_full((1, encoder.max_positions), 5)
        encoder.backbone(longest)
        with pytest.raises((IndexError, RuntimeError)):
            encoder.backbone(torch.cat([longest, longest[:, :1]], 1))
        batch = Batch("MRPC", torch.arange(1), ids, torch.ones_like(ids), torch.zeros_like(ids), torch.zeros(1, dtype=torch.long))
        with torch.no_grad():
            logits = encoder(batch).logits
            assert torch.equal(load_encoder(folder).eval()(batch).logits, logits)
            if encoder.is_transformers_own:
                theirs, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
                assert not report["missing_keys"] and not report["unexpected_keys"]
                torch.testing.assert_close(theirs.eval()(input_ids=ids).logits, logits)
                (folder / "task.json").unlink()
                torch.testing.assert_close(load_encoder(folder, info).eval()(batch).logits, logits)
