"""Checkpoints as transformers alone writes them, and what it makes of them."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification

from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill.__main__ import main
from models.downloaded import open_checkpoint

PLAIN = {"tiny_bert": (BertConfig, BertForSequenceClassification), "tiny_deberta": (DebertaV2Config, DebertaV2ForSequenceClassification)}


def write_plain(model: Path, kind: str, folder: Path, glue: Path, names: list[str] | None, num_labels: int = 0) -> Path:
    """A plain transformers classifier with random weights, every class predicted somewhere; `names`: its labels in order."""
    config_class, model_class = PLAIN[kind]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}} if names else \
        {"num_labels": num_labels}
    torch.manual_seed(2)
    plain = model_class(config_class.from_pretrained(model, **labels, pooler_hidden_size=64, pooler_hidden_act="gelu"))
    with torch.no_grad():
        for tensor in plain.parameters():
            tensor.mul_(8 if tensor.dim() == 2 else 1)  # logits that differ from row to row
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
        plain.classifier.bias -= torch.from_numpy(np.median(plain_logits(plain, folder, "MRPC", glue), axis=0))
    plain.save_pretrained(folder)
    return folder


@torch.no_grad()
def plain_logits(model, folder: Path, task: str, glue: Path) -> np.ndarray:
    """Through transformers alone, a row at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {"return_tensors": "pt", "truncation": True, "max_length": 128, "return_token_type_ids": model.config.type_vocab_size > 0}
    rows = [tokenizer(*example.texts, **settings) for example in read_examples(get_task(task), "dev", glue)]
    return torch.cat([model.eval()(**row).logits for row in rows]).numpy()


def open_for(task: str, folder: Path):
    entry = get_task(task)
    return open_checkpoint(folder, entry.name, entry.version, entry.texts, entry.labels)


def refused(folder: Path, glue: Path, capsys, task: str = "MRPC") -> str:
    """The one line with which `evaluate` refuses a checkpoint."""
    capsys.readouterr()
    assert main(["evaluate", task, "--checkpoint", str(folder), "--data_dir", str(glue)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    return line
