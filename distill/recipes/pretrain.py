"""Distillation of a masked language model on plain text, before any task: DistilBERT, MiniLMv2 and their kin as weights of one loss.

    L = w_mlm CE(masked words) + w_kl T^2 KL(teacher || student over the vocabulary) + w_cos (1 - cos(h^S, h^T))
      + w_hidden MSE(h^S W, h^T) + w_attention MSE(scores^S, scores^T) + w_relation KL(relations^T || relations^S)

each divided by its own count (masked tokens, tokens, tokens x heads). Without a teacher's term it is plain masked language modelling:
the control, and with --freeze_backbone the way to a head for an encoder that has none.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch

from data_utils.corpus import Corpus
from data_utils.draws import HELD_OUT
from data_utils.tasks import TEXT, Task
from data_utils.text.batches import TextBatch, TextStream
from data_utils.text.masking import Masking
from data_utils.text.rows import LAYOUTS, SHORTEST
from distill import workers
from distill.config import ABOVE_0, BELOW_1, FROM_0, FROM_1, Allowed, TrainConfig, check_weights, one_of, setting
from distill.distillation import WeightedTerm
from distill.engine import fit, total_steps
from distill.evaluate import check_length
from distill.language_terms import PLACES, Directions, MaskedWords, SoftWords
from distill.layer_maps import layer_pairs, relation_pair
from distill.precision import cast_products
from distill.pretraining import Pretraining, Validation, freeze_unread, judged_batches, judged_on
from distill.report.curves import draw_curves
from distill.rundir import RunDir
from distill.scores import Scores
from distill.teacher import LiveTeacher, NoTeacher
from distill.terms import AttentionScores, HiddenStates, Relations
from models.masked_lm import MaskedLM
from models.pretrained import fresh_masked_lm, load_tokenizer, masked_lm, model_fingerprint
from models.text_encoder import TextEncoder, without_token_types
from models.truncate import is_layer_spec, parse_layers, truncate

COS_PLACES = ("tokens", "cls")
FEW = 100  # steps of a run that is said to be short
logger = logging.getLogger(__name__)
OF_TEACHER = ("kl_weight", "cos_weight", "hidden_weight", "attention_weight", "relation_weight")


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Settings of a pre-training run; train_batch_size counts rows of text."""

    output_dir: str = setting("./runs/pretrained", "the run directory")
    corpus: str = setting("./corpus", "the packed text (python -m distill data pack)")
    layout: Annotated[str, one_of(LAYOUTS)] = setting(
        "blocks", "rows of text: blocks (cut without regard to documents), packed (pieces of documents, several to a row, which do "
                  "not see each other), padded (a piece to a row)")
    max_length: Annotated[int, Allowed(lambda value: value >= SHORTEST, f"{SHORTEST} tokens or more")] = setting(128, "tokens of a row")
    teacher: str = setting("google-bert/bert-base-uncased", "masked language model: hub id or folder")
    student: str = setting("layers:0,2,4,7,9,11", "layers of the teacher (uniform:N, truncate:N, layers:0,2), or a hub id or folder")
    random_init: bool = setting(False, "a student of this shape with fresh weights")
    token_types: bool = setting(True, "keep the student's token types; DistilBERT has one for all tokens")
    freeze_backbone: bool = setting(False, "train the head alone, a fresh one where the student has none")
    mlm_probability: Annotated[float, BELOW_1] = setting(0.15, "share of the tokens that are masked; 0: the text as it is, for losses that "
                                                               "read no masked words")
    mlm_smoothing: Annotated[float, FROM_0] = setting(
        0.0, "mask tokens by their count to the minus this, so that rare ones are learned; 0: all alike")
    mlm_weight: Annotated[float, FROM_0] = setting(2.0, "weight of the masked words")
    kl_weight: Annotated[float, FROM_0] = setting(5.0, "weight of the teacher's soft targets over the vocabulary")
    kl_on: Annotated[str, one_of(PLACES)] = setting("tokens", "where soft targets are read: tokens (all) or masked")
    temperature: Annotated[float, ABOVE_0] = setting(2.0, "temperature of the soft targets")
    cos_weight: Annotated[float, FROM_0] = setting(1.0, "weight of the cosine loss of hidden states")
    cos_on: Annotated[str, one_of(COS_PLACES)] = setting("tokens", "where the cosine loss is taken: tokens (all) or cls")
    hidden_weight: Annotated[float, FROM_0] = setting(0.0, "weight of the squared error of hidden states")
    attention_weight: Annotated[float, FROM_0] = setting(0.0, "weight of the squared error of attention scores")
    layer_map: str = setting("top", "layers of cos, hidden and attention: top, uniform, skip, last, first, or pairs student:teacher")
    relation_weight: Annotated[float, FROM_0] = setting(0.0, "weight of MiniLMv2's relations")
    relation_heads: Annotated[int, FROM_1] = setting(48, "relation heads, a divisor of both widths")
    relation_layer: Annotated[int, FROM_0] = setting(0, "the teacher's layer whose relations are learned; 0: as MiniLMv2 chooses")

    def __post_init__(self):
        super().__post_init__()
        check_weights(self)
        if self.freeze_backbone and self.mlm_weight == 0:
            raise ValueError("--freeze_backbone trains the head alone, by the masked words: give --mlm_weight above 0")
        if not self.mlm_probability and (self.mlm_weight or self.kl_weight and self.kl_on == "masked"):
            raise ValueError("--mlm_probability 0: nothing is masked, and masked words are learned (--mlm_weight, --kl_on masked); give "
                             "--mlm_probability 0.15, or leave those terms out")
        if self.trim_vocabulary:
            raise ValueError("--trim_vocabulary: pre-training scores the whole vocabulary; omit it")

    @property
    def distils(self) -> bool:
        """Whether the loss reads a teacher."""
        return any(getattr(self, name) for name in OF_TEACHER)

    @property
    def reads_teacher(self) -> bool:
        """Whether the run does, for its loss or for the student's first weights."""
        return self.distils or is_layer_spec(self.student)

    @property
    def reads_head(self) -> bool:
        """Whether it reads the teacher's head: its scores of words, or as the student's first head."""
        inherited = self.mlm_weight and is_layer_spec(self.student) and not (self.random_init or self.freeze_backbone)
        return bool(self.kl_weight or inherited)

    @property
    def scores_words(self) -> bool:
        """Whether the loss reads scores of words: else no head for them is needed, on either side."""
        return bool(self.mlm_weight or self.kl_weight)


_ALONE = {"kl_weight": 0.0, "cos_weight": 0.0}
_BATCH = {"max_length": 128, "weight_decay": 0.01}

# distilbert: arXiv 1910.01108 and its code; 4,000 rows a step. minilmv2: arXiv 2012.15828; relations only. tinybert_general: arXiv
# 1909.10351; fresh weights. kdslm: the stated intent of that project, whose own teacher scored no words. tinydistil: the student
# project TinyDistilBERT (Cornell, CS4782). mlm, head: no teacher; held to what distilbert does. Differs: AdamW's betas and eps are
# torch's own everywhere (distilbert: 0.9, 0.98, 1e-6).
_DISTILBERT = {"learning_rate": 5e-4, "weight_decay": 0.0, "warmup_ratio": 0.05, "max_grad_norm": 5.0, "train_batch_size": 4000,
               "num_train_epochs": 3, "max_length": 512, "token_types": False, "mlm_smoothing": 0.7}
PRESET_DEFAULTS = {
    "distilbert": _DISTILBERT,
    "minilmv2": {**_ALONE, "mlm_weight": 0.0, "relation_weight": 1.0, "mlm_probability": 0.0, "learning_rate": 6e-4, "weight_decay": 0.01,
                 "max_length": 512, "train_batch_size": 256, "max_steps": 400_000, "warmup_ratio": 0.01, "student": "uniform:6"},
    "tinybert_general": {**_ALONE, **_BATCH, "mlm_weight": 0.0, "hidden_weight": 1.0, "attention_weight": 1.0, "layer_map": "uniform",
                         "learning_rate": 5e-5, "train_batch_size": 256, "num_train_epochs": 3, "random_init": True,
                         "student": "uniform:half"},
    "kdslm": {**_ALONE, "mlm_weight": 0.5, "kl_weight": 0.5, "hidden_weight": 0.5, "temperature": 4.0, "learning_rate": 1e-4,
              "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "weight_decay": 0.0, "max_length": 128, "train_batch_size": 1024,
              "num_train_epochs": 50, "student": "uniform:6", "random_init": True},
    "tinydistil": {**_BATCH, "mlm_weight": 1.0, "kl_weight": 1.0, "cos_weight": 1.0, "cos_on": "cls", "learning_rate": 5e-4,
                   "train_batch_size": 4096, "num_train_epochs": 3, "max_grad_norm": 0.0, "random_init": True, "student": "uniform:6"},
    "mlm": {**_DISTILBERT, **_ALONE, "mlm_weight": 1.0},
    "head": {**_ALONE, "mlm_weight": 1.0, "freeze_backbone": True, "student": "minilm", "learning_rate": 5e-4, "train_batch_size": 256,
             "num_train_epochs": 1, "max_length": 128},
}
PER_TASK = {name: {} for name in PRESET_DEFAULTS}  # text is one task


def default_preset(words: dict[str, str]) -> str:
    """`distilbert`; the others are for whoever asks for them."""
    return "distilbert"


def facts(cfg: Config, task: Task) -> dict:
    """What a run reads: checksums of the corpus, of what it is judged by, and of the weights of its models where they are not fresh."""
    models = {"teacher": cfg.reads_teacher, "student": not (is_layer_spec(cfg.student) or cfg.random_init)}
    corpus = Corpus.open(cfg.corpus)
    return {"corpus": corpus.fingerprint, "data": {HELD_OUT: judged_on(corpus, cfg.layout, cfg.max_length)}, **{name: model_fingerprint(getattr(cfg, name)) for name, read in models.items() if read}}


def build_student(cfg: Config, teacher: MaskedLM | None) -> TextEncoder:
    """The student that cfg.student names: layers of the teacher, or a model of its own; without a head, which would stay untrained, where
    no words are scored."""
    if is_layer_spec(cfg.student):
        student = truncate(teacher, parse_layers(cfg.student, teacher.depth))
        if cfg.random_init:
            student = fresh_masked_lm(student.config, student.tokenizer)
    else:
        student = masked_lm(cfg.student, fresh_head=cfg.freeze_backbone or not cfg.scores_words, random_init=cfg.random_init)
    student = student if cfg.token_types else without_token_types(student)
    student.requires_grad_(True)
    student.backbone.requires_grad_(not cfg.freeze_backbone)
    return student if cfg.scores_words else student.without_head()


def terms(cfg: Config, student: TextEncoder, teacher: MaskedLM | None) -> list[WeightedTerm]:
    """What is minimised, with its weights; terms of weight 0 left out."""
    found: list[WeightedTerm] = [(MaskedWords(), cfg.mlm_weight)] if cfg.mlm_weight else []
    if cfg.kl_weight:
        found.append((SoftWords(cfg.kl_on, cfg.temperature), cfg.kl_weight))
    if cfg.cos_weight or cfg.hidden_weight or cfg.attention_weight:
        pairs = layer_pairs(cfg.layer_map, student.depth, teacher.depth)
        kinds = ((partial(Directions, at_cls=cfg.cos_on == "cls"), cfg.cos_weight), (HiddenStates, cfg.hidden_weight),
                 (AttentionScores, cfg.attention_weight))
        found += [(kind(pairs, student, teacher), weight) for kind, weight in kinds if weight]
    if cfg.relation_weight:
        pair = relation_pair(student.depth, teacher.depth, cfg.relation_layer)
        found.append((Relations(pair, cfg.relation_heads, student, teacher), cfg.relation_weight))
    return found


def run(cfg: Config, task: Task, run_dir: RunDir) -> Scores:
    """Pre-train cfg.student on cfg.corpus; best/ (a masked language model, or without a term of words an encoder, which every recipe
    takes as its model), last/ and curves.png in run_dir. Returns the scores on the held-out documents."""
    if task is not TEXT:
        raise ValueError(f"pretrain reads text, not {task.name}: `python -m distill train pretrain text --corpus FOLDER`; "
                         f"fine-tune what it makes with `sh scripts/finetune.sh {task.name}`")
    corpus = Corpus.open(cfg.corpus)
    torch.manual_seed(cfg.seed)
    teacher = masked_lm(cfg.teacher, fresh_head=not cfg.reads_head) if cfg.reads_teacher else None
    student = build_student(cfg, teacher)
    check_fit(cfg, corpus, [model for model in (student, teacher) if model])
    objective = Pretraining(NoTeacher(), terms(cfg, student, teacher), student, teacher)
    run_dir.begin(cfg, facts(cfg, task))
    if cfg.distils:
        wanted = objective.wanted
        read = teacher if wanted.words else truncate(teacher, tuple(range(wanted.layers)))
        objective.teacher = LiveTeacher(cast_products(read, cfg, workers.device()), cfg, wanted)
    tokenizer = student.tokenizer
    masking = partial(Masking, tokenizer.all_special_ids, tokenizer.mask_token_id, len(tokenizer))
    learned = masking(corpus.counts if cfg.mlm_smoothing else None, cfg.mlm_probability, cfg.mlm_smoothing)
    stream = TextStream(corpus, corpus.split()[0], cfg.layout, cfg.max_length, cfg.train_batch_size, cfg.seed, learned)
    judged = masking() if cfg.mlm_probability or cfg.scores_words else masking(probability=0)  # BERT's 15 %, all alike, the same in every run: runs compare
    batches = judged_batches(corpus, cfg.layout, cfg.max_length, judged)
    check_judged(cfg, batches)
    freeze_unread(objective, student, batches[0].select([0]), cfg)
    warn_of_steps(cfg, total_steps(cfg, stream))
    run_dir.on_scores(draw_curves)
    return fit(student, objective, stream, cfg, run_dir, Validation(objective, batches, cfg))


def warn_of_steps(cfg: Config, steps: int) -> None:
    """Say where a run is so short that its preset does not fit it."""
    if steps < FEW:
        logger.warning("%d steps of %d rows are few: a preset's rows a step are for billions of words; lower --train_batch_size, or give more "
                       "--num_train_epochs", steps, cfg.train_batch_size)
    if cfg.warmup_steps >= steps:
        logger.warning("--warmup_steps %d of %d steps: the learning rate never falls", cfg.warmup_steps, steps)


def check_judged(cfg: Config, batches: Sequence[TextBatch]) -> None:
    """ValueError where words are learned and none that is held out is masked: the tokenizer knows none of them."""
    if cfg.scores_words and not any(batch.masked for batch in batches):
        raise ValueError(f"the corpus {cfg.corpus}: no held-out token can be masked, its tokenizer knows none of these words; pack the text with "
                         "that of its language (`python -m distill data pack SOURCE --tokenizer MODEL`)")


def check_fit(cfg: Config, corpus: Corpus, models: list[TextEncoder]) -> None:
    """ValueError where the corpus was packed for another vocabulary than a model's, or a model cannot read such rows."""
    vocabulary = load_tokenizer(str(corpus.tokenizer)).get_vocab()
    wanted = cfg.teacher if cfg.reads_teacher else cfg.student
    for model in models:
        if model.tokenizer.get_vocab() != vocabulary:
            raise ValueError(f"the corpus {cfg.corpus} was packed with another vocabulary than {model.description} reads: pack it with "
                             f"`python -m distill data pack SOURCE --tokenizer {wanted}`; teacher and student must share theirs")
        check_length(model, cfg.max_length)
        if cfg.layout == "packed" and not model.can_pack:
            raise ValueError(f"--layout packed: {model.description} has a convolution (conv_kernel_size {model.config.conv_kernel_size}), which "
                             "would mix the pieces that share a row: give --layout padded or blocks")
