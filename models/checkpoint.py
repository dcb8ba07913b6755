"""Checkpoint folders: transformers' own format, with what transformers does not know in task.json beside it.

    config.json  model.safetensors  tokenizer files     as transformers writes them
    task.json                                           TaskInfo and the head's shape
    senses.safetensors                                  where the head reads senses
    checksums.json                                      sha256 of every file

With `cls` pooling, continuous head input and no adaptor the folder is an ordinary checkpoint: transformers'
AutoModelForSequenceClassification gives the same logits (BERT, DeBERTa-v2/v3), for answers in a text
AutoModelForQuestionAnswering. Else the head's tensors have names of our own, so that transformers says that it lacks a head;
ours of before, whose heads always had transformers' names, are read too. Encoder.save() writes it.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from models.attention import use_fast_attention
from models.encoder import Encoder, TaskInfo
from models.heads import SenseLookup, check_pooling, check_similarity
from models.pretrained import classifier_tensors, load_config, load_tokenizer
from models.weights import LAYOUTS, PLAIN_LAYOUT, check_checksums, read_tensors

CONVERT = "`python -m distill convert TASK {} FOLDER` makes a folder of it that is taken for a teacher"


def is_plain(folder: str | Path) -> bool:
    """Whether a checkpoint folder comes from transformers alone: it does not say what its head pools."""
    return not (Path(folder) / "task.json").is_file()


def plain_labels(folder: str | Path) -> tuple[str, ...]:
    """The class names of a plain checkpoint in the order of its logits; () for regression."""
    config = checkpoint_config(folder)
    return () if config.num_labels == 1 else tuple(config.id2label[index] for index in range(config.num_labels))


def checkpoint_config(folder: str | Path):
    """The transformers config in a checkpoint folder. ValueError saying what to do where it is none."""
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file, expected a checkpoint folder: {CONVERT.format(folder)}")
    if (Path(folder) / "best").is_dir():
        raise ValueError(f"{folder} is a run directory: give the checkpoint in it, {folder}/best")
    if not (Path(folder) / "config.json").is_file():
        runs = sorted(best.parent for best in Path(folder).glob("*/best"))
        if runs:
            raise ValueError(f"{folder} holds several runs: give one of them, such as {runs[0]}")
        if published := sorted(Path(folder).glob("*.bin")):
            raise ValueError(f"{folder} holds a downloaded file: {CONVERT.format(published[0])}")
        raise ValueError(f"no checkpoint in {folder}: expected config.json, model.safetensors and task.json; "
                         "train a teacher with `sh r1_teacher_model.sh TASK`")
    return load_config(str(folder))


def load_encoder(folder: str | Path, info: TaskInfo | None = None) -> Encoder:
    """The encoder in a checkpoint folder, float32, with its own senses where its head reads them.

    `info` describes a plain checkpoint (is_plain) and is not needed otherwise. ValueError naming what is missing or
    does not fit.
    """
    folder = Path(folder)
    config = checkpoint_config(folder)
    check_checksums(folder)
    head = {"width": config.hidden_size, "dropout": 0.0,
            "activation": LAYOUTS.get(config.model_type, PLAIN_LAYOUT).activation}
    if not is_plain(folder):
        info, head = _read_task(folder / "task.json")
    elif info is None:
        raise ValueError(f"{folder} has no task.json, which says what it answers: {CONVERT.format(folder)}")
    senses = None
    if info.head_input == "senses":
        table = read_tensors(folder / "senses.safetensors")
        senses = SenseLookup(table["centroids"], table["offsets"], info.similarity)
    state = classifier_tensors(str(folder), info) if is_plain(folder) else read_tensors(folder / "model.safetensors")
    return build_encoder(config, state, info, head, load_tokenizer(str(folder)), str(folder), senses)


def build_encoder(config, state: dict[str, Tensor], info: TaskInfo, head: dict, tokenizer, source: str,
                  senses: SenseLookup | None = None) -> Encoder:
    """An encoder from a config and tensors named as transformers names them; `head` has width, activation and
    dropout; `source` is for messages."""
    backbone = use_fast_attention(AutoModel.from_config(config, dtype=torch.float32))
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None
    adaptor = nn.Linear(config.hidden_size, head["width"]) if "adaptor.weight" in state else None
    encoder = Encoder(backbone, info.new_head(**head), info, tokenizer, adaptor, senses)
    encoder.load_named(state, source)
    return encoder


def _read_task(file: Path) -> tuple[TaskInfo, dict]:
    try:
        content = json.loads(file.read_text())
        head = {name: content["head"][name] for name in ("width", "activation", "dropout")}
        del content["head"]
        content["texts"], content["labels"] = tuple(content["texts"]), tuple(content["labels"])
        info = TaskInfo(**content)
        if info.head_input not in ("continuous", "senses"):
            raise ValueError(f"head_input {info.head_input!r}, expected continuous or senses")
        check_pooling(info.pooling), check_similarity(info.similarity)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a task description of ours ({error}): it may be truncated") from error
    return info, head
