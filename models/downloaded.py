"""Any checkpoint that a user may name, as an Encoder: our folders, plain transformers folders, published files."""

import logging
from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import build_encoder, is_plain, load_encoder, plain_labels
from models.encoder import Encoder, TaskInfo
from models.heads import TOKENS
from models.import_checkpoint import (
    PUBLISHED_LABELS,
    PUBLISHED_TEXT_ORDER,
    check_num_labels,
    load_published_tokenizer,
    read_published,
)

PUBLISHED_SUFFIXES = (".bin", ".ckpt", ".pt")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An encoder; whether its pooling is known or only its format's convention; whether what its head was trained on, states or
    senses, is: published files do not say it."""

    encoder: Encoder
    pooling_known: bool
    head_input_known: bool = True


def open_checkpoint(path: str | Path, task: str, version: int, texts: tuple[str, ...], labels: tuple[str, ...],
                    tokenizer: str | None = None, choices: int = 0, spans: bool = False) -> Opened:
    """The encoder in `path`, for a task with these text columns and labels, or of so many choices, or with answers in a text.

    A run directory stands for its best/. Label and text order of files that do not say them: a plain transformers
    folder's labels are those of its config, a published file's those of its program. `tokenizer` (an spm.model or its
    folder) is for published files that lie without one. ValueError naming what is missing.
    """
    path = Path(path)
    if path.is_file() and path.suffix in PUBLISHED_SUFFIXES:
        return Opened(_open_published(path, task, version, tokenizer), pooling_known=False, head_input_known=False)
    if not path.is_dir():
        raise ValueError(f"no checkpoint {path}: give a run directory, a checkpoint folder, or a downloaded "
                         "pytorch.model-*.bin or *.ckpt file")
    folder = path / "best" if (path / "best").is_dir() else path
    if not is_plain(folder):
        return Opened(load_encoder(folder), pooling_known=True)
    named = plain_labels(folder)
    named = labels if choices and not named else _by_name(named, labels, folder, spans)  # multiple choice has one logit a choice, without a name
    info = TaskInfo(task, version, texts, named, pooling=TOKENS if spans else "cls", choices=choices)
    return Opened(load_encoder(folder, info), pooling_known=spans)


def _by_name(named: tuple[str, ...], labels: tuple[str, ...], folder: Path, spans: bool) -> tuple[str, ...]:
    """A plain checkpoint's labels, spelled as the task spells them; LABEL_0 ... are taken in the task's order, which is said where it
    is a guess: start and end of answers in a text always stand in one order."""
    if len(named) != len(labels):
        raise ValueError(f"{folder} has {len(named) or 1} outputs, the task needs {len(labels) or 1}: it was trained for "
                         "another task")
    if all(name == f"LABEL_{index}" for index, name in enumerate(named)):
        if labels and not spans:
            logger.warning("%s calls its labels %s: taken for %s, the task's order. Where its scores are far too low, look up the order "
                           "that it was trained with, and write it as id2label into its config.json", folder, ", ".join(named), ", ".join(labels))
        return labels
    spelling = {label.lower(): label for label in labels}
    unknown = [name for name in named if name.lower() not in spelling]
    if unknown:
        raise ValueError(f"{folder} calls its labels {', '.join(named)}, the task {', '.join(labels)}: set id2label in "
                         "its config.json to the task's names")
    return tuple(spelling[name.lower()] for name in named)


def _open_published(path: Path, task: str, version: int, tokenizer: str | None) -> Encoder:
    if task not in PUBLISHED_LABELS:
        raise ValueError(f"there is no published checkpoint for {task}: {', '.join(PUBLISHED_LABELS)}")
    found = read_published(path)
    labels = PUBLISHED_LABELS[task]
    check_num_labels(found, len(labels) or 1, task)
    spm_model = Path(tokenizer) if tokenizer else found.tokenizer
    if spm_model is None:
        raise ValueError(f"no spm.model beside {path}: give --tokenizer, the spm.model (or its folder) of the teacher")
    spm_model = spm_model / "spm.model" if spm_model.is_dir() else spm_model
    parts = {"deberta.": found.backbone, "pooler.dense.": found.pooler_dense, "classifier.": found.classifier,
             "adaptor.": found.adaptor or {}}
    state = {prefix + name: tensor for prefix, tensors in parts.items() for name, tensor in tensors.items()}
    info = TaskInfo(task, version, PUBLISHED_TEXT_ORDER[task], labels, pooling="first_token")
    head = {"width": len(found.pooler_dense["weight"]), "activation": "gelu", "dropout": 0.0}
    return build_encoder(found.config, state, info, head, load_published_tokenizer(spm_model), str(path))
