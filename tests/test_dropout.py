"""Dropout on a CPU: shares, scale, gradients, seeds; and attention that is torch's own but for what is dropped."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model, EuroBertConfig, EuroBertModel

from models.attention import use_fast_attention
from models.dropout import Dropout, attention, dropout

SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
         "max_position_embeddings": 40}


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_is_dropped_is_the_one_asked_for_and_the_mean_stays(share, dtype):
    torch.manual_seed(0)
    count = 400_003  # no multiple of four
    found = dropout(torch.ones(count, dtype=dtype), share)
    assert found.dtype == dtype and abs(float((found == 0).float().mean()) - share) < 4 * (share * (1 - share) / count) ** 0.5
    kept = found[found != 0].float()
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - share)), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(1)
    gone = (dropout(torch.ones(400_000), 0.5) == 0).float() - 0.5
    for step in (1, 2, 3, 4, 5):
        assert abs(float((gone[:-step] * gone[step:]).mean())) < 0.25 * 4 / 400_000 ** 0.5


def test_the_gradient_is_dropped_where_the_state_was():
    torch.manual_seed(2)
    states = torch.randn(7, 5, 3, requires_grad=True)
    found = dropout(states, 0.3)
    (slope,) = torch.autograd.grad(found.sum(), states)
    torch.testing.assert_close(found, states * slope)
    assert 0 < int((slope == 0).sum()) < slope.numel()


def test_draws_are_torch_s_own_seeds():
    def draw(seed):
        torch.manual_seed(seed)
        return dropout(torch.ones(1000), 0.5)

    assert draw(3).equal(draw(3)) and not draw(3).equal(draw(4))


def test_nothing_is_dropped_in_evaluation_or_at_zero():
    states = torch.randn(10)
    assert Dropout(0.5).eval()(states).equal(states) and dropout(states, 0.0).equal(states)
    assert not Dropout(0.5).train()(torch.ones(100)).equal(torch.ones(100))


@pytest.mark.parametrize("kind", ["none", "seen", "added"])
def test_attention_is_torch_s_where_hardly_anything_is_dropped(kind):
    """A share of 1e-9 is rounded to 0 of 65,536: our path, and nothing dropped."""
    torch.manual_seed(5)
    query, key, value = (torch.randn(3, 2, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    seen = torch.rand(3, 1, 6, 6) > 0.3
    seen[..., 0] = True
    mask = {"none": None, "seen": seen, "added": torch.randn(3, 2, 6, 6, dtype=torch.float64)}[kind]
    ours = attention(query, key, value, mask, 1e-9, 0.7)
    theirs = F.scaled_dot_product_attention(query, key, value, mask, scale=0.7)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(*(torch.autograd.grad(found.square().sum(), (query, key, value)) for found in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other)


def test_probabilities_are_dropped_and_their_sum_keeps_its_mean():
    torch.manual_seed(6)
    query, value = torch.zeros(64, 8, 32, 4), torch.ones(64, 8, 32, 4)
    found = attention(query, query, value, None, 0.2)
    assert abs(float(found.mean()) - 1) < 0.01 and float(found.std()) > 0.05


@pytest.mark.parametrize("model", [
    lambda: BertModel(BertConfig(**SHAPE, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)),
    lambda: DebertaV2Model(DebertaV2Config(**SHAPE, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], type_vocab_size=0,
                                           hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)),
    lambda: EuroBertModel(EuroBertConfig(**SHAPE, num_key_value_heads=1, pad_token_id=0, bos_token_id=1, eos_token_id=1, mask_token_id=1,
                                         attention_dropout=0.2))], ids=["bert", "deberta", "shared keys"])
def test_an_encoder_gives_the_same_states_in_evaluation_others_in_training_and_an_ordinary_config(model, tmp_path):
    theirs = model().eval()
    ours = use_fast_attention(copy.deepcopy(theirs))
    assert not any(type(module) is nn.Dropout for module in ours.modules())
    given = {"input_ids": torch.randint(0, 50, (3, 9)), "attention_mask": (torch.arange(9) < torch.tensor([[9], [5], [1]])).long()}
    states = [found(**given).last_hidden_state[given["attention_mask"].bool()] for found in (ours, theirs)]
    torch.testing.assert_close(*states)
    ours.train()
    torch.manual_seed(0)
    one, other = (ours(**given).last_hidden_state for _ in range(2))
    assert one.isfinite().all() and not torch.equal(one, other)
    ours.config.save_pretrained(tmp_path)
    assert "dropping" not in (tmp_path / "config.json").read_text()
