"""An encoder for one task: a transformers backbone, an optional adaptor, a pooling and a head."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.heads import POSITIONS, TOKENS, ClassificationHead, SenseLookup, SpanHead, pool
from models.outputs import PADDING_LOGIT, Outputs
from models.trunk import Trunk
from models.weights import LAYOUTS, PLAIN_LAYOUT, key_map, rename, write_tensors


@dataclass(frozen=True)
class TaskInfo:
    """What a checkpoint knows of its task, stored beside the weights as task.json.

    `texts` are the task's text columns in the order in which they are fed; `labels` the class names in the order of
    the logits, empty for regression. `head_input` is "continuous" (hidden states) or "senses" (each state replaced by
    its sense before the pooling, chosen by `similarity`: see SenseLookup). `choices`: how many sequences an example has, of
    which one is right; each gets one logit from the same head. 0: the classes are those of `labels`. A `pooling` of "tokens"
    says that the answer is a part of the text: `labels` are then what a token is to it. `max_length`: tokens of an example at most,
    in training; 0 where that is not known. `stride` and `max_query_length`: how it was cut into windows, where it was; 0 the latter where
    that is not known.
    """

    task: str
    version: int
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pooling: str
    head_input: str = "continuous"
    similarity: str = "dot"
    choices: int = 0
    max_length: int = 0
    stride: int = 0
    max_query_length: int = 0

    @property
    def spans(self) -> bool:
        """Whether answers are parts of the text, and every token has logits."""
        return self.pooling == TOKENS

    @property
    def num_outputs(self) -> int:
        """Outputs of the head, for every sequence."""
        return 1 if self.choices else self.num_logits

    @property
    def num_logits(self) -> int:
        """Logits of an example (of a token, for answers in a text): its classes or choices; 1 for regression."""
        return len(self.labels) or 1

    def new_head(self, width: int, activation: str, dropout: float) -> ClassificationHead | SpanHead:
        """A head of the right kind with fresh weights."""
        if self.spans:
            return SpanHead(width, self.num_outputs, dropout)
        return ClassificationHead(width, self.num_outputs, activation, dropout)


class Encoder(Trunk):
    """backbone -> adaptor -> (senses) -> pooling -> head.

    `forward(batch)` reads batch.input_ids, attention_mask and token_type_ids, all [B, T] ([B choices, T] for tasks of choices),
    and returns Outputs.
    `senses`, where given, replaces states before the pooling: the position that the pooling reads, or all for `mean` and `tokens`.
    """

    def __init__(self, backbone: nn.Module, head: ClassificationHead | SpanHead, info: TaskInfo, tokenizer,
                 adaptor: nn.Module | None = None, senses: SenseLookup | None = None):
        super().__init__(backbone, tokenizer)
        self.adaptor = adaptor or nn.Identity()
        self.head = head
        self.info = info
        self.senses = senses

    @property
    def names(self) -> dict[str, str]:
        """As Trunk.names; where transformers answers otherwise, save() leaves the head its own names."""
        return key_map(self.backbone, self.info.spans)

    @property
    def description(self) -> str:
        return f"a {self.config.model_type} encoder with {self.info.num_outputs} outputs for {self.info.task}"

    @property
    def is_transformers_own(self) -> bool:
        """Whether transformers' class for such a task answers as this encoder does, by its backbone and head."""
        answers_alike = self.info.spans or self.info.pooling == "cls" and self.config.model_type in LAYOUTS
        return answers_alike and self.info.head_input == "continuous" and self.width == self.config.hidden_size

    @property
    def width(self) -> int:
        """Width of what the head reads: after the adaptor."""
        return self.head.width

    def width_of(self, layer: int) -> int:
        """Width of the hidden states H[layer], from the last backwards -1, -2 ...; the last one has passed the adaptor."""
        return self.width if layer in (self.depth, -1) else self.config.hidden_size

    def encode(self, batch) -> tuple[Tensor, ...]:
        """The hidden states: depth + 1 tensors [B, T, D], the last after the adaptor."""
        states = super().encode(batch)
        return (*states[:-1], self.adaptor(states[-1]))

    def pooled(self, last_BTD: Tensor, batch, senses: SenseLookup | None = None) -> Tensor:
        """What the head reads of every sequence, [B, D]: the last hidden states, read through `senses` where given, pooled. For
        answers in a text what it reads of every token, [B, T, D]."""
        position = POSITIONS.get(self.info.pooling)
        if senses is not None and position is None:
            last_BTD = senses.replace(last_BTD, batch.input_ids)
        pooled_BD = pool(last_BTD, batch.attention_mask, self.info.pooling)
        if senses is not None and position is not None:
            pooled_BD = senses.replace(pooled_BD, batch.input_ids[:, position])
        return pooled_BD

    def answer(self, head: ClassificationHead | SpanHead, pooled_BD: Tensor, batch) -> Tensor:
        """Logits of the examples from the pooled states of their sequences: [B, C], or [B, T, C] for answers in a text. One of a batch of
        single texts, as a corpus has them, is a choice by itself."""
        if self.info.spans:
            return head(pooled_BD).masked_fill(batch.attention_mask[..., None] == 0, PADDING_LOGIT)
        return head(pooled_BD).view(len(batch), -1)

    def forward(self, batch) -> Outputs:
        hidden = self.encode(batch)
        pooled_BD = self.pooled(hidden[-1], batch, self.senses)
        return Outputs(self.answer(self.head, pooled_BD, batch), hidden, self.take_projections(), pooled=pooled_BD)

    def with_head_input(self, head_input: str, senses: SenseLookup | None = None) -> "Encoder":
        """The same modules, read through `senses` ("senses") or as they are ("continuous"); nothing is copied."""
        if head_input == "senses" and senses is None:
            raise ValueError("a head that reads senses needs a sense dictionary: build one with "
                             "`sh r2_construct_sense_dictionary.sh TASK`")
        if senses is not None and senses.width != self.width:
            raise ValueError(f"the sense dictionary is {senses.width} wide and the model's head reads {self.width}: "
                             "take the dictionary that was built with this model's teacher")
        info = replace(self.info, head_input=head_input, similarity=senses.similarity if senses else "dot")
        return Encoder(self.backbone, self.head, info, self.tokenizer, self.adaptor, senses if head_input == "senses" else None)

    def order_labels(self, labels: tuple[str, ...]) -> None:
        """Bring the logits into the order of `labels`, the same classes."""
        rows = [self.info.labels.index(label) for label in labels]
        with torch.no_grad():
            for parameter in self.head.out.parameters():
                parameter.copy_(parameter[rows].clone())
        self.info = replace(self.info, labels=labels)

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write this encoder into the existing `folder`, in the format that models/checkpoint.py describes and reads.

        `state`: its state_dict(), where the tensors in the modules are not whole. Not atomic: the caller renames a
        temporary folder. Changes nothing but the labels in the backbone's config.
        """
        state = self.state_dict() if state is None else state
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        own = self.is_transformers_own
        names = {prefix: name for prefix, name in self.names.items() if own or not prefix.startswith("head.")}
        write_tensors(folder / "model.safetensors", rename(state, names), {"format": "pt"})
        config, labels = self.config, self.info.labels
        layout = LAYOUTS.get(config.model_type, PLAIN_LAYOUT)
        of_sequences = layout.multiple_choice if self.info.choices else layout.architecture
        architecture = layout.question_answering if self.info.spans else of_sequences
        config.architectures = [architecture if own and architecture else type(self.backbone).__name__]
        config.id2label = dict(enumerate(labels if labels and not self.info.choices else ("score",)))
        config.label2id = {label: index for index, label in config.id2label.items()}
        scored = "single_label_classification" if labels and not self.info.choices else "regression"
        config.problem_type = None if self.info.spans else scored  # of whole sequences
        config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        head = {"width": self.width, "activation": self.head.activation_name, "dropout": self.head.dropout.p}
        (folder / "task.json").write_text(json.dumps({**asdict(self.info), "head": head}, indent=2) + "\n")
        if self.senses is not None:
            write_tensors(folder / "senses.safetensors", {"centroids": self.senses.centroids.half().cpu(),
                                                          "offsets": self.senses.offsets.cpu()})
