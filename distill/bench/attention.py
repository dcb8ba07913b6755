"""A training step of DeBERTa-v3, against transformers' own and against a BERT of the same size."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model

from distill import workers
from distill.bench.timing import Comparison, timed, training_flops
from models.attention import use_fast_attention

LENGTHS = (32, 64, 128)
TOKENS = 1024  # in a batch, whatever the length
LAYERS, WIDTH = 3, 768
SHAPE = {"vocab_size": 1000, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": WIDTH // 64,
         "intermediate_size": 4 * WIDTH}
V3 = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
      "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
TOLERANCE = 1e-5


def comparisons(cfg) -> Iterator[Comparison]:
    """For each length: fast DeBERTa against transformers' DeBERTa, and against BERT; float32, dropout on."""
    torch.manual_seed(0)
    device = workers.device()
    theirs = DebertaV2Model(DebertaV2Config(**SHAPE, **V3)).to(device)
    ours = use_fast_attention(copy.deepcopy(theirs))
    bert = BertModel(BertConfig(**SHAPE), add_pooling_layer=False).to(device)
    for length in LENGTHS:
        ids = torch.randint(0, 1000, (TOKENS // length, length), device=device)
        mask = torch.ones_like(ids)
        mask[0, length // 2:] = 0

        def side(model: nn.Module, ids=ids, mask=mask):
            return timed(lambda: _step(model.train(), ids, mask), int(mask.sum()))

        for name, other, check in (("transformers' DeBERTa", theirs, lambda ids=ids, mask=mask: _check(ours, theirs, ids, mask)),
                                   ("BERT of equal size", bert, lambda: "another model")):
            yield Comparison(f"DeBERTa training step, L = {length}", name, "tokens", side(ours), side(other), check,
                             training_flops(ours.config, length))


def _step(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    model.zero_grad(set_to_none=True)
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    (states @ torch.linspace(-1, 1, states.shape[1], device=states.device)).square().mean().backward()
    return states.detach()


def _check(ours: nn.Module, theirs: nn.Module, ids: Tensor, mask: Tensor) -> str:
    """States and gradients without dropout, relative to the largest entry of each tensor."""
    found = []
    for model in (ours, theirs):
        states = _step(model.eval(), ids, mask)
        found.append([states, *(weight.grad for weight in model.parameters() if weight.grad is not None)])
    errors = [float((one - other).abs().max() / other.abs().max()) for one, other in zip(*found, strict=True)]
    if max(errors) > TOLERANCE:
        raise ValueError(f"fast attention differs from transformers' by {max(errors):.1e} at {tuple(ids.shape)}: expected "
                         f"at most {TOLERANCE:.0e}")
    return f"states and gradients equal to {max(errors):.0e}"
