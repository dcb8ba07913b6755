"""Distilling 12 layers into 6: the teacher's cached choices against the teacher's forward pass at every step."""

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from data_utils.batching import TrainStream
from data_utils.tasks import get_task
from distill import workers
from distill.bench.corpus import encoder_for, sentences
from distill.bench.engine_rounds import engine_round, logged
from distill.bench.timing import Comparison
from distill.distillation import Distillation
from distill.recipes.sense_kd import Config, terms
from distill.senses.dictionary import SenseDictionary
from distill.teacher import LiveTeacher, Wanted
from distill.teacher_cache import cached_teacher
from models.encoder import Encoder
from models.truncate import truncate

BATCH = 32
TEACHER_LAYERS, STUDENT_LAYERS = 12, 6
SENSES = 4
COMPARED_STEPS = 4
TOLERANCE = 1e-5


def comparisons(cfg) -> Iterator[Comparison]:
    """Random weights of the model's shape, 12 layers; random senses: neither changes the work. Without the one pass
    that fills the cache."""
    with tempfile.TemporaryDirectory() as folder:
        distilling = Distilling(cfg, Path(folder))
        yield Comparison(f"distilling {TEACHER_LAYERS} layers into {STUDENT_LAYERS}, an epoch from the cache",
                         "the teacher's forward pass at every step", "tokens",
                         lambda: distilling.round(distilling.cached), lambda: distilling.round(distilling.live),
                         distilling.check)


class Distilling:
    """A student, and its teacher in both forms."""

    def __init__(self, cfg, folder: Path):
        self.cfg, self.task = cfg, get_task(cfg.task)
        self.teacher = deepened(encoder_for(cfg, self.task), TEACHER_LAYERS).to(workers.device())
        self.student = truncate(self.teacher, tuple(range(STUDENT_LAYERS)))
        self.data = sentences(cfg, self.teacher, self.task, BATCH * 64 * cfg.steps)
        lookup = random_senses(self.teacher).lookup(workers.device())
        self.settings = Config(bf16=cfg.bf16, fp16=cfg.fp16)
        self.live, self.cached, self.exact_live, self.exact_cached = (
            Distillation(teacher, terms(settings, self.task, self.student, self.teacher, lookup)) for settings in
            (self.settings, replace(self.settings, bf16=False, fp16=False))
            for live in [LiveTeacher(self.teacher, settings, Wanted(senses=True), lookup)]
            for teacher in (live, cached_teacher(live, self.data, folder / str(settings.bf16))))

    def stream(self) -> TrainStream:
        return TrainStream(self.data, self.task.name, self.teacher.tokenizer.pad_token_id, BATCH, seed=0)

    def round(self, objective: Distillation) -> tuple[float, float]:
        tokens, seconds = engine_round(copy.deepcopy(self.student), objective, self.stream(), self.cfg.steps, [self.data],
                                       bf16=self.settings.bf16, fp16=self.settings.fp16)
        return sum(tokens), sum(seconds)

    def check(self) -> str:
        """The terms of a few steps in float32; the teacher's logits come from other batches and are rounded otherwise."""
        cached, live = ([line["terms"] for line in logged(copy.deepcopy(self.student), objective, self.stream(),
                                                          COMPARED_STEPS, [self.data], bf16=False)]
                        for objective in (self.exact_cached, self.exact_live))
        difference = max(abs(one[name] - other[name]) for one, other in zip(cached, live, strict=True) for name in one)
        if difference > TOLERANCE:
            raise ValueError(f"with the cached teacher the terms differ by {difference:.1e}: expected at most {TOLERANCE:.0e}")
        return f"float32 terms of {COMPARED_STEPS} steps equal to {difference:.0e}"


def deepened(encoder: Encoder, layers: int) -> Encoder:
    """A random BERT of `layers` layers, otherwise of the encoder's shape, under its head."""
    config = BertConfig(**{**encoder.config.to_dict(), "num_hidden_layers": layers})
    return Encoder(BertModel(config, add_pooling_layer=False), encoder.head, encoder.info, encoder.tokenizer)


def random_senses(teacher: Encoder) -> SenseDictionary:
    """SENSES random senses for every type of the teacher's vocabulary."""
    count, draw = teacher.config.vocab_size, torch.Generator().manual_seed(0)
    offsets = SENSES * torch.arange(count + 1)
    return SenseDictionary(torch.randn(SENSES * count, teacher.width, generator=draw).half(), offsets,
                           torch.ones(count, dtype=torch.int32))
