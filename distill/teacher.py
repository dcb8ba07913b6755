"""Teachers: what a student learns from. Live ones run at every step, cached ones (teacher_cache.py) ran once."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch

from distill import workers
from distill.precision import autocast
from distill.sharding import placed
from models.heads import SenseLookup
from models.outputs import Outputs
from models.trunk import Trunk


@dataclass(frozen=True)
class Wanted:
    """What is read of a teacher. Layers count as in Outputs: 0 the embeddings, n the output of layer n."""

    senses: bool = False
    cls: tuple[int, ...] = ()          # hidden states at [CLS]
    hidden: tuple[int, ...] = ()       # hidden states of every token
    projections: tuple[int, ...] = ()  # queries, keys and values
    words: bool = False                # scores of the vocabulary
    logits: bool = False               # answers to the task

    def __or__(self, other: "Wanted") -> "Wanted":
        """What either wants."""
        def both(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(sorted({*one, *two}))

        return Wanted(self.senses or other.senses, both(self.cls, other.cls), both(self.hidden, other.hidden),
                      both(self.projections, other.projections), self.words or other.words, self.logits or other.logits)

    @property
    def layers(self) -> int:
        """The highest layer that is read by its number; 0 where none is."""
        return max((*self.cls, *self.hidden, *self.projections), default=0)

    @property
    def of_tokens(self) -> bool:
        """Whether tokens are compared one by one, which takes the same vocabulary on both sides."""
        return bool(self.senses or self.hidden or self.projections or self.words)


class Teacher(Protocol):
    """A plain object, not a module: never registered, saved or wrapped with the student. Gives no gradient."""

    def __call__(self, batch) -> Outputs: ...


class NoTeacher:
    """The teacher of a student that learns from none."""

    def __call__(self, batch) -> Outputs:
        return Outputs(None)


class LiveTeacher:
    """Runs the encoder, in eval mode and without gradient. Gives what is wanted of it; hidden states all.

    `senses`: where senses are wanted, what they are chosen from, by the last hidden state.
    """

    def __init__(self, encoder: Trunk, cfg, wanted: Wanted, senses: SenseLookup | None = None):
        self.encoder = placed(encoder.eval().requires_grad_(False), cfg.fsdp)
        self.encoder.keep_projections(wanted.projections)
        self.senses = senses.to(workers.device()) if wanted.senses else None
        self.cfg, self.wanted = cfg, wanted

    @torch.no_grad()  # not inference_mode(): losses keep what it gives for their backward
    def __call__(self, batch) -> Outputs:
        with autocast(self.cfg, workers.device()):
            outputs = self.encoder(batch)
        labels = None if self.senses is None else self.senses.labels(outputs.hidden[-1], batch.input_ids)
        return replace(outputs, senses=labels)
