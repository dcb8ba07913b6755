"""The terms of which task distillation is made: what each reads, what it is divided by, and its sum."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from data_utils.tasks import Task
from distill.losses import (
    attention_error,
    cross_entropy,
    mean_squared_error,
    normalised_distance,
    probability_error,
    relation_kl,
    sense_cross_entropy,
    soft_score,
    soft_targets,
    span_cross_entropy,
    span_soft_targets,
    squared_error,
)
from distill.teacher import Wanted
from models.encoder import Encoder
from models.heads import SenseLookup
from models.outputs import Outputs
from models.trunk import Trunk

Pairs = Iterable[tuple[int, int]]  # student layer, teacher layer
RELATION_NUMBERS = 1 << 25  # attention relations of a micro-batch that are held at a time, 128 MiB in float32


class Term(nn.Module):
    """A part of the loss. `name` is how logs call it, `wanted` what it reads of the teacher.

    A module, so that what it learns (a projection) is trained and saved with the student.
    """

    name: str
    wanted = Wanted()

    def count(self, batch) -> int:
        """What the sum is divided by; `batch` is the whole step, on the CPU. Examples, unless a term says otherwise."""
        return len(batch)

    def forward(self, student: Outputs, teacher: Outputs, batch) -> Tensor:
        """The sum over a micro-batch, of what both gave for it."""
        raise NotImplementedError


class Labels(Term):
    """The loss on the task's labels: `ce` for classes, `span_ce` for answers in a text, `mse` for scores."""

    def __init__(self, task: Task):
        super().__init__()
        of_classes = ("span_ce", span_cross_entropy) if task.spans else ("ce", cross_entropy)
        self.name, self.loss = ("mse", squared_error) if task.is_regression else of_classes

    def forward(self, student, teacher, batch):
        return self.loss(student.logits, batch.target).sum()


class SoftTargets(Term):
    """The teacher's logits at a temperature; its scores, for regression."""

    name = "kl"
    wanted = Wanted(logits=True)

    def __init__(self, task: Task, temperature: float):
        super().__init__()
        self.is_regression, self.temperature = task.is_regression, temperature
        self.of_classes = span_soft_targets if task.spans else soft_targets

    def forward(self, student, teacher, batch):
        if self.is_regression:
            return soft_score(student.logits, teacher.logits).sum()
        return self.of_classes(student.logits, teacher.logits, self.temperature).sum()


class SoftProbabilities(SoftTargets):
    """Soft targets as the published code of MPDistil has them: the squared error of probabilities."""

    name = "mse_prob"

    def forward(self, student, teacher, batch):
        if self.is_regression:
            return super().forward(student, teacher, batch)
        return probability_error(student.logits, teacher.logits, self.temperature).sum()


class ClsStates(Term):
    """Normalised states at [CLS], per sequence, summed over pairs of layers (patient distillation)."""

    name = "cls"

    def __init__(self, pairs: Pairs, student: Encoder, teacher: Encoder):
        super().__init__()
        self.pairs = tuple(pairs)
        self.wanted = Wanted(cls=tuple(layer for _, layer in self.pairs))
        for one, other in self.pairs:
            if student.width_of(one) != teacher.width_of(other):
                raise ValueError(f"pkd compares [CLS] states: the student's layer {one} is {student.width_of(one)} wide, the "
                                 f"teacher's layer {other} {teacher.width_of(other)}; relation_kd, tinybert and logit_kd take any "
                                 "width")

    def count(self, batch):
        return len(batch.input_ids)

    def forward(self, student, teacher, batch):
        return sum(normalised_distance(student.hidden[one][:, 0], teacher.hidden[other][:, 0]).sum() for one, other in self.pairs)


class HiddenStates(Term):
    """Hidden states of every token, summed over pairs of layers (TinyBERT).

    Where widths differ a learned projection comes between, the same for all pairs of these widths. The student's last
    states have the teacher's width already: they have passed the student's adaptor.
    """

    name = "hidden"
    distance = staticmethod(mean_squared_error)

    def __init__(self, pairs: Pairs, student: Trunk, teacher: Trunk):
        super().__init__()
        self.pairs = tuple(pairs)
        self.wanted = Wanted(hidden=tuple(layer for _, layer in self.pairs))
        widths = sorted({(student.width_of(one), teacher.width_of(other)) for one, other in self.pairs})
        self.projections = nn.ModuleDict({f"{one} to {other}": nn.Linear(one, other) for one, other in widths if one != other})

    def count(self, batch):
        return batch.tokens

    def project(self, states: Tensor, width: int) -> Tensor:
        """States of the student [..., D] as [..., width]."""
        own = states.shape[-1]
        return states if own == width else self.projections[f"{own} to {width}"](states)

    def places(self, batch) -> Tensor:
        """Mask [B, T] of the positions that are compared: all real ones."""
        return batch.attention_mask.bool()

    def forward(self, student, teacher, batch):
        where = self.places(batch)
        pairs = [(student.hidden[one][where], teacher.hidden[other][where]) for one, other in self.pairs]
        return sum(self.distance(self.project(one, other.shape[-1]), other).sum() for one, other in pairs)


class AttentionScores(Term):
    """Attention scores before the softmax, per token and head, summed over pairs of layers (TinyBERT)."""

    name = "attention"

    def __init__(self, pairs: Pairs, student: Trunk, teacher: Trunk):
        super().__init__()
        self.pairs = tuple((one, other) for one, other in pairs if one and other)  # embeddings have no attention
        if not self.pairs:
            raise ValueError("--layer_map pairs nothing but embeddings, which have no attention: pair layers from 1 on, or set "
                             "--attention_weight 0")
        self.heads = student.config.num_attention_heads
        if self.heads != teacher.config.num_attention_heads:
            raise ValueError(f"tinybert compares attention heads: the student has {self.heads}, the teacher "
                             f"{teacher.config.num_attention_heads}; set --attention_weight 0, or take relation_kd, for which "
                             "any number of heads does")
        self.wanted = Wanted(projections=tuple(layer for _, layer in self.pairs))
        student.keep_projections(one for one, _ in self.pairs)

    def count(self, batch):
        return batch.tokens * self.heads

    def forward(self, student, teacher, batch):
        real = batch.attention_mask.bool()
        return sum(attention_error(student.projections[one][:2], teacher.projections[other][:2], batch.visible, self.heads)[real].sum()
                   for one, other in self.pairs)


class Relations(Term):
    """Relations among the queries, the keys and the values of one layer on each side, per token and relation head (MiniLMv2)."""

    name = "relation"

    def __init__(self, pair: tuple[int, int], heads: int, student: Trunk, teacher: Trunk):
        super().__init__()
        self.pair, self.heads = pair, heads
        if heads < 1:
            raise ValueError(f"--relation_heads {heads}: expected at least 1")
        for model, layer, who in ((student, pair[0], "student"), (teacher, pair[1], "teacher")):
            if not 1 <= layer <= model.depth:
                raise ValueError(f"the {who} has no layer {layer}, but 1 to {model.depth}: give one of them")
            if model.config.hidden_size % heads:
                raise ValueError(f"--relation_heads {heads} does not divide the {who}'s {model.config.hidden_size} hidden units: "
                                 "give a common divisor of both widths")
        self.wanted = Wanted(projections=(pair[1],))
        student.keep_projections([pair[0]])

    def count(self, batch):
        return batch.tokens * self.heads

    def forward(self, student, teacher, batch):
        length = batch.input_ids.shape[1]
        chunk = max(1, RELATION_NUMBERS // (self.heads * length ** 2))
        real = batch.attention_mask.bool()
        return sum(relation_kl(one, other, batch.visible, self.heads, chunk)[real].sum()
                   for one, other in zip(student.projections[self.pair[0]], teacher.projections[self.pair[1]], strict=True))


class Senses(Term):
    """The teacher's senses (arXiv 2504.06036), per token whose type has senses: z_j the similarity to sense j, over `temperature`.

        hard    CE(softmax(z^S), argmax_j z^T_j)
        soft    T^2 KL(softmax(z^T) || softmax(z^S))

    `left_out`: token ids whose senses are not learned. `soft_of`: the teacher's last layer, for soft senses; 0: hard ones.
    """

    name = "sense"

    def __init__(self, lookup: SenseLookup, left_out: Iterable[int] = (), temperature: float = 1.0, soft_of: int = 0):
        super().__init__()
        self.lookup, self.temperature, self.soft_of = lookup, temperature, soft_of
        self.wanted = Wanted(hidden=(soft_of,)) if soft_of else Wanted(senses=True)
        learned = lookup.offsets[1:] > lookup.offsets[:-1]
        learned[[token for token in left_out if token < len(learned)]] = False
        self.register_buffer("learned", learned, persistent=False)
        self.learned_on_cpu = learned.clone().cpu()  # where batches are counted

    def tokens(self, batch, learned: Tensor) -> Tensor:
        """Mask [B, T] of the real tokens of a type whose senses are learned."""
        inside = batch.input_ids.clamp(max=len(learned) - 1)
        return learned[inside] & (batch.input_ids < len(learned)) & batch.attention_mask.bool()

    def count(self, batch):
        return int(self.tokens(batch, self.learned_on_cpu).sum())

    def forward(self, student, teacher, batch):
        chosen = self.tokens(batch, self.learned)
        ids_M = batch.input_ids[chosen]
        scores_MK = self.lookup.scores(student.hidden[-1][chosen], ids_M)
        if self.soft_of:
            with torch.no_grad():
                wanted_MK = self.lookup.scores(teacher.hidden[self.soft_of][chosen], ids_M)
            lowest = -1e4  # where a type has no such sense: no weight, and no nan of inf - inf
            return soft_targets(scores_MK.clamp(min=lowest), wanted_MK.clamp(min=lowest), self.temperature).sum()
        return sense_cross_entropy(scores_MK / self.temperature, teacher.senses[chosen]).sum()
