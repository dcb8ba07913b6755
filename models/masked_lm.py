"""An encoder with a masked-language-model head, and where transformers' checkpoints keep that head."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from models.outputs import Outputs, Words
from models.text_encoder import TextEncoder


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


class MaskedLM(TextEncoder):
    """backbone -> head -> the backbone's own word embeddings: scores of the vocabulary, multiplied out where they are wanted.

    `forward(batch)` returns Outputs with `words`.
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
        return {"backbone.": f"{self.backbone.base_model_prefix}.", "head.dense.": f"{layout.dense}.", "head.norm.": f"{layout.norm}.",
                "head.bias": layout.bias}

    @property
    def description(self) -> str:
        return f"a {self.config.model_type} masked language model of {self.depth} layers"

    @property
    def architecture(self) -> str:
        return head_layout(self.config).architecture

    def forward(self, batch) -> Outputs:
        hidden = self.encode(batch)
        words = Words(self.head, hidden[-1], self.backbone.get_input_embeddings().weight)
        return Outputs(None, hidden, self.take_projections(), words=words)

    def without_head(self) -> TextEncoder:
        """The same backbone, not copied."""
        return TextEncoder(self.backbone, self.tokenizer)
