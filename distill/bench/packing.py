"""Steps of masked language modelling on short texts: packed rows against padded ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from data_utils.corpus import Corpus
from data_utils.tasks import get_task
from data_utils.text.batches import TextBatch, TextStream, unmasked
from data_utils.text.masking import IGNORED, Masking
from data_utils.text.rows import lay_out
from distill import workers
from distill.bench.corpus import sentences
from distill.bench.engine_rounds import engine_round
from distill.bench.timing import Comparison, training_flops
from distill.language_terms import MaskedWords
from distill.precision import uses_bf16
from distill.pretraining import Pretraining
from distill.teacher import NoTeacher
from models.pretrained import masked_lm

LENGTH = 128
ROWS = 16  # packed ones of a step; as many tokens in padded ones
CHECKED = 64  # documents
TOLERANCE = 1e-4
SEED = 0


def comparisons(cfg) -> Iterator[Comparison]:
    """The sentences of cfg.task as documents; rows of LENGTH tokens against rows of one sentence, padded to the longest of similar ones,
    and to LENGTH."""
    torch.manual_seed(SEED)
    student = masked_lm(cfg.model, fresh_head=True).to(workers.device())
    corpus = corpus_of(cfg, student)
    tokenizer = student.tokenizer
    masking = Masking(tokenizer.all_special_ids, tokenizer.mask_token_id, len(tokenizer))
    objective = Pretraining(NoTeacher(), [(MaskedWords(), 1.0)], student, None)
    documents = np.arange(corpus.documents)
    packed = TextStream(corpus, documents, "packed", LENGTH, ROWS, SEED, masking)
    alone = float(lay_out(corpus, documents, "padded", LENGTH).sizes.mean())  # tokens of a row of one sentence
    padded_rows = round(ROWS * packed.rows.sizes.mean() / alone)

    def side(stream: TextStream):
        def once() -> tuple[float, float]:
            tokens, seconds = engine_round(student, objective, stream, cfg.steps, bf16=cfg.bf16, fp16=cfg.fp16)
            return sum(tokens), sum(seconds)
        return once

    def check() -> str:
        return f"{check_states(student, corpus)}; rows filled to {packed.rows.sizes.mean() / LENGTH:.1%}"

    for name, stream in (("rows of one sentence, padded to the longest of similar ones", TextStream),
                         (f"rows of one sentence, padded to {LENGTH}", ToLength)):
        yield Comparison(f"masked language modelling on {cfg.task}, packed rows", name, "tokens", side(packed),
                         side(stream(corpus, documents, "padded", LENGTH, padded_rows, SEED, masking)), check,
                         training_flops(student.config, alone), uses_bf16(cfg, workers.device()))


def corpus_of(cfg, student) -> Corpus:
    """The training sentences of cfg.task, a document each."""
    tokenizer, data = student.tokenizer, sentences(cfg, student, get_task(cfg.task))
    special = {"pad": tokenizer.pad_token_id, "cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id}
    real = ~np.isin(data.ids, tokenizer.all_special_ids)
    offsets = np.concatenate([[0], np.cumsum(real)])[data.offsets]
    ids = data.ids[real]
    return Corpus(Path(), ids, offsets, np.bincount(ids, minlength=len(tokenizer)), special, "")


@dataclass(frozen=True)
class Wide(TextBatch):
    """A batch whose parts, and theirs, are always padded to LENGTH, which they count as."""

    @property
    def sizes(self) -> np.ndarray:
        return np.full(len(self), LENGTH)

    def select(self, rows) -> "Wide":
        part = super().select(rows)
        more = LENGTH - part.input_ids.shape[1]
        return Wide(part.task, part.uid, *(F.pad(tensor, (0, more), value=filler) for tensor, filler in (
            (part.input_ids, 0), (part.attention_mask, 0), (part.token_type_ids, 0), (part.target, IGNORED))))


class ToLength(TextStream):
    """A TextStream of such batches."""

    def read(self, position: int) -> TextBatch:
        return Wide(**vars(super().read(position)))


@torch.no_grad()
def check_states(student, corpus: Corpus) -> str:
    """The hidden states of the first documents, packed and alone, float32."""
    documents, states = np.arange(min(CHECKED, corpus.documents)), {}
    for layout in ("padded", "packed"):
        rows = lay_out(corpus, documents, layout, LENGTH)
        tokens = rows.read(np.arange(len(rows.sizes)))
        batch = unmasked(tokens).to(workers.device())
        hidden = student.eval().encode(batch)[-1]
        order = np.arange(len(documents)) if tokens.pieces is None else rows.members
        states[layout] = dict(zip(order.tolist(), hidden[batch.attention_mask.bool()].split(rows.pieces.sizes[order].tolist()), strict=True))
    error = max(float((states["packed"][piece] - alone).abs().max()) for piece, alone in states["padded"].items())
    if error > TOLERANCE:
        raise ValueError(f"packed and padded rows differ by {error:.1e} in their hidden states: expected at most {TOLERANCE:.0e}")
    return f"hidden states equal to {error:.0e}"
