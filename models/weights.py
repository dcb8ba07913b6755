"""Tensors on disk, and their names in transformers' sequence-classification checkpoints."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """How transformers' own sequence classifier of a model type is built.

    dense: the name of the layer before the activation; activation: what follows it; architecture and multiple_choice: the
    classes for sequences and for choices, which name their tensors alike; question_answering: that for answers in a text.
    """

    dense: str
    activation: str
    architecture: str
    multiple_choice: str
    question_answering: str


LAYOUTS = {"bert": Layout("bert.pooler.dense", "tanh", "BertForSequenceClassification", "BertForMultipleChoice",
                         "BertForQuestionAnswering"),
           "deberta-v2": Layout("pooler.dense", "gelu", "DebertaV2ForSequenceClassification", "DebertaV2ForMultipleChoice",
                               "DebertaV2ForQuestionAnswering"),
           "distilbert": Layout("pre_classifier", "relu", "DistilBertForSequenceClassification", "DistilBertForMultipleChoice",
                               "DistilBertForQuestionAnswering")}
PLAIN_LAYOUT = Layout("pooler.dense", "gelu", "", "", "")  # other encoders: our head, under DeBERTa's names


def key_map(backbone: nn.Module, spans: bool = False) -> dict[str, str]:
    """Prefixes of an Encoder's own names -> of transformers' names; `spans`: of an encoder that answers in a text."""
    layout = LAYOUTS.get(backbone.config.model_type, PLAIN_LAYOUT)
    head = {"head.out.": "qa_outputs."} if spans else {"head.dense.": f"{layout.dense}.", "head.out.": "classifier."}
    return {"backbone.": f"{backbone.base_model_prefix}.", **head}


def rename(state: dict[str, Tensor], prefixes: dict[str, str]) -> dict[str, Tensor]:
    """`state` with each key's longest matching prefix exchanged (`bert.pooler.dense.` lies inside `bert.`)."""
    longest_first = sorted(prefixes, key=len, reverse=True)

    def renamed(key: str) -> str:
        prefix = next((prefix for prefix in longest_first if key.startswith(prefix)), None)
        return key if prefix is None else prefixes[prefix] + key.removeprefix(prefix)

    return {renamed(key): tensor for key, tensor in state.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError naming the file where it is missing or broken."""
    if not path.is_file():
        raise ValueError(f"no weights {path}: a checkpoint folder holds {path.name}")
    try:
        path.open("rb").close()  # safetensors calls a file that it may not read missing
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): change its permissions, or copy it") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): it may be truncated; fetch or train it "
                         "again") from error


def stored_parameters(path: Path) -> int | None:
    """The number of parameters in a safetensors file, embeddings included, read from its header; None where it is missing
    or broken."""
    return (stored_parameter_counts(path) or (None,))[0]


def stored_parameter_counts(path: Path) -> tuple[int, int] | None:
    """What parameter_counts() says of a safetensors file, read from its header; None where it is missing or broken."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_slice(name) for name in file.keys()}
            return _counted({name: math.prod(tensor.get_shape()) for name, tensor in tensors.items() if "F" in tensor.get_dtype()})
    except (SafetensorError, OSError):
        return None


def parameter_counts(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Parameters in all, and how many of them are embeddings (word, position, segment, and their LayerNorm): of an encoder's
    state_dict() or of a checkpoint's read_tensors()."""
    return _counted({name: tensor.numel() for name, tensor in tensors.items()})


def _counted(sizes: Mapping[str, int]) -> tuple[int, int]:
    return sum(sizes.values()), sum(size for name, size in sizes.items() if ".embeddings." in name)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that others may read as the user's umask says (safetensors itself makes it private)."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata=metadata)
    path.chmod(mode)


CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Write the sha256 of every file below `folder` into it; JSON, which people read and edit, is left out."""
    sums = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".json"}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")


def check_checksums(folder: Path) -> None:
    """ValueError naming the first file that is not as write_checksums() saw it; nothing where it never did."""
    if not (folder / CHECKSUMS).is_file():
        return
    for name, expected in json.loads((folder / CHECKSUMS).read_text()).items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise ValueError(f"{path} is missing, truncated or altered: it is not what {CHECKSUMS} beside it says. Fetch or "
                             f"make it again; where you changed it yourself, remove {folder / CHECKSUMS}")


def _sha256(path: Path) -> str:
    """Of the file's content; ValueError where it may not be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): change its permissions, or copy it") from error


def fingerprint(folder: Path) -> str:
    """Sixteen hex digits of each file of weights in a checkpoint folder: what caches made from them are keyed by."""
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ValueError(f"no weights {folder / 'model.safetensors'}: a checkpoint folder holds model.safetensors")
    return "-".join(_sha256(path)[:16] for path in files)
