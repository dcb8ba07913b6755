"""Pre-training on two ranks, copied or sharded, gives the parameters that one process gives."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from tests.pretraining import words, write_places
from tests.tiny import write_bert
from tests.training import exact_arithmetic, free_port, one_rank_of_the_program, run, start

EVERY_TERM = ("--hidden_weight", 1, "--attention_weight", 100, "--relation_weight", 100, "--bf16", False, "--max_tokens", 80, "--layout", "packed",
              "--learning_rate", 2e-4)

NARROW = ("--hidden_weight", 1, "--bf16", False, "--max_tokens", 80, "--learning_rate", 2e-4, "--eval_on_start", True)
RELATIONS = ("--preset", "minilmv2", "--warmup_steps", 2, "--bf16", False, "--learning_rate", 2e-4)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Without dropout, whose draws are each rank's own; `narrow`: a model of half the width."""
    root = write_places(tmp_path_factory.mktemp("ranks"), dropout=0.0)
    write_bert(root / "narrow", hidden_size=16, num_hidden_layers=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    BertForMaskedLM(BertConfig.from_pretrained(root / "narrow")).save_pretrained(root / "narrow")
    return root


@pytest.fixture(scope="module")
def alone(places, tmp_path_factory):
    """What one process learns of every term, and of relations alone."""
    out = tmp_path_factory.mktemp("alone")
    with exact_arithmetic():
        assert run(*words(places, out / "every", *EVERY_TERM)) == 0
        assert run(*words(places, out / "relations", *RELATIONS)) == 0
    return out


def learned_by_two(command, tmp_path):
    port = free_port()
    ranks = [start(one_rank_of_the_program, rank, 2, port, command, tmp_path / f"said{rank}") for rank in range(2)]
    for rank, process in enumerate(ranks):
        process.join(120)
        assert process.exitcode == 0, (tmp_path / f"said{rank}").read_text()


@pytest.mark.parametrize("kind, more", [("every", EVERY_TERM), ("relations", RELATIONS),
                                        ("every", (*EVERY_TERM, "--fsdp", True))])
def test_two_ranks_learn_what_one_process_learns(places, alone, tmp_path, kind, more):
    learned_by_two(words(places, tmp_path / "two", *more), tmp_path)
    one, two = (load_file(folder / "last/model.safetensors") for folder in (alone / kind, tmp_path / "two"))
    assert one.keys() == two.keys()
    start_of = load_file(places / "teacher/model.safetensors")
    moved = next(tensor for name, tensor in one.items() if name.endswith("encoder.layer.0.attention.self.query.weight"))
    assert (moved - start_of["bert.encoder.layer.1.attention.self.query.weight"]).abs().max() > 3e-4
    for name, tensor in one.items():  # a key's bias shifts all scores alike: its gradient is rounding, which AdamW makes into steps
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5 if name.endswith("key.bias") else 1e-6, msg=lambda said: f"{name}: {said}")


def test_a_sharded_student_that_is_narrower_than_its_teacher_is_judged_as_a_whole_one(places, tmp_path):
    """A projection lies between their states, around the student, and an evaluation reads it too."""
    more = ("--student", places / "narrow", *NARROW)
    with exact_arithmetic():
        assert run(*words(places, tmp_path / "one", *more)) == 0
    learned_by_two(words(places, tmp_path / "two", *more, "--fsdp", True), tmp_path)
    one, two = (json.loads((tmp_path / name / "scores.json").read_text())["terms"] for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-4) and {"mlm", "kl", "cos", "hidden"} == one.keys()
