"""Checkpoints of the published sense distillation, as they are downloaded: teacher, student, tokenizer.

    <folder>/pytorch.model-000460.bin    teacher: deberta.* pooler.dense.* classifier.*, fp16, an unused position table
    <folder>/MRPC.ckpt                   student: the same and adaptor.*, every key behind `module.`
    <folder>/spm.model                   SentencePiece model (teachers)
    <folder>/model_config.json           configuration; MRPC.model_config.json beside MRPC.ckpt; often absent for students

    backbone(ids) -> adaptor (students) -> nearest sense (if asked for) -> position 1 -> pooler.dense -> GELU -> classifier

Position 1, not [CLS]: nothing in a file tells it from an ordinary DeBERTa classifier, which pools position 0. Sense
dictionaries (.kmeanspkl) are read by models.unpickle. Nothing in any of these files is executed.
"""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

from models.unpickle import existing_file, read_state_dict

# What the published programs' class indices and segments mean, by task; names and columns as in data_utils.tasks.
PUBLISHED_LABELS: dict[str, tuple[str, ...]] = {
    "CoLA": ("unacceptable", "acceptable"),
    "SST-2": ("negative", "positive"),
    "MRPC": ("not_equivalent", "equivalent"),
    "STS-B": (),
    "QQP": ("not_duplicate", "duplicate"),
    "MNLI": ("contradiction", "neutral", "entailment"),
    "QNLI": ("not_entailment", "entailment"),
    "RTE": ("not_entailment", "entailment"),
}
PUBLISHED_TEXT_ORDER: dict[str, tuple[str, ...]] = {
    "CoLA": ("sentence",),
    "SST-2": ("sentence",),
    "MRPC": ("#1 String", "#2 String"),
    "STS-B": ("sentence1", "sentence2"),
    "QQP": ("question1", "question2"),
    "MNLI": ("sentence1", "sentence2"),
    "QNLI": ("sentence", "question"),
    "RTE": ("sentence1", "sentence2"),
}

HEAD_WIDTH = 64  # of one attention head, in every published model
_BACKBONE = "deberta."
_POSITION_TABLE = "deberta.embeddings.position_embeddings.weight"

# What shapes cannot tell, as in every published model.
_DEFAULTS = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-7,
    "pad_token_id": 0,
    "max_relative_positions": -1,
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
}
_FROM_SHAPES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "relative_attention", "norm_rel_ebd")
# Further settings that transformers' DeBERTa reads by the same name.
_FURTHER = ("num_attention_heads", "position_buckets", "attention_head_size", "conv_act", "conv_groups", "conv_kernel_size")


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A downloaded teacher or student; all tensors fp32, on the CPU."""

    path: Path
    kind: Literal["teacher", "student"]  # a student has an adaptor
    config: DebertaV2Config
    backbone: dict[str, torch.Tensor]  # state dict of DebertaV2Model(config), complete
    adaptor: dict[str, torch.Tensor] | None  # weight [teacher width, student width], bias
    pooler_dense: dict[str, torch.Tensor]  # weight, bias
    classifier: dict[str, torch.Tensor]  # weight [num_labels, pooler width], bias
    num_labels: int
    tokenizer: Path | None  # spm.model beside the checkpoint


def read_published(path: str | Path) -> PublishedCheckpoint:
    """Read a teacher or student as the published programs save it; the configuration comes from the tensors' shapes.

    A model_config.json beside it is used for what shapes cannot tell, and has to agree with them.
    Errors: ValueError for a file that cannot be read safely; for missing and unknown tensors and contradictions, listed."""
    path = Path(path)
    state = {re.sub(r"^bert\.", _BACKBONE, key): tensor for key, tensor in read_state_dict(path).items()}
    config, backbone_shapes = _config(path, state)
    if not config.position_biased_input:
        state.pop(_POSITION_TABLE, None)
    _check_shapes(path, state, backbone_shapes | _head_shapes(config, state))

    parts = {name: {leaf: state[f"{name}.{leaf}"] for leaf in ("weight", "bias") if f"{name}.{leaf}" in state}
             for name in ("adaptor", "pooler.dense", "classifier")}
    spm_model = path.parent / "spm.model"
    return PublishedCheckpoint(
        path=path,
        kind="student" if parts["adaptor"] else "teacher",
        config=config,
        backbone={key.removeprefix(_BACKBONE): tensor for key, tensor in state.items() if key.startswith(_BACKBONE)},
        adaptor=parts["adaptor"] or None,
        pooler_dense=parts["pooler.dense"],
        classifier=parts["classifier"],
        num_labels=len(state["classifier.weight"]),
        tokenizer=spm_model if spm_model.is_file() else None,
    )


def check_num_labels(checkpoint: PublishedCheckpoint, expected: int, task: str) -> None:
    """Errors: ValueError where the classifier's outputs are not those of the task (classes; 1 for a score)."""
    if checkpoint.num_labels != expected:
        raise ValueError(f"{checkpoint.path}: the classifier has {checkpoint.num_labels} outputs, {task} needs {expected}; "
                         f"give a checkpoint of {task} or name the checkpoint's own task")


# ---- configuration


def _config(path: Path, state: dict[str, torch.Tensor]) -> tuple[DebertaV2Config, dict[str, tuple[int, ...]]]:
    """The configuration, and the shapes that a backbone of this configuration has."""
    needed = ("deberta.embeddings.word_embeddings.weight", "deberta.encoder.layer.0.intermediate.dense.weight",
              "pooler.dense.weight", "classifier.weight")
    absent = [key for key in needed if key not in state or state[key].dim() != 2]
    if absent:
        raise ValueError(f"{path}: no matrix {', '.join(absent)}; expected a published DeBERTa teacher or student (deberta.*, "
                         f"pooler.dense.*, classifier.*); it has {', '.join(sorted(state)[:3])}, ...; give another file")
    vocab_size, hidden_size = state[needed[0]].shape
    positions = state.get("deberta.encoder.rel_embeddings.weight")
    from_shapes = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": len(state[needed[1]]),
        "num_hidden_layers": len({key.split(".")[3] for key in state if key.startswith("deberta.encoder.layer.")}),
        "relative_attention": positions is not None,
        "norm_rel_ebd": "layer_norm" if "deberta.encoder.LayerNorm.weight" in state else "none",
    }
    beside, companion = _companion(path)
    wrong = [f"{name} {companion[name]!r} (the tensors say {value!r})" for name, value in from_shapes.items()
             if companion.get(name, value) != value]
    if wrong:
        raise ValueError(f"{beside}: contradicts {path.name}: {'; '.join(wrong)}; they belong to different models: "
                         "put the right configuration there, or move this one away")
    settings = _DEFAULTS | {"position_buckets": 0 if positions is None else len(positions) // 2} | companion | from_shapes
    if "num_attention_heads" not in settings and hidden_size % HEAD_WIDTH:
        raise ValueError(f"{path}: width {hidden_size} is not a multiple of the head width {HEAD_WIDTH}; put its model_config.json beside it")
    settings.setdefault("num_attention_heads", hidden_size // HEAD_WIDTH)
    if settings["pooler_hidden_act"] != "gelu":
        raise ValueError(f"{beside}: the pooling's hidden_act is {settings['pooler_hidden_act']!r}; expected 'gelu', "
                         "which the published programs' head applies")
    try:
        config = DebertaV2Config(**settings, pooler_hidden_size=len(state["pooler.dense.weight"]),
                                 num_labels=len(state["classifier.weight"]))
        return config, _backbone_shapes(config)
    except Exception as error:  # transformers checks types with an exception of its own
        reason = " ".join(str(error).split())
        raise ValueError(f"{beside or path}: no DeBERTa has these settings ({reason}); download it again") from error


def _companion(path: Path) -> tuple[Path | None, dict]:
    """The configuration beside a checkpoint and its settings under transformers' names; (None, {}) where there is none."""
    names = (f"{path.stem}.model_config.json", "model_config.json")
    beside = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    if beside is None:
        return None, {}
    try:
        given = json.loads(beside.read_text(encoding="utf-8"))
        pooling = given.pop("pooling", {})
        settings = {f"pooler_{name}": value for name, value in pooling.items()} | given
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{beside}: not a configuration ({error}); expected JSON settings; download it again") from error
    model_type = settings.pop("model_type", "deberta-v2")
    if model_type != "deberta-v2":
        raise ValueError(f"{beside}: model_type {model_type!r}, expected 'deberta-v2'; only DeBERTa checkpoints are published")
    if "padding_idx" in settings:
        settings["pad_token_id"] = settings.pop("padding_idx")
    unknown = sorted(set(settings) - {*_DEFAULTS, *_FROM_SHAPES, *_FURTHER})
    if unknown:
        raise ValueError(f"{beside}: unknown settings {', '.join(unknown)}; remove them if the model does not depend on them")
    return beside, settings


def _backbone_shapes(config: DebertaV2Config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = DebertaV2Model(config)
    return {_BACKBONE + key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _head_shapes(config: DebertaV2Config, state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    width, pooled, num_labels = config.hidden_size, config.pooler_hidden_size, config.num_labels
    adaptor = {}
    if "adaptor.weight" in state or "adaptor.bias" in state:
        width = state["pooler.dense.weight"].shape[1]
        adaptor = {"adaptor.weight": (width, config.hidden_size), "adaptor.bias": (width,)}
    return adaptor | {"pooler.dense.weight": (pooled, width), "pooler.dense.bias": (pooled,),
                      "classifier.weight": (num_labels, pooled), "classifier.bias": (num_labels,)}


def _check_shapes(path: Path, state: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unknown {key}" for key in state if key not in expected]
    problems += [f"{key} is {tuple(state[key].shape)}, expected {shape}" for key, shape in expected.items()
                 if key in state and tuple(state[key].shape) != shape]
    if problems:
        more = f"; and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(f"{path}: not the tensors of a published DeBERTa: {'; '.join(problems[:12])}{more}; give another file")


# ---- tokenizer


def load_published_tokenizer(spm_path: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a published spm.model: [CLS] a [SEP] b [SEP]; ids [PAD] 0, [CLS] 1, [SEP] 2, [UNK] 3, [MASK] = pieces.

    Ids are SentencePiece's. transformers' DebertaV2Tokenizer is not used: it needs protobuf to read the file, and puts NFC in
    the place of the file's own normalisation (NFKC), so that a no-break space, "…" or "½" becomes [UNK].
    Differs: text that spells a special token becomes it, as in every tokenizer of transformers, where SentencePiece spells it
    out; a letter under several combining marks may give another number of [UNK].
    Errors: ValueError for a file that is missing, damaged or not of this kind."""
    path = existing_file(spm_path)
    try:
        pieces, unknown_id, trainer, normaliser = _sentencepiece(path.read_bytes())
    except (LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{path}: not a SentencePiece model, or cut short; download it again") from error
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    # Defaults of SentencePiece: unigram, words begin with a space, spaces are collapsed and written as ▁.
    usual = trainer.get(3, 1) == 1 and all(normaliser.get(field, 1) for field in (3, 4, 5))
    if [piece for piece, _ in pieces[:4]] != special or unknown_id != 3 or not usual:
        raise ValueError(f"{path}: a SentencePiece model of another kind; expected DeBERTa-v3's: unigram, default whitespace, "
                         f"beginning with {' '.join(special)}")

    tokenizer = Tokenizer(Unigram(pieces, unk_id=unknown_id, byte_fallback=bool(trainer.get(35, 0))))
    charsmap = [normalizers.Precompiled(normaliser[2])] if normaliser.get(2) else []
    tokenizer.normalizer = normalizers.Sequence(
        [*charsmap, normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex("^ | $"), "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="[CLS]", eos_token="[SEP]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask", "token_type_ids"])


def _sentencepiece(data: bytes) -> tuple[list[tuple[str, float]], int, dict, dict]:
    """Pieces with scores, the unknown piece's id, trainer and normaliser settings by field number (sentencepiece_model.proto).

    Read here because the generated reader in the sentencepiece package needs protobuf."""
    top = list(_fields(data))
    records = [dict(_fields(value)) for number, value in top if number == 1]  # SentencePiece: piece 1, score 2, type 3
    pieces = [(record[1].decode(), struct.unpack("<f", record.get(2, bytes(4)))[0]) for record in records]
    unknown_id = next(index for index, record in enumerate([*records, {3: 2}]) if record.get(3, 1) == 2)  # type 2: UNKNOWN
    (trainer,), (normaliser,) = ([dict(_fields(value)) for number, value in top if number == field] for field in (2, 3))
    return pieces, unknown_id, trainer, normaliser


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message: varints as int, everything else as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        length = {1: 8, 2: None, 5: 4}[key & 7] or varint()
        if at + length > len(message):
            raise IndexError("a field reaches beyond the end")
        yield key >> 3, message[at:at + length]
        at += length
