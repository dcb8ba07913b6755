"""Training with a part of the word embeddings: the same numbers, whole checkpoints, less to clip, to decay and to keep."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from data_utils.batching import collate
from data_utils.tasks import get_task
from distill.evaluate import encode_split
from distill.recipes import finetune, sense_kd
from distill.rundir import RunDir
from distill.senses.build import SenseConfig
from distill.verbs.senses import build_senses
from distill.vocabulary import held_vocabulary
from models.checkpoint import load_encoder
from models.vocabulary import TrimmedEmbedding
from tests.training import Parts, assert_same, left_behind, settings

MODELS = ["tiny_bert", "tiny_deberta"]
LONG = {"max_steps": 20, "save_steps": 20, "eval_steps": 10}
pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(params=MODELS)
def model(request):
    """Folder of a tiny pre-trained model."""
    return request.getfixturevalue(request.param)


def few(folder, kind="senses", trim=True, **changed) -> Parts:
    """A run on four examples, which leave a good part of the vocabulary unread."""
    return Parts(folder, kind, settings(trim_vocabulary=trim, **changed), dropout=True, count=4)


def held(parts: Parts):
    return held_vocabulary(parts.cfg, parts.student, parts.data)


def table_of(encoder) -> nn.Module:
    return encoder.backbone.get_input_embeddings()


def trained(path, parts: Parts, at=-1, action=None) -> dict:
    """What the run leaves behind; `action` at batch `at`."""
    with held(parts):
        parts.train(path, parts.stream(at, action), parts.restless_score)
    return left_behind(path)


def saved_table(folder) -> torch.Tensor:
    (table,) = [tensor for name, tensor in load_file(folder / "model.safetensors").items() if "word_embeddings" in name]
    return table


def test_logits_and_gradients_are_those_of_the_whole_table_bit_for_bit(model):
    found = []
    for trim in (False, True):
        parts = few(model, trim=trim)
        batch = parts.stream().next()
        batch.attention_mask.fill_(1)  # padding is read, else its row would have no gradient anyhow
        with held(parts):
            output = parts.student.eval()(batch)
            output.logits.square().sum().backward()
            table = table_of(parts.student)
            others = [parameter.grad for parameter in parts.student.parameters() if parameter is not table.weight]
            found.append((table.weight.grad, *others, output.logits, *output.hidden))
    ids, (whole, *expected), (rows, *same) = table.ids, *found
    assert ids.tolist() == sorted({*parts.data.ids.tolist(), *parts.tokenizer.all_special_ids})
    assert 10 < len(ids) < len(whole)
    assert torch.equal(rows, whole[ids]) and whole.count_nonzero() == rows.count_nonzero() > 0
    assert all(torch.equal(one, other) for one, other in zip(same, expected, strict=True))
    padding = ids.tolist().index(parts.tokenizer.pad_token_id)
    assert (batch.input_ids == parts.tokenizer.pad_token_id).any() and not rows[padding].any()


@pytest.mark.parametrize("optimizer", ["adamw", "ranger_adabelief"])
def test_without_weight_decay_the_checkpoints_are_those_of_the_whole_table_bit_for_bit(model, tmp_path, optimizer):
    changed = {**LONG, "weight_decay": 0.0, "max_grad_norm": 0.0, "optimizer": optimizer}
    whole, part = (trained(tmp_path / str(trim), few(model, trim=trim, **changed)) for trim in (False, True))
    assert part["last/model.safetensors"] != part["best/model.safetensors"]
    assert_same(*({name: value for name, value in found.items() if not name.startswith("state.optimizer")}
                  for found in (part, whole)))


def test_a_norm_that_clips_differs_by_its_order_of_summation_at_most(model, tmp_path):
    changed = {**LONG, "weight_decay": 0.0, "max_grad_norm": 0.05}
    parts = [few(model, trim=trim, **changed) for trim in (False, True)]
    for name, run in zip(("whole", "part"), parts):
        trained(tmp_path / name, run)
    for (name, one), other in zip(parts[0].student.state_dict().items(), parts[1].student.state_dict().values()):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)


def test_rows_that_are_not_held_stay_the_pretrained_ones_and_the_held_ones_are_trained(model, tmp_path):
    parts = few(model, weight_decay=0.5, **LONG)
    before = table_of(parts.student).weight.detach().clone()
    with held(parts) as table:
        ids = table.ids
        parts.train(tmp_path, evaluate=parts.restless_score)
    others = torch.ones(len(before)).index_fill(0, ids, 0).bool()
    for after in (saved_table(tmp_path / "last"), saved_table(tmp_path / "best"), table_of(parts.student).weight):
        assert others.any() and torch.equal(after[others], before[others])
        ids = ids[before[ids].any(1)]  # the padding row is zero
        assert len(ids) > 10 and (after[ids] != before[ids]).any(1).all(), "special tokens decay, all others learn"
    whole = few(model, trim=False, weight_decay=0.5, **LONG)
    trained(tmp_path / "whole", whole)
    assert (table_of(whole.student).weight[others].norm(dim=1) < before[others].norm(dim=1)).all(), "what the docstring says"


def pull_the_plug():
    raise KeyboardInterrupt


def test_a_run_without_power_goes_on_bit_for_bit(model, tmp_path):
    undisturbed = trained(tmp_path / "undisturbed", few(model))
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", few(model), 5, pull_the_plug)
    assert_same(trained(tmp_path / "stopped", few(model)), undisturbed)


def test_fewer_numbers_are_trained_and_kept_by_the_optimiser(model, tmp_path):
    sizes, states = [], []
    for trim in (False, True):
        parts = few(model, trim=trim, max_steps=1)
        with held(parts):
            sizes.append(sum(parameter.numel() for parameter in parts.student.parameters()))
            rows, width = table_of(parts.student).weight.shape
            parts.train(tmp_path / str(trim))
        state = torch.load(tmp_path / str(trim) / "last/trainer_state.pt", weights_only=True)["optimizer"]["state"]
        states.append(sum(tensor.numel() for moments in state.values() for tensor in moments.values() if tensor.dim()))
    absent = (parts.student.config.vocab_size - rows) * width
    assert sizes[0] - sizes[1] == absent > 0 and states[0] - states[1] == 2 * absent


def test_an_id_that_is_not_held_is_refused_by_name(model):
    parts = few(model)
    with held(parts) as table:
        absent = (table.row_of == len(table.ids)).nonzero()[0]
        with pytest.raises(ValueError, match=rf"token ids \[{int(absent)}\] have no word embedding here: {len(table.ids)} of "):
            table(torch.cat([table.ids[:3], absent]))
        for beyond in (-1, len(table.row_of)):
            with pytest.raises(IndexError):
                table(torch.tensor([[beyond]]))
    with pytest.raises(ValueError, match="do not fit a table of"):
        TrimmedEmbedding(table_of(parts.student), [3, parts.student.config.vocab_size])


def test_after_training_the_student_is_whole_again_and_as_saved(model, tmp_path):
    parts = few(model)
    trained(tmp_path, parts)
    own, saved = parts.student.state_dict(), load_encoder(tmp_path / "last").state_dict()
    assert own.keys() == saved.keys() and all(torch.equal(own[name], saved[name]) for name in own)
    table = table_of(parts.student)
    assert type(table) is nn.Embedding and table.weight.requires_grad and table.padding_idx == parts.tokenizer.pad_token_id
    table(torch.arange(len(table.weight)))


def test_a_trimmed_encoder_is_copied_and_loaded_as_a_whole_one(model):
    parts, other = few(model), few(model)
    nn.init.normal_(table_of(other.student).weight)
    state = {name: tensor.clone() for name, tensor in other.student.state_dict().items()}
    with held(parts):
        twin = copy.deepcopy(parts.student)
        before = {name: tensor.clone() for name, tensor in parts.student.state_dict().items()}
        twin.load_state_dict(state)
        found = twin.state_dict()
        assert all(torch.equal(found[name], state[name]) for name in state)
        assert all(torch.equal(tensor, before[name]) for name, tensor in parts.student.state_dict().items())
        short = {name: tensor[:-1] if "word_embeddings" in name else tensor for name, tensor in state.items()}
        with pytest.raises(ValueError, match="expected the whole table"):
            twin.load_state_dict(short)


def test_a_checkpoint_of_a_trimmed_run_is_an_ordinary_one_for_transformers(model, tiny_glue, tmp_path):
    cfg = finetune.Config(model=str(model), data_dir=str(tiny_glue), output_dir=str(tmp_path), pooling="cls", max_steps=4,
                          train_batch_size=8, learning_rate=1e-3, bf16=False, trim_vocabulary=True)
    finetune.run(cfg, get_task("MRPC"), RunDir(tmp_path))
    ours = load_encoder(tmp_path / "best").eval()
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "best").eval()
    batch = collate(encode_split(ours, get_task("MRPC"), "test", str(tiny_glue)), range(8), "MRPC", ours.tokenizer.pad_token_id)
    with torch.no_grad():
        expected = ours(batch).logits
        found = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_senses_are_looked_up_by_the_ids_of_the_whole_vocabulary(model, tiny_glue, tmp_path):
    """r1, r2 and r3 with and without: the same student, its head reading senses."""
    common = {"data_dir": str(tiny_glue), "max_steps": 4, "train_batch_size": 8, "learning_rate": 1e-3, "bf16": False}
    teacher, senses = tmp_path / "teacher", tmp_path / "senses"
    finetune.run(finetune.Config(model=str(model), output_dir=str(teacher), **common), get_task("CoLA"), RunDir(teacher))
    build_senses("CoLA", SenseConfig(teacher=str(teacher / "best"), data_dir=str(tiny_glue), num_senses=3, bf16=False,
                                     output_dir=str(senses)))
    found = []
    for trim in (False, True):
        out = tmp_path / f"student-{trim}"
        cfg = sense_kd.Config(teacher=str(teacher / "best"), senses=str(senses), head_input="senses", weight_decay=0.0,
                              max_grad_norm=0.0, logging_steps=1, trim_vocabulary=trim, output_dir=str(out), max_length=6, **common)
        sense_kd.run(cfg, get_task("CoLA"), RunDir(out))
        found.append({name: value for name, value in left_behind(out).items() if not name.startswith("state.optimizer")})
    assert found[0]["log"][0]["terms"]["sense"] > 0
    assert_same(*found)
