"""What every encoder of ours is built on: a transformers backbone that gives its hidden states, queries, keys and values."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from models.layers import projections
from models.weights import read_tensors, rename


class _Note:
    """A forward hook that puts a projection of tokens into `found`; DeBERTa's layers also project positions, [R, D]."""

    def __init__(self, found: dict[int, Tensor], kind: int):
        self.found, self.kind = found, kind

    def __call__(self, module: nn.Module, inputs, output: Tensor) -> None:
        if output.dim() == 3:
            self.found[self.kind] = output


class Trunk(nn.Module):
    """A backbone and its tokenizer. Subclasses add what reads the hidden states, and say in `names` how transformers calls their
    tensors."""

    def __init__(self, backbone: nn.Module, tokenizer):
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.type_ids = getattr(backbone.config, "type_vocab_size", 0) > 1
        self._projected: dict[int, dict[int, Tensor]] = {}

    @property
    def config(self):
        return self.backbone.config

    @property
    def depth(self) -> int:
        return self.config.num_hidden_layers

    @property
    def names(self) -> dict[str, str]:
        """Prefixes of own names -> of transformers' names."""
        return {"backbone.": f"{self.backbone.base_model_prefix}."}

    def width_of(self, layer: int) -> int:
        """Width of the hidden states H[layer]."""
        return self.config.hidden_size

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that the model can read; None where positions are only relative (DeBERTa-v2/v3)."""
        if not getattr(self.config, "position_biased_input", True):
            return None
        table = getattr(getattr(self.backbone, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)  # RoBERTa has a position for padding, and counts from the next
        return self.config.max_position_embeddings - (0 if padding is None else padding + 1)

    def encode(self, batch) -> tuple[Tensor, ...]:
        """The hidden states: depth + 1 tensors [B, T, D]."""
        inputs = {"token_type_ids": batch.token_type_ids} if self.type_ids else {}
        return self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                             output_hidden_states=True, **inputs).hidden_states

    def keep_projections(self, layers: Iterable[int]) -> None:
        """From now on every pass also notes the queries, keys and values of these layers (1: the first).

        They are noted where they are computed, once more costs nothing. Not for an encoder that will be copied.
        """
        for layer in set(layers) - self._projected.keys():
            found = self._projected[layer] = {}
            for kind, module in enumerate(projections(self.backbone, layer)):
                module.register_forward_hook(_Note(found, kind))

    def take_projections(self) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """What the last encode() noted, by layer; it is noted no longer."""
        projected = {layer: tuple(found[kind] for kind in range(3)) for layer, found in self._projected.items()}
        for found in self._projected.values():
            found.clear()
        return projected

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write weights, config and tokenizer into the existing `folder`, in transformers' format; restore() reads them.

        `state`: its state_dict(), where the tensors in the modules are not whole. Not atomic: the caller renames a
        temporary folder.
        """
        raise NotImplementedError

    def export(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write what a run makes, as an ordinary checkpoint; save() writes what it is made from. Here the two are one."""
        self.save(folder, state)

    def restore(self, folder: Path) -> None:
        """Set the weights to those that save() wrote into `folder`. ValueError where they do not fit."""
        path = Path(folder) / "model.safetensors"
        self.load_named(read_tensors(path), str(path))

    def load_named(self, state: dict[str, Tensor], source: str) -> None:
        """Set every weight from tensors named as in transformers' checkpoints; ValueError listing what does not fit."""
        state, own = rename(state, {theirs: ours for ours, theirs in self.names.items()}), self.state_dict()
        missing = sorted(name for name in own if name not in state or state[name].shape != own[name].shape)
        unexpected = sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise ValueError(f"{source} does not fit {self.description}: missing or of another shape: {missing or 'none'}; "
                             f"unexpected: {unexpected or 'none'}")
        self.load_state_dict(state)

    @property
    def description(self) -> str:
        """What this is, for messages."""
        raise NotImplementedError
