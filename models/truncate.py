"""A student from a deeper encoder: which layers it keeps, and with which weights it starts."""

import copy
import re
from typing import TypeVar

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from models.encoder import Encoder
from models.layers import layer_stack
from models.trunk import Trunk

Kind = TypeVar("Kind", bound=Trunk)


def parse_layers(spec: str, depth: int) -> tuple[int, ...]:
    """The kept layers (0-based) of a `depth`-layer encoder.

    `all` keeps every layer, `truncate:N` the first N, `truncate:half` the first half, `uniform:N` N at equal distances up to the
    last, `layers:0,2,4` those named. ValueError for anything else.
    """
    if spec == "all":
        return tuple(range(depth))
    if match := re.fullmatch(r"(truncate|uniform):(\d+|half)", spec):
        kept = depth // 2 if match[2] == "half" else int(match[2])
        if not 1 <= kept <= depth:
            raise ValueError(f"{spec} does not fit: the model has {depth} layers, keep 1 to {depth}")
        return tuple(range(kept)) if match[1] == "truncate" else tuple(round(layer * depth / kept) - 1 for layer in range(1, kept + 1))
    if re.fullmatch(r"layers:\d+(,\d+)*", spec):
        layers = tuple(int(layer) for layer in spec.removeprefix("layers:").split(","))
        if max(layers) >= depth or list(layers) != sorted(set(layers)):
            raise ValueError(f"{spec} does not fit: the model has {depth} layers; name some of 0 to {depth - 1}, rising, each once, or give uniform:N")
        return layers
    raise ValueError(f"unknown layers {spec!r}: give all, truncate:N, truncate:half, uniform:N or layers:0,2,4")


def is_layer_spec(spec: str) -> bool:
    """Whether `spec` names layers of a teacher, rather than a model of its own."""
    return spec == "all" or spec.startswith(("truncate:", "uniform:", "layers:"))


def truncate(encoder: Kind, layers: tuple[int, ...]) -> Kind:
    """A copy of `encoder` that keeps only `layers`, all weights (heads and adaptor included) copied, none shared. ValueError where no
    configuration describes them: a checkpoint of them could not be read again."""
    student = copy.deepcopy(encoder)
    owner, name = layer_stack(student.backbone)
    setattr(owner, name, nn.ModuleList(getattr(owner, name)[layer] for layer in layers))
    keep_layers(student.config, layers)
    with torch.device("meta"):
        described: nn.Module = AutoModel.from_config(student.config)
    expected, found = ({parameter for parameter, _ in getattr(*layer_stack(backbone)).named_parameters()} for backbone in (described, student.backbone))
    if expected != found:
        raise ValueError(f"layers {', '.join(map(str, layers))} of this {student.config.model_type} model cannot stand alone: its layers differ, "
                         f"and as numbered anew they would have other weights ({', '.join(sorted(expected ^ found)[:3])}); keep its first ones, "
                         "with truncate:N")
    return student


def keep_layers(config: PreTrainedConfig, layers: tuple[int, ...]) -> None:
    """Change `config` to that of a model that keeps only `layers`."""
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in layers]


def adapt(student: Encoder, teacher: Encoder) -> Encoder:
    """`student`, its backbone kept, reading the teacher's head: copied, behind a linear adaptor where widths differ
    (N(0, 0.02), bias 0, as in the published code of arXiv 2504.06036)."""
    adaptor = nn.Identity()
    if student.config.hidden_size != teacher.width:
        adaptor = nn.Linear(student.config.hidden_size, teacher.width)
        nn.init.normal_(adaptor.weight, std=0.02)
        nn.init.zeros_(adaptor.bias)
    return Encoder(student.backbone, copy.deepcopy(teacher.head), teacher.info, student.tokenizer, adaptor)
