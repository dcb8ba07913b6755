"""A small student and its teacher, and a batch with padding."""

import numpy as np
import torch

from data_utils.batching import collate
from data_utils.encode import encode
from data_utils.tasks import get_task
from distill.teacher import LiveTeacher
from distill.terms import Term
from models.encoder import Encoder
from models.truncate import adapt, truncate
from tests.training import encoder, examples, settings, wider

PAIRS = ((0, 0), (1, 2), (2, 4))  # layers of a student and a teacher that are compared


@torch.no_grad()
def sharpened(model: Encoder) -> Encoder:
    """Fresh weights give states and attention that are all alike; these are as large as trained ones."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.weight.mul_(8)
    return model


class Pair:
    """A student of two layers cut from a teacher of four (bert, deberta), or adapted to one 48 wide (wide); a batch with
    padding; what a term gives for it."""

    def __init__(self, folder, task="SST-2", wide: bool = False, heads: int = 2):
        self.task = get_task(task)
        self.teacher = sharpened(encoder(folder, self.task, 4, False, seed=2))
        self.student = truncate(self.teacher, (0, 2))
        if wide:
            self.teacher = sharpened(wider(self.teacher, 48, heads, seed=2))
            self.student = adapt(self.student, self.teacher)
        data = encode(examples(self.task, 5), self.student.tokenizer, 64)
        self.batch = collate(data, np.arange(5), task, self.student.tokenizer.pad_token_id)
        assert 0 < int((self.batch.attention_mask == 0).sum())

    def sum(self, term: Term) -> float:
        """The term over the batch; keeps what both models gave."""
        live = LiveTeacher(self.teacher, settings(), term.wanted)
        self.found, self.target = self.student(self.batch), live(self.batch)
        return term(self.found, self.target, self.batch).item()
