"""Pre-training on two ranks, copied or sharded, gives the parameters that one process gives."""

import pytest
import torch
from safetensors.torch import load_file

from tests.pretraining import words, write_places
from tests.training import exact_arithmetic, free_port, one_rank_of_the_program, run, start

EVERY_TERM = ("--hidden_weight", 1, "--attention_weight", 100, "--relation_weight", 100, "--bf16", False, "--max_tokens", 80, "--layout", "packed",
              "--learning_rate", 2e-4)

RELATIONS = ("--preset", "minilmv2", "--warmup_steps", 2, "--bf16", False, "--learning_rate", 2e-4)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Without dropout, whose draws are each rank's own."""
    return write_places(tmp_path_factory.mktemp("ranks"), dropout=0.0)


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
    moved = "bert.encoder.layer.0.attention.self.query.weight"
    assert (one[moved] - start_of["bert.encoder.layer.1.attention.self.query.weight"]).abs().max() > 3e-4
    for name, tensor in one.items():  # a key's bias shifts all scores alike: its gradient is rounding, which AdamW makes into steps
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5 if name.endswith("key.bias") else 1e-6, msg=lambda said: f"{name}: {said}")
