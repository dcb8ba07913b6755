"""Fast disentangled attention gives what transformers' own gives: states, probabilities and gradients."""

import copy

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2Model

from models.attention import DisentangledAttention, use_fast_attention

V3 = {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
      "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
VARIANTS = {
    "v3": {},
    "own position projections": {"share_att_key": False},
    "content to position alone": {"pos_att_type": ["c2p"]},
    "position to content alone": {"pos_att_type": ["p2c"], "share_att_key": False},
    "raw distances": {"position_buckets": -1, "max_relative_positions": 12},
    "a convolution, embeddings as they are": {"conv_kernel_size": 3, "norm_rel_ebd": "none"},
    "no positions in the attention": {"relative_attention": False, "pos_att_type": [], "position_biased_input": True},
}


CLOSE = {"rtol": 1e-9, "atol": 1e-9}
HEADS = {1: 6, 2: 3, 3: 2}  # by terms of a score: transformers divides by a float32 root, exact for these


def pair(**changed) -> tuple[DebertaV2Model, DebertaV2Model]:
    """The same random model twice in float64: transformers' own, and with fast attention. No dropout."""
    torch.manual_seed(0)
    given = {**V3, **changed}
    config = DebertaV2Config(**given, vocab_size=50, hidden_size=24, num_hidden_layers=3,
                             num_attention_heads=HEADS[1 + len(given["pos_att_type"])], intermediate_size=32, max_position_embeddings=40, hidden_dropout_prob=0.0,
                             attention_probs_dropout_prob=0.0, initializer_range=0.5)
    theirs = DebertaV2Model(config).double()
    ours = use_fast_attention(copy.deepcopy(theirs))
    assert any(type(module) is DisentangledAttention for module in ours.modules())
    return theirs, ours


def inputs(length: int) -> dict[str, torch.Tensor]:
    """Four sequences, three of them padded."""
    mask = torch.arange(length) < torch.tensor([[length], [max(1, length - 1)], [max(1, length // 2)], [1]])
    return {"input_ids": torch.randint(0, 50, (4, length), generator=torch.Generator().manual_seed(length)),
            "attention_mask": mask.long()}


@pytest.mark.parametrize("length", [1, 2, 7, 40])
@pytest.mark.parametrize("variant", VARIANTS)
def test_states_and_gradients_are_those_of_transformers(variant, length):
    theirs, ours = pair(**VARIANTS[variant])
    given = inputs(length)
    for train in (False, True):
        found = []
        for model in (theirs, ours):
            states = model.train(train)(**given, output_hidden_states=True).hidden_states
            model.zero_grad()
            real = torch.stack(states)[:, given["attention_mask"].bool()]
            (real[-1] * torch.linspace(-1, 1, real[-1].numel()).view_as(real[-1])).sum().backward()
            found.append([real, *(parameter.grad for parameter in model.parameters())])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(**given)[0], theirs.eval()(**given)[0], **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_probabilities_are_those_of_transformers(variant):
    theirs, ours = (model.eval() for model in pair(**VARIANTS[variant]))
    given = inputs(9)
    for one, other in zip(theirs(**given, output_attentions=True).attentions, ours(**given, output_attentions=True).attentions):
        torch.testing.assert_close(one, other, **CLOSE)



def fused_step(model):
    """As training does it: such an optimiser leaves the weights' versions as they are."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("change", [
    fused_step,
    lambda model: model.load_state_dict({name: value + 0.1 for name, value in model.state_dict().items()}),
    lambda model: model.encoder.rel_embeddings.weight.mul_(1.5),
    lambda model: model.encoder.LayerNorm.bias.add_(0.3),
    lambda model: model.encoder.layer[1].attention.self.key_proj.weight.mul_(1.1),
    lambda model: model.float().double()])
def test_what_is_kept_for_evaluation_follows_the_weights(change):
    theirs, ours = (model.eval() for model in pair())
    given = inputs(7)
    with torch.no_grad():
        before = ours(**given)[0]
        assert ours(**given)[0].equal(before)
        for model in (theirs, ours):
            change(model)
        torch.testing.assert_close(ours(**given)[0], theirs(**given)[0], **CLOSE)


def test_positions_are_projected_once_at_evaluation_and_every_time_in_training():
    _, ours = pair(share_att_key=False)
    calls = []
    ours.encoder.layer[0].attention.self.pos_key_proj.register_forward_hook(lambda *_: calls.append(1))
    ours.eval()
    with torch.no_grad():
        for length in (7, 5, 9):
            ours(**inputs(length))
    assert len(calls) == 1
    for _ in range(2):
        ours.train()(**inputs(7))
    assert len(calls) == 3


def test_dropout_falls_on_positions_and_probabilities():
    _, ours = pair()
    attention = ours.encoder.layer[0].attention.self
    given = inputs(7)
    still = ours.train()(**given)[0]
    for module, name in ((attention.pos_dropout, "positions"), (attention.dropout, "probabilities")):
        module.p = 0.5
        assert not ours(**given)[0].equal(still), name
        assert ours.eval()(**given)[0].equal(ours(**given)[0])
        module.p = 0.0
        ours.train()
