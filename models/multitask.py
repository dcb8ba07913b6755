"""One encoder that answers several tasks: its own, and others through heads of their own."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from models.encoder import Encoder, TaskInfo
from models.heads import ClassificationHead
from models.outputs import Outputs


class MultiTask(Encoder):
    """An encoder with further heads: `forward(batch)` answers by the head of batch.task.

    save() and restore() hold all heads; export() writes the encoder with the head of its own task. The encoder's modules
    are taken over, not copied; the other heads start afresh, with its pooling.
    """

    def __init__(self, encoder: Encoder, others: Sequence[TaskInfo]):
        super().__init__(encoder.backbone, encoder.head, encoder.info, encoder.tokenizer, encoder.adaptor)
        own = encoder.head
        self.infos = {info.task: info for info in (encoder.info, *others)}
        self.heads = nn.ModuleDict({info.task: info.new_head(self.width, own.activation_name, own.dropout.p)
                                    for info in others})

    def head_of(self, task: str) -> ClassificationHead:
        return self.head if task == self.info.task else self.heads[task]

    def forward(self, batch) -> Outputs:
        hidden = self.encode(batch)
        pooled_BD = self.pooled(hidden[-1], batch)
        return Outputs(self.answer_as(batch.task, pooled_BD), hidden, pooled=pooled_BD)

    def answer_as(self, task: str, pooled_BD: Tensor) -> Tensor:
        """Logits [B, C] of the examples of `task` from the pooled states of their sequences."""
        return self.head_of(task)(pooled_BD).view(-1, self.infos[task].num_logits)

    def export(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write an ordinary checkpoint of the encoder's own task into the existing `folder`. `state` as for save()."""
        state = self.state_dict() if state is None else state
        plain = Encoder(self.backbone, self.head, self.info, self.tokenizer, self.adaptor)
        plain.save(folder, {name: tensor for name, tensor in state.items() if not name.startswith("heads.")})
