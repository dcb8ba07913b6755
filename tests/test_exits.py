"""A network with two exits, and the student that is cut out of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
)

from data_utils.batching import collate
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.evaluate import dev_splits, predict
from models.checkpoint import load_encoder
from models.encoder import Encoder, TaskInfo
from models.exits import TwoExits, outline
from models.heads import ClassificationHead
from models.truncate import truncate
from models.weights import parameter_counts, read_tensors
from tests.training import encoder, self_teaching_words, two_exits

pytestmark = pytest.mark.usefixtures("exact")
INFO = TaskInfo("SST-2", 1, ("sentence",), ("0", "1"), "mean")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_changes_neither_exit(tiny_bert, pooling):
    network, rows = two_exits(tiny_bert)
    network.info = replace(INFO, pooling=pooling)
    together = network.eval()(rows).exits
    for row in range(8):
        alone = network(rows.select([row])).exits
        for layer in (2, 4):
            torch.testing.assert_close(alone[layer][0], together[layer][row], rtol=1e-5, atol=1e-5)
    assert (together[2] - together[4]).abs().max() > 0.1




@pytest.mark.parametrize("model, task, pooling", [("bert", "MRPC", "cls"), ("deberta", "CoLA", "cls"), ("bert", "STS-B", "mean")])
def test_best_is_the_student_alone_as_an_ordinary_checkpoint(model, task, pooling, request, tiny_glue, tmp_path):
    assert main(self_teaching_words(request.getfixturevalue(f"tiny_{model}"), task, tiny_glue, tmp_path, "--pooling", pooling, "--eval_steps", 6)) == 0
    student = load_encoder(tmp_path / "best")
    network = TwoExits(encoder(request.getfixturevalue(f"tiny_{model}"), get_task(task), 4, dropout=False, seed=9), 2)
    network.restore(tmp_path / "last")  # of the same step
    network.info = student.info
    dev = dev_splits(student, get_task(task), str(tiny_glue))["dev"]
    logits = predict(student, dev)
    assert student.depth == student.config.num_hidden_layers == 2 and not hasattr(student, "exit_head")
    np.testing.assert_allclose(predict(network, dev), logits, atol=1e-5)
    assert np.abs(predict(network, dev, lambda outputs: outputs.exits[4]) - logits).max() > 1e-3
    if pooling == "cls":
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "best").eval()
        assert theirs.config.num_hidden_layers == 2
        rows = collate(dev, np.arange(len(dev)), task, student.tokenizer.pad_token_id)
        inputs = {"token_type_ids": rows.token_type_ids} if student.type_ids else {}
        found = theirs(input_ids=rows.input_ids, attention_mask=rows.attention_mask, **inputs).logits.detach().numpy()
        np.testing.assert_allclose(found, logits, atol=1e-5)
    values = json.loads((tmp_path / "scores.json").read_text())["values"]
    metrics = get_task(task).metrics
    assert list(values) == [f"dev{name}/{metric}" for name in ("", ", teacher exit") for metric in metrics]


def test_what_is_trained_and_exported_is_whole_where_the_vocabulary_was_trimmed(tiny_bert, tiny_glue, tmp_path):
    """Without weight decay and clipping a trimmed table ends as the whole one does."""
    for trim in (True, False):
        assert main(self_teaching_words(tiny_bert, "SST-2", tiny_glue, tmp_path / str(trim), "--trim_vocabulary", trim, "--max_grad_norm", 0,
                          "--weight_decay", 0)) == 0
    for folder in ("best", "last"):
        one, other = (load_file(tmp_path / str(trim) / folder / "model.safetensors") for trim in (True, False))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_parameters_are_counted_with_their_embeddings(tiny_bert, tiny_glue, tmp_path):
    with torch.device("meta"):
        backbone = BertModel(BertConfig(), add_pooling_layer=False)  # BERT-base
        head = ClassificationHead(768, 2, "tanh", 0.0)
    base = Encoder(backbone, head, INFO, None)
    total, embeddings = parameter_counts(outline(base, 6).state_dict())
    heads = 768 * 768 + 768 + 2 * 768 + 2
    assert (round((total - heads) / 1e6, 1), round(embeddings / 1e6, 2)) == (66.4, 23.84)
    assert parameter_counts(base.state_dict())[0] == total + 6 * 7_087_872
    (tmp_path / "saved").mkdir()
    student = encoder(tiny_bert, get_task("SST-2"), 2, dropout=False, seed=1)
    student.save(tmp_path / "saved")
    found = parameter_counts(read_tensors(tmp_path / "saved/model.safetensors"))
    assert found == parameter_counts(student.state_dict()) == (sum(parameter.numel() for parameter in student.parameters()),
                                                               sum(parameter.numel() for parameter in student.backbone.embeddings.parameters()))


def test_an_encoder_with_a_norm_above_its_layers_is_refused(tiny_bert):
    torch.manual_seed(0)
    config = ModernBertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, pad_token_id=0)
    with pytest.raises(ValueError, match="modernbert.*no earlier exit"):
        TwoExits(Encoder(ModernBertModel(config), ClassificationHead(32, 2, "gelu", 0.0), INFO, None), 2)


def test_layers_that_no_configuration_describes_are_not_cut_out():
    config = ModernBertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, pad_token_id=0)
    whole = Encoder(ModernBertModel(config), ClassificationHead(32, 2, "gelu", 0.0), INFO, None)
    assert truncate(whole, (0, 1)).depth == 2
    with pytest.raises(ValueError, match=r"layers 1, 3 of this modernbert model cannot stand alone.*attn_norm.weight.*truncate:N"):
        truncate(whole, (1, 3))
