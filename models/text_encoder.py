"""An encoder that reads rows of text, and where pieces of documents share a row."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from models.outputs import Outputs
from models.trunk import Trunk
from models.weights import rename, write_tensors

Kind = TypeVar("Kind", bound="TextEncoder")


class TextEncoder(Trunk):
    """A backbone without a head. `forward(batch)` reads a TextBatch and returns Outputs. In packed rows a token sees its own piece alone."""

    @property
    def names(self) -> dict[str, str]:
        return {"backbone.": ""}

    @property
    def description(self) -> str:
        return f"a {self.config.model_type} encoder of {self.depth} layers"

    @property
    def architecture(self) -> str:
        """The class of transformers that reads what save() writes."""
        return type(self.backbone).__name__

    @property
    def can_pack(self) -> bool:
        """Whether pieces of a packed row see themselves alone: a convolution (larger DeBERTa-v2 models) reads across their ends."""
        return getattr(self.config, "conv_kernel_size", 0) == 0

    def encode(self, batch) -> tuple[Tensor, ...]:
        if batch.pieces is None:
            return super().encode(batch)
        return PACKED.get(self.config.model_type, _packed_states)(self, batch)

    def forward(self, batch) -> Outputs:
        return Outputs(None, self.encode(batch), self.take_projections())

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        state = self.state_dict() if state is None else state
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_tensors(folder / "model.safetensors", rename(state, self.names), {"format": "pt"})
        self.config.architectures = [self.architecture]
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _packed_states(model: TextEncoder, batch) -> tuple[Tensor, ...]:
    """Hidden states of packed rows: a mask [B, 1, T, T] and positions that start again."""
    inputs = {"token_type_ids": batch.token_type_ids} if model.type_ids else {}
    return model.backbone(input_ids=batch.input_ids, attention_mask=batch.visible[:, None], position_ids=batch.position_ids,
                          output_hidden_states=True, **inputs).hidden_states


def _packed_deberta_states(model: TextEncoder, batch) -> tuple[Tensor, ...]:
    """The same for DeBERTa-v2, whose embeddings and layers read masks of different shapes. Distances are relative: those
    between pieces do not matter, none sees another."""
    inputs = {"token_type_ids": batch.token_type_ids} if model.type_ids else {}
    embedded = model.backbone.embeddings(input_ids=batch.input_ids, position_ids=batch.position_ids, mask=batch.attention_mask, **inputs)
    return model.backbone.encoder(embedded, batch.visible, output_hidden_states=True).hidden_states


PACKED: Mapping = {"deberta-v2": _packed_deberta_states}


def without_token_types(model: Kind) -> Kind:
    """`model`, in place, with one token type: the first's embedding for all tokens (DistilBERT, arXiv 1910.01108, has none)."""
    if model.type_ids:
        table = model.backbone.embeddings.token_type_embeddings
        model.backbone.embeddings.token_type_embeddings = nn.Embedding.from_pretrained(table.weight[:1].detach().clone(), freeze=False)
        model.config.type_vocab_size, model.type_ids = 1, False
        model.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # transformers would look up types that are not there
    return model
