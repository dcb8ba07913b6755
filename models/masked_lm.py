"""An encoder with a masked-language-model head, and where transformers' checkpoints keep that head."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from models.outputs import Outputs, Words
from models.trunk import Trunk
from models.weights import rename, write_tensors


@dataclass(frozen=True)
class HeadLayout:
    """Where transformers' masked language model of a model type has its head: the layer before the words, its norm, the words' bias."""

    dense: str
    norm: str
    bias: str
    architecture: str


HEADS = {"bert": HeadLayout("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
                            "BertForMaskedLM"),
         "deberta-v2": HeadLayout("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
                                  "DebertaV2ForMaskedLM"),
         "distilbert": HeadLayout("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "DistilBertForMaskedLM")}
NOT_LEGACY = HeadLayout("lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm", "lm_predictions.lm_head.bias",
                        "DebertaV2ForMaskedLM")  # of a DeBERTa-v2 whose config says `legacy: false`, under the names of its authors


def head_layout(config) -> HeadLayout:
    """ValueError for a model type whose head is not known."""
    if config.model_type not in HEADS:
        raise ValueError(f"a {config.model_type} encoder cannot be pre-trained here: its head for masked words is not known; take one of "
                         f"{', '.join(HEADS)}")
    return HEADS[config.model_type] if getattr(config, "legacy", True) else NOT_LEGACY


class WordHead(nn.Module):
    """dense -> activation -> norm: hidden states [..., D] -> features [..., E], which score a word by the product with its
    embedding, plus `bias` [V]."""

    def __init__(self, width: int, embedding_width: int, words: int, activation: str, norm_eps: float):
        super().__init__()
        self.dense = nn.Linear(width, embedding_width)
        self.activation = ACT2FN[activation]
        self.norm = nn.LayerNorm(embedding_width, norm_eps)
        self.bias = nn.Parameter(self.dense.weight.new_zeros(words))

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(states)))


class MaskedLM(Trunk):
    """backbone -> head -> the backbone's own word embeddings: scores of the vocabulary, multiplied out where they are wanted.

    `forward(batch)` reads a TextBatch and returns Outputs with `words`. In packed rows a token sees its own piece alone.
    """

    def __init__(self, backbone: nn.Module, head: WordHead, tokenizer):
        super().__init__(backbone, tokenizer)
        self.head = head

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer) -> "MaskedLM":
        """The modules of transformers' own masked language model, none copied but the words' bias.

        ValueError where words are scored by other weights than their embeddings.
        """
        layout, config = head_layout(model.config), model.config
        dense, norm = (model.get_submodule(name) for name in (layout.dense, layout.norm))
        head = WordHead(dense.in_features, dense.out_features, config.vocab_size,
                        getattr(config, "hidden_act", None) or config.activation, norm.eps)
        head.dense, head.norm = dense, norm
        head.bias.data.copy_(model.get_parameter(layout.bias).data)
        made = cls(model.base_model, head, tokenizer)
        read = {layout.bias, *(name for name, tensor in model.named_parameters() if any(tensor is own for own in made.parameters()))}
        others = sorted(name for name, _ in model.named_parameters() if name not in read)
        if others:
            raise ValueError(f"{config.name_or_path or config.model_type}: {', '.join(others)} of its own: expected words to be scored by their "
                             "embeddings. Take a model with tied embeddings; where these weights equal them, set \"tie_word_embeddings\": true "
                             "in its config.json")
        return made

    @property
    def names(self) -> dict[str, str]:
        layout = head_layout(self.config)
        return {**super().names, "head.dense.": f"{layout.dense}.", "head.norm.": f"{layout.norm}.", "head.bias": layout.bias}

    @property
    def description(self) -> str:
        return f"a {self.config.model_type} masked language model of {self.depth} layers"

    @property
    def can_pack(self) -> bool:
        """Whether pieces of a packed row see themselves alone: a convolution (larger DeBERTa-v2 models) reads across their ends."""
        return getattr(self.config, "conv_kernel_size", 0) == 0

    def encode(self, batch) -> tuple[Tensor, ...]:
        if batch.pieces is None:
            return super().encode(batch)
        return PACKED.get(self.config.model_type, _packed_states)(self, batch)

    def forward(self, batch) -> Outputs:
        hidden = self.encode(batch)
        words = Words(self.head, hidden[-1], self.backbone.get_input_embeddings().weight)
        return Outputs(None, hidden, self.take_projections(), words=words)

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        state = self.state_dict() if state is None else state
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_tensors(folder / "model.safetensors", rename(state, self.names), {"format": "pt"})
        self.config.architectures = [head_layout(self.config).architecture]
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _packed_states(model: MaskedLM, batch) -> tuple[Tensor, ...]:
    """Hidden states of packed rows: a mask [B, 1, T, T] and positions that start again."""
    inputs = {"token_type_ids": batch.token_type_ids} if model.type_ids else {}
    return model.backbone(input_ids=batch.input_ids, attention_mask=batch.visible[:, None], position_ids=batch.position_ids,
                          output_hidden_states=True, **inputs).hidden_states


def _packed_deberta_states(model: MaskedLM, batch) -> tuple[Tensor, ...]:
    """The same for DeBERTa-v2, whose embeddings and layers read masks of different shapes. Distances are relative: those
    between pieces do not matter, none sees another."""
    inputs = {"token_type_ids": batch.token_type_ids} if model.type_ids else {}
    embedded = model.backbone.embeddings(input_ids=batch.input_ids, position_ids=batch.position_ids, mask=batch.attention_mask, **inputs)
    return model.backbone.encoder(embedded, batch.visible, output_hidden_states=True).hidden_states


PACKED: Mapping = {"deberta-v2": _packed_deberta_states}


def without_token_types(model: MaskedLM) -> MaskedLM:
    """`model`, in place, with one token type: the first's embedding for all tokens (DistilBERT, arXiv 1910.01108, has none)."""
    if model.type_ids:
        table = model.backbone.embeddings.token_type_embeddings
        model.backbone.embeddings.token_type_embeddings = nn.Embedding.from_pretrained(table.weight[:1].detach().clone(), freeze=False)
        model.config.type_vocab_size, model.type_ids = 1, False
        model.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # transformers would look up types that are not there
    return model
