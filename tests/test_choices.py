"""Choices, candidates and groups through the whole engine, on small SuperGLUE tasks."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultipleChoice

from data_utils.answers import EXACT
from data_utils.batching import TrainStream, collate
from data_utils.encode import encode
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill.evaluate import encode_split, predict
from distill.judging import chosen_rows, judged
from distill.recipes import finetune
from distill.scores import load_predictions
from distill.splits import read_splits
from models.checkpoint import load_encoder
from models.pretrained import load_tokenizer
from models.weights import fingerprint
from tests.training import run, teach_superglue


def test_both_choices_are_encoded_and_stay_together(superglue, tiny_bert):
    task, tokenizer = get_task("COPA"), load_tokenizer(str(tiny_bert))
    examples = read_examples(task, "train", superglue)
    dataset = encode(examples, tokenizer, 64, task=task)
    assert len(dataset) == 24 and len(dataset.offsets) == 49 and dataset.sizes.sum() == len(dataset.ids)
    batch = collate(dataset, np.array([5, 2]), "COPA", 0)
    assert len(batch) == 2 and batch.input_ids.shape[0] == 4 and batch.uid.tolist() == [5, 2]
    for place, row in enumerate((5, 2)):
        for choice in (0, 1):
            expected = tokenizer(examples[row].texts[0], examples[row].texts[1 + choice], return_token_type_ids=True)
            sequence = 2 * place + choice
            length = int(batch.attention_mask[sequence].sum())
            assert batch.input_ids[sequence, :length].tolist() == expected["input_ids"]
            assert batch.token_type_ids[sequence, :length].tolist() == expected["token_type_ids"]
    part = dataset.take(np.array([2]))
    assert torch.equal(collate(part, np.array([0]), "COPA", 0).input_ids, batch.select([1]).input_ids)
    assert [piece.uid.tolist() for piece in batch.split(max_tokens=1)] == [[row] for row in np.array([5, 2])[np.argsort(-batch.sizes, kind="stable")]]
    assert sorted(batch.shard(0, 2).uid.tolist() + batch.shard(1, 2).uid.tolist()) == [2, 5] and batch.shard(0, 2).input_ids.shape[0] == 2
    stream = TrainStream(dataset, "COPA", 0, 5, seed=1)
    drawn = [stream.next() for _ in range(stream.steps_per_epoch)]
    assert sorted(uid for step in drawn for uid in step.uid.tolist()) == list(range(24)) and all(len(step.input_ids) == 2 * len(step) for step in drawn)


def test_one_scorer_answers_choices_and_transformers_answers_the_same(superglue, tiny_bert, tmp_path):
    best = teach_superglue("COPA", superglue, tiny_bert, tmp_path / "cls", "--pooling", "cls")
    encoder, task = load_encoder(best), get_task("COPA")
    assert encoder.info.choices == 2 and encoder.head.out.out_features == 1
    dataset = encode_split(encoder, task, "dev", str(superglue))
    logits = predict(encoder, dataset)
    assert logits.shape == (8, 2)
    theirs = AutoModelForMultipleChoice.from_pretrained(best).eval()
    batch = collate(dataset, np.arange(8), "COPA", 0)
    with torch.no_grad():
        found = theirs(**{name: getattr(batch, name).view(8, 2, -1) for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    np.testing.assert_allclose(found.numpy(), logits, atol=1e-5)
    assert (logits.argmax(1) == dataset.target).mean() > 0.8, "right choices have other words"
    plain = tmp_path / "plain"
    theirs.save_pretrained(plain)
    encoder.tokenizer.save_pretrained(plain)
    assert run("evaluate", "COPA", "--checkpoint", plain, "--data_dir", superglue, "--output", tmp_path / "scores.json") == 0
    own = json.loads((tmp_path / "cls/scores.json").read_text())["values"]
    found = json.loads((tmp_path / "scores.json").read_text())["continuous states"]
    assert found["values"] == own and found["checkpoint"] == fingerprint(plain)


@pytest.mark.parametrize("task", ["COPA", "MultiRC", "ReCoRD"])
@pytest.mark.parametrize("recipe, words", [("logit_kd", ()), ("pkd", ()), ("tinybert", ()), ("relation_kd", ("--relation_heads", 8)), ("sense_kd", ())])
def test_every_method_distils_them_from_a_cache_as_from_the_live_teacher(recipe, words, task, superglue_teachers, superglue, tmp_path):
    if recipe == "sense_kd":
        assert run("senses", "build", task, "--teacher", superglue_teachers[task], "--data_dir", superglue, "--num_senses", 3, "--bf16", False,
                   "--max_tokens", 1, "--output_dir", tmp_path / "senses") == 0
        words = ("--senses", tmp_path / "senses")
    weights = []
    for limit in (1, 0):  # GiB of cache
        assert run("train", recipe, task, "--teacher", superglue_teachers[task], "--data_dir", superglue, "--output_dir", tmp_path / str(limit), "--max_steps", 4,
                   "--train_batch_size", 6, "--bf16", False, "--max_cache_gib", limit, *words) == 0
        weights.append(load_encoder(tmp_path / str(limit) / "best").state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-4, rtol=1e-2)


def test_self_teaching_exports_a_scorer_of_choices(superglue, tiny_bert, tmp_path):
    assert run("train", "self_teaching", "COPA", "--model", tiny_bert, "--data_dir", superglue, "--output_dir", tmp_path, "--max_steps", 4) == 0
    assert predict(load_encoder(tmp_path / "best"), encode_split(load_encoder(tmp_path / "best"), get_task("COPA"), "dev", str(superglue))).shape == (8, 2)


def test_groups_are_judged_together(superglue_teachers, superglue):
    values = json.loads((superglue_teachers["MultiRC"] / "scores.json").read_text())
    assert set(values["values"]) == {"dev/f1", "dev/exact_match"} and values["counts"] == {"dev/f1": 24, "dev/exact_match": 8}
    kept = load_predictions(superglue_teachers["MultiRC"] / "predictions.npz")["dev"]
    right = kept.predicted == kept.target
    assert values["values"]["dev/exact_match"] == pytest.approx(np.mean([right[kept.group == group].all() for group in np.unique(kept.group)]))


def test_of_candidates_the_likeliest_is_chosen_and_credited(superglue_teachers, superglue):
    task, encoder = get_task("ReCoRD"), load_encoder(superglue_teachers["ReCoRD"])
    dataset = encode_split(encoder, task, "dev", str(superglue))
    assert dataset.group.tolist() == [3 * (row // 3) for row in range(24)] and set(dataset.credit) == {0.0, EXACT}
    logits = np.zeros((24, 2), np.float32)
    logits[4, 1], logits[0, 1] = 2.0, 1.0
    assert chosen_rows(logits, ("False", "True"), dataset.group, task).tolist() == [0, 4, *range(6, 24, 3)], "the first of equals"
    found = judged(logits, ("False", "True"), dataset, task)
    assert found.uid.tolist() == list(range(0, 24, 3)) and found.predicted.tolist() == dataset.credit[[0, 4, *range(6, 24, 3)]].tolist()
    flipped = judged(logits[:, ::-1], ("True", "False"), dataset, task)
    assert flipped.predicted.tolist() == found.predicted.tolist(), "labels are mapped by name"
    values = json.loads((superglue_teachers["ReCoRD"] / "scores.json").read_text())
    assert set(values["values"]) == {"dev/words_f1", "dev/exact_match"} and values["counts"]["dev/words_f1"] == 8


def test_a_held_out_tenth_never_cuts_through_a_group(superglue_teachers, superglue):
    encoder = load_encoder(superglue_teachers["MultiRC"])
    train, evaluation = read_splits(encoder, get_task("MultiRC"), finetune.Config(data_dir=str(superglue), select_on="heldout"))
    assert list(evaluation) == ["heldout", "dev"] and not set(train.group) & set(evaluation["heldout"].group) and len(evaluation["heldout"]) % 3 == 0


def test_the_rte_model_is_scored_on_the_diagnostics_with_gender_parity(superglue_teachers, superglue, tmp_path, capsys):
    assert run("evaluate", "AX-g", "--checkpoint", superglue_teachers["RTE"], "--data_dir", superglue, "--output", tmp_path / "scores.json", "--submission", tmp_path) == 0
    values = json.loads((tmp_path / "scores.json").read_text())["continuous states"]
    assert set(values["values"]) == {"test/accuracy", "test/parity"} and "test/parity" in capsys.readouterr().out
    assert run("data", "submission", "AX-g", tmp_path / "AX-g.jsonl", "--data_dir", superglue) == 0


@pytest.mark.parametrize("name", ["COPA", "MultiRC", "ReCoRD"])
def test_the_constant_answer_is_a_control_here_too(name, superglue, tmp_path):
    assert run("report", "--records", tmp_path / "records.jsonl", "constant", name, "main", "--data_dir", superglue) == 0
    found = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [record["metric"] for record in found] == list(get_task(name).metrics) and all(math.isfinite(record["value"]) for record in found)
    if name == "ReCoRD":
        assert found[0]["value"] == 1.0, "the first candidate is the answer in every row here"
