"""A masked language model, an encoder without a head and a corpus, all tiny, and commands that pre-train on them."""

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from models.pretrained import masked_lm
from tests.corpora import packed
from tests.tiny import WORDS, write_bert

SMALL = {"max_length": 24, "train_batch_size": 8, "max_steps": 12, "eval_steps": 6, "logging_steps": 3, "mlm_smoothing": 0.7, "relation_heads": 8,
         "student": "uniform:2", "learning_rate": 1e-3}


def write_places(root: Path, dropout: float = 0.1, seed: int = 0) -> Path:
    """A teacher with a head, an encoder without one (`bare`), and a corpus of 60 documents, in `root`."""
    draw = random.Random(seed)
    write_bert(root / "bare")
    write_bert(root / "teacher", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    torch.manual_seed(1 + seed)
    model = BertForMaskedLM(BertConfig.from_pretrained(root / "teacher"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15)
    model.save_pretrained(root / "teacher")
    (root / "text.txt").write_text("\n\n".join(" ".join(draw.choices(WORDS, k=draw.randint(3, 60))) for _ in range(60)))
    packed([root / "text.txt"], masked_lm(str(root / "teacher")).tokenizer, root / "corpus")
    return root


def words(places: Path, out: Path, *more) -> list[str]:
    """The command that pre-trains in `places`."""
    settings = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    return [str(word) for word in ("train", "pretrain", "text", "--corpus", places / "corpus", "--teacher", places / "teacher",
                                   "--output_dir", out, *settings, *more)]
