"""Tiny downloads: the files and folders of the published sense distillation, written here, with the logits that they stand for.

    <folder>/ckpts/teacher-v3-large/MRPC/  pytorch.model-000460.bin  model_config.json  spm.model
             ckpts/SKD/MRPC.ckpt           sense_dict/MRPC.kmeanspkl  MRPC_teacher.kmeanspkl
             glue/MRPC/dev.tsv             expected.json

The layout of shared/data/downloaded_formats. The logits come from `published_logits`, which knows nothing of transformers or of
our import: DeBERTa from its formulas, on the tensors under the names in the file.
"""

import io
import json
import os
import pickle
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

HEAD_WIDTH = 64
CONFIG = {
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512,
    "type_vocab_size": 0, "initializer_range": 0.02, "layer_norm_eps": 1e-07, "padding_idx": 0, "model_type": "deberta-v2",
    "relative_attention": True, "max_relative_positions": -1, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False, "pooling": {"dropout": 0, "hidden_act": "gelu"},
}
SYLLABLES = "ba be bo da de do ka ke ki lo la mi mo na ne ra ri so su ta te ti".split()


class Hostile:
    """Pickles as a call that would create `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


@dataclass(frozen=True)
class Downloads:
    """Where the files lie, and rows of expected.json: texts, input_ids, teacher, teacher_with_senses, student_with_senses."""

    teacher: Path
    student: Path
    teacher_senses: Path
    student_senses: Path
    tokenizer: Path
    rows: list[dict]


def find_downloads(folder: Path) -> Downloads:
    """The downloads that lie in `folder`, in the published layout."""
    teacher = folder / "ckpts/teacher-v3-large/MRPC"
    return Downloads(teacher=teacher / "pytorch.model-000460.bin", student=folder / "ckpts/SKD/MRPC.ckpt",
                     teacher_senses=folder / "sense_dict/MRPC_teacher.kmeanspkl", student_senses=folder / "sense_dict/MRPC.kmeanspkl",
                     tokenizer=teacher / "spm.model", rows=json.loads((folder / "expected.json").read_text()))


def write_downloads(folder: Path, num_rows: int = 12) -> Downloads:
    """Write everything into `folder`: teacher 2 layers x 128, student 1 layer x 64, senses of width 128."""
    for name in ("ckpts/teacher-v3-large/MRPC", "ckpts/SKD", "sense_dict", "glue/MRPC"):
        (folder / name).mkdir(parents=True)
    spm_model = folder / "ckpts/teacher-v3-large/MRPC/spm.model"
    write_tokenizer(spm_model)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(spm_model))
    vocab = pieces.get_piece_size() + 10

    teacher = model_state(vocab, hidden=2 * HEAD_WIDTH, layers=2, seed=1)
    student = model_state(vocab, hidden=HEAD_WIDTH, layers=1, seed=2, width=2 * HEAD_WIDTH)
    torch.save(teacher, spm_model.with_name("pytorch.model-000460.bin"))
    torch.save({f"module.{key}": tensor for key, tensor in student.items()}, folder / "ckpts/SKD/MRPC.ckpt")
    config = CONFIG | {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96, "vocab_size": vocab}
    spm_model.with_name("model_config.json").write_text(json.dumps(config))
    senses = {name: write_senses(folder / f"sense_dict/{name}.kmeanspkl", vocab, width=2 * HEAD_WIDTH, seed=seed)
              for name, seed in (("MRPC", 3), ("MRPC_teacher", 4))}

    rows, lines = [], ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    texts = sentences(2 * num_rows, seed=5)
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        ids = [1, *pieces.encode(first), 2, *pieces.encode(second), 2]
        rows.append({"texts": [first, second], "input_ids": ids,
                     "teacher": published_logits(teacher, ids, {}),
                     "teacher_with_senses": published_logits(teacher, ids, senses["MRPC_teacher"]),
                     "student_with_senses": published_logits(student, ids, senses["MRPC"])})
        lines.append(f"{len(lines) % 2}\t{len(lines)}\t{len(lines)}\t{first}\t{second}")
    (folder / "glue/MRPC/dev.tsv").write_text("\n".join(lines) + "\n")
    (folder / "expected.json").write_text(json.dumps(rows))
    return find_downloads(folder)


def sentences(count: int, seed: int) -> list[str]:
    """Lines of invented words with capitals, digits and punctuation."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(120)]
    return [" ".join([draw.choice(words).title(), *draw.choices(words, k=draw.randint(3, 9)), str(draw.randint(0, 99))]) + draw.choice(".?!,")
            for _ in range(count)]


def write_tokenizer(path: Path, lines: list[str] | None = None, **options: object) -> None:
    """Train a SentencePiece model with DeBERTa-v3's special pieces on `lines`; `options` of SentencePieceTrainer override."""
    settings = dict(vocab_size=150, model_type="unigram", character_coverage=1.0, hard_vocab_limit=False, num_threads=1, minloglevel=2,
                    pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]")
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines or sentences(400, seed=0)), model_writer=buffer, **(settings | options))
    path.write_bytes(buffer.getvalue())


def model_state(vocab: int, hidden: int, layers: int, seed: int, width: int | None = None, num_labels: int = 2) -> dict[str, Tensor]:
    """A random fp16 state dict with the published names; `width`: a student's adaptor and head width."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        state[name] = (around + 0.3 * torch.randn(shape, generator=generator)).half()

    def linear(name: str, rows: int, columns: int) -> None:
        state[f"{name}.weight"] = (torch.randn(rows, columns, generator=generator) / columns**0.5).half()
        add(f"{name}.bias", rows)

    def layer_norm(name: str) -> None:
        add(f"{name}.weight", hidden, around=1.0)
        add(f"{name}.bias", hidden)

    add("deberta.embeddings.word_embeddings.weight", vocab, hidden)
    add("deberta.embeddings.position_embeddings.weight", 512, hidden)
    layer_norm("deberta.embeddings.LayerNorm")
    for index in range(layers):
        layer = f"deberta.encoder.layer.{index}"
        for name in ("query_proj", "key_proj", "value_proj"):
            linear(f"{layer}.attention.self.{name}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        layer_norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", 96, hidden)
        linear(f"{layer}.output.dense", hidden, 96)
        layer_norm(f"{layer}.output.LayerNorm")
    add("deberta.encoder.rel_embeddings.weight", 512, hidden)
    layer_norm("deberta.encoder.LayerNorm")
    if width:
        linear("adaptor", width, hidden)
    linear("pooler.dense", width or hidden, width or hidden)
    linear("classifier", num_labels, width or hidden)
    return state


def write_senses(path: Path, vocab: int, width: int, seed: int) -> dict[int, Tensor]:
    """Write a dictionary that lacks a quarter of the types, some of them as entries that mean "none"; return the real entries."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.randint(0, 4, (vocab,), generator=generator).tolist()
    senses = {token: torch.randn(number, width, generator=generator).half() for token, number in enumerate(count) if number}
    absent = [token for token, number in enumerate(count) if not number]
    nothing = [None, torch.zeros(0, width).half(), torch.zeros(0), torch.tensor([0]), torch.tensor([0.0])]
    with path.open("wb") as stream:
        pickle.dump(senses | {np.int64(token): none for token, none in zip(absent, nothing, strict=False)}, stream)
    return senses


def published_logits(state: dict[str, Tensor], ids: list[int], senses: dict[int, Tensor]) -> list[float]:
    """One sentence through the published model, in fp64; position 1 is pooled, by way of its nearest sense where it has any."""
    state = {key: tensor.double() for key, tensor in state.items()}
    state_D = _deberta(state, ids)[1]
    if "adaptor.weight" in state:
        state_D = _linear(state, "adaptor", state_D)
    if ids[1] in senses:
        candidates = senses[ids[1]].double()
        state_D = max(candidates, key=lambda sense: float(sense @ state_D))
    return _linear(state, "classifier", F.gelu(_linear(state, "pooler.dense", state_D))).tolist()


def _linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _deberta(state: dict[str, Tensor], ids: list[int]) -> Tensor:
    """Last hidden states [T, D]. score(i, j) = (Qi Kj + Qi K'(i - j) + Kj Q'(i - j)) / sqrt(3 d), He et al. 2021, equation 4,

    with the content projections for the positions (share_att_key); the log buckets begin at distance 128."""
    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-7)

    assert len(ids) <= 128
    x_TD = norm("deberta.embeddings.LayerNorm", state["deberta.embeddings.word_embeddings.weight"][ids])
    positions_PD = norm("deberta.encoder.LayerNorm", state["deberta.encoder.rel_embeddings.weight"])
    time = torch.arange(len(ids))
    distance_TT = time[:, None] - time[None, :] + 256
    for index in range(sum(key.endswith("intermediate.dense.bias") for key in state)):
        layer = f"deberta.encoder.layer.{index}"
        attention = f"{layer}.attention.self"
        heads = []
        for head in range(x_TD.shape[1] // HEAD_WIDTH):
            own = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
            query, key, value = (_linear(state, f"{attention}.{name}_proj", x_TD)[:, own] for name in ("query", "key", "value"))
            query_at, key_at = (_linear(state, f"{attention}.{name}_proj", positions_PD)[:, own][distance_TT] for name in ("query", "key"))
            scores_TT = query @ key.T + torch.einsum("id,ijd->ij", query, key_at) + torch.einsum("jd,ijd->ij", key, query_at)
            heads.append((scores_TT / (3 * HEAD_WIDTH) ** 0.5).softmax(1) @ value)
        x_TD = norm(f"{layer}.attention.output.LayerNorm", _linear(state, f"{layer}.attention.output.dense", torch.cat(heads, 1)) + x_TD)
        inner = F.gelu(_linear(state, f"{layer}.intermediate.dense", x_TD))
        x_TD = norm(f"{layer}.output.LayerNorm", _linear(state, f"{layer}.output.dense", inner) + x_TD)
    return x_TD
