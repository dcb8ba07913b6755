"""One network that answers twice: after its last layer, and after an earlier one (distill/recipes/self_teaching.py)."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from models.encoder import Encoder
from models.heads import pool
from models.layers import layer_stack
from models.outputs import Outputs
from models.truncate import keep_layers


class TwoExits(Encoder):
    """An encoder with a second head after layer `layer`: the teacher and the student of self-teaching.

        H[0] -> layer 1 -> ... -> H[layer] -> ... -> H[depth] -> head        the teacher exit
                                     |
                                     +-> exit_head                           the student exit

    `forward(batch)` gives both as Outputs.exits (layer -> logits), from one pass; Outputs.logits are the student's. save() and
    restore() hold all of it; export() writes the student, an encoder of `layer` layers.
    Both exits have the encoder's pooling. The exit's head starts as a copy of the encoder's: an exit that answers at random
    would, where the teacher is not detached, pull a trained teacher towards nothing.
    The encoder's modules are taken over, not copied. ValueError where it cannot be cut after `layer`.
    """

    def __init__(self, encoder: Encoder, layer: int):
        super().__init__(encoder.backbone, encoder.head, encoder.info, encoder.tokenizer)
        if not 1 <= layer < self.depth:
            raise ValueError(f"an exit after layer {layer} of {self.depth}: expected 1 to {self.depth - 1}")
        check_cut(self.backbone, layer)
        self.layer = layer
        self.exit_head = copy.deepcopy(encoder.head)

    def forward(self, batch) -> Outputs:
        hidden = self.encode(batch)
        exits = {layer: self.answer(head, pool(hidden[layer], batch.attention_mask, self.info.pooling), batch)
                 for layer, head in ((self.layer, self.exit_head), (self.depth, self.head))}
        return Outputs(exits[self.layer], hidden, exits=exits)

    def export(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the student into the existing `folder`: the first layers, its head as the head. `state` as for save()."""
        state = self.state_dict() if state is None else state
        student = outline(self, self.layer)
        student.save(folder, {name: state[f"exit_{name}" if name.startswith("head.") else name] for name in student.state_dict()})


@torch.no_grad()
def check_cut(backbone: nn.Module, layer: int) -> None:
    """ValueError where `backbone` cut after `layer` ends with another state than H[layer]: with a LayerNorm above all layers
    (ModernBERT), a student of its first layers would answer otherwise than the exit that was trained."""
    (owner, name), input_ids = layer_stack(backbone), torch.arange(3)[None]
    layers = getattr(owner, name)
    backbone.eval()
    expected = backbone(input_ids=input_ids, output_hidden_states=True).hidden_states[layer]
    setattr(owner, name, layers[:layer])
    try:
        found = backbone(input_ids=input_ids, output_hidden_states=True).hidden_states[-1]
    finally:
        setattr(owner, name, layers)
    if not torch.allclose(found, expected, atol=1e-5):
        raise ValueError(f"a {backbone.config.model_type} encoder changes its states after its last layer: it has no earlier exit "
                         "that a cut model would have; self-teaching takes BERT, DeBERTa and others without a last LayerNorm")


def outline(encoder: Encoder, depth: int) -> Encoder:
    """The first `depth` layers of `encoder`: all but the weights, which are on torch's meta device and take no memory."""
    config = copy.deepcopy(encoder.config)
    keep_layers(config, tuple(range(depth)))
    head = encoder.head
    with torch.device("meta"):
        backbone: nn.Module = AutoModel.from_config(config, dtype=torch.float32)
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        empty = encoder.info.new_head(encoder.width, head.activation_name, head.dropout.p)
    return Encoder(backbone, empty, encoder.info, encoder.tokenizer)
