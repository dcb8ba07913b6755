"""Configuration: frozen dataclasses, parsed from the command line by transformers' HfArgumentParser."""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, get_type_hints

from transformers import HfArgumentParser

from data_utils.draws import SELECT_ON
from data_utils.windows import Windows
from distill.optim import OPTIMIZERS
from distill.schedules import LEARNING_RATE


@dataclass(frozen=True)
class Allowed:
    """What a setting may be, as a part of its type: `temperature: Annotated[float, ABOVE_0]`."""

    holds: Callable[[object], bool]
    said: str


ABOVE_0 = Allowed(lambda value: 0 < value < math.inf, "a number above 0")
FROM_0 = Allowed(lambda value: 0 <= value < math.inf, "0 or more")
FROM_1 = Allowed(lambda value: 1 <= value < math.inf, "1 or more")
BELOW_1 = Allowed(lambda value: 0 <= value < 1, "0 up to (not including) 1")
SHARE = Allowed(lambda value: 0 <= value <= 1, "0 to 1")
PROPER_SHARE = Allowed(lambda value: 0 < value < 1, "a number between 0 and 1")


def one_of(choices: Collection[str]) -> Allowed:
    """One of these words, of which an empty one is the default and goes without saying."""
    return Allowed(lambda value: value in choices, f"one of {', '.join(filter(None, choices))}")


def setting(default, text: str):
    """A field of a config with its default and its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a command reads; ValueError for a value that its type does not allow."""

    def __post_init__(self):
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            for allowed in getattr(kind, "__metadata__", ()):
                if not allowed.holds(getattr(self, name)):
                    raise ValueError(f"--{name} {getattr(self, name)}: expected {allowed.said}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """What training reads in every recipe; each recipe's Config adds its own fields."""

    learning_rate: Annotated[float, ABOVE_0] = setting(5e-5, "peak learning rate")
    num_train_epochs: Annotated[float, FROM_0] = setting(3.0, "passes over the training set")
    max_steps: Annotated[int, FROM_0] = setting(0, "optimiser steps; 0: as many as num_train_epochs says")
    train_batch_size: Annotated[int, ABOVE_0] = setting(32, "examples per optimiser step, over all micro-batches and ranks")
    max_tokens: Annotated[int, FROM_0] = setting(
        0, "padded tokens per micro-batch and rank, from which accumulation follows; 0: what suits the device")
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = setting("adamw", "adamw or ranger_adabelief")
    weight_decay: Annotated[float, FROM_0] = setting(0.01, "decoupled weight decay")
    max_grad_norm: Annotated[float, FROM_0] = setting(1.0, "clip the global gradient norm here; 0: never")
    lr_scheduler_type: Annotated[str, one_of(LEARNING_RATE)] = setting("linear", "constant, linear, cosine or one_cycle")
    warmup_ratio: Annotated[float, BELOW_1] = setting(0.1, "share of the steps in which the learning rate rises")
    warmup_steps: Annotated[int, FROM_0] = setting(0, "the same in steps; 0: as warmup_ratio says")
    seed: Annotated[int, FROM_0] = setting(42, "seed of initialisation, data order and dropout")
    bf16: bool | None = setting(None, "bfloat16 autocast; by default where the device multiplies it natively")
    fp16: bool = setting(False, "float16 autocast with a loss scaler (CUDA)")
    compile: bool = setting(False, "torch.compile the student; pays on CUDA, hardly on a CPU")
    trim_vocabulary: bool | None = setting(None, "train only the word embeddings that the data read, checkpoints stay whole; by "
                                                 "default without --fsdp")
    fsdp: bool = setting(False, "shard parameters, gradients and optimiser state over the ranks of torchrun (torch's FSDP2), for "
                                "models that do not fit one device")
    eval_steps: Annotated[int, FROM_0] = setting(0, "evaluate every so many steps; 0: after every epoch")
    eval_on_start: bool = setting(False, "evaluate before the first step too; logged, never kept as the best")
    save_steps: Annotated[int, FROM_0] = setting(0, "checkpoint every so many steps; 0: at every evaluation")
    save_minutes: Annotated[float, FROM_0] = setting(30.0, "checkpoint every so many minutes as well; 0: never")
    save_total_limit: Annotated[int, ABOVE_0] = setting(2, "checkpoints to keep: last/, and before it last.1/ ...")
    logging_steps: Annotated[int, ABOVE_0] = setting(10, "write the terms to log.jsonl every so many steps")

    def __post_init__(self):
        super().__post_init__()
        if not (self.num_train_epochs or self.max_steps):
            raise ValueError("--num_train_epochs 0: expected a number above 0, or --max_steps")
        for one, other in (("bf16", "fp16"), ("fsdp", "trim_vocabulary"), ("fsdp", "compile")):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"--{one} and --{other} together: choose one")

    def passes(self, examples: int) -> float:
        """How often the run reads each of so many examples."""
        return self.max_steps * self.train_batch_size / examples if self.max_steps else self.num_train_epochs


@dataclass(frozen=True, kw_only=True)
class TaskConfig(TrainConfig):
    """What every recipe reads that trains on a task (splits.py)."""

    data_dir: str = setting("./glue", "folder of the tasks; the hub is asked where ./glue is missing")
    max_length: Annotated[int, FROM_0] = setting(0, "tokens per example; 0: as many as the teacher, without one the task's own")
    select_on: Annotated[str, one_of(SELECT_ON)] = setting(
        "dev", "what selects the best epoch: dev (the first dev split), or heldout, a fixed tenth of train that is not trained on; "
               "dev is then reported untouched by the selection. heldout by default for a task that has no other split to spare")
    stride: int = setting(Windows.stride, "of answers in a text (SQuAD): tokens that two consecutive windows share")
    max_query_length: int = setting(Windows.question, "of answers in a text (SQuAD): tokens of a question, its rest is cut off")

    @property
    def windows(self) -> Windows:
        """How texts with answers are cut."""
        return Windows(self.stride, self.max_query_length)

    def __post_init__(self):
        super().__post_init__()
        Windows(self.stride, self.max_query_length)  # refuses what makes no sense


def check_weights(config) -> None:
    """ValueError where no term has a weight: nothing would be learned."""
    weights = {name: value for name, value in vars(config).items() if name.endswith("_weight")}
    if not any(weights.values()):
        raise ValueError(f"{', '.join(f'--{name} {value:g}' for name, value in weights.items())}: expected one above 0, or nothing is learned")


def digest(config: dict) -> str:
    """Twelve hex digits that change when any setting (but the output folder) changes."""
    settings = {name: value for name, value in config.items() if name != "output_dir"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def differences(old: dict, new: dict) -> list[str]:
    """`name: old -> new` for every setting in which two configs differ."""
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)]


def split_words(words: Sequence[str]) -> list[str]:
    """The words of a command, `--name=value` in two."""
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]


def value_of(words: Sequence[str], name: str) -> str:
    """What the words say last for --name, "" where they do not."""
    return next((value for flag, value in reversed(list(zip(words, words[1:]))) if flag == f"--{name}"), "")


def without(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words but every `--name value` of these names."""
    words = list(words)
    for flag in (f"--{name}" for name in names):
        while flag in words:
            place = words.index(flag)
            del words[place:place + 2]
    return words


IN_STEPS = {"num_train_epochs": "max_steps", "warmup_ratio": "warmup_steps"}  # the second, where it is not 0, goes before the first


def parse(config_class, argv: list[str], defaults: dict | None = None, program: str | None = None):
    """`config_class` from command-line words. `defaults` (a preset) come between the class's own and the words; its steps give way to
    words in epochs or shares.

    ValueError for an unknown flag (with the nearest) and for a value that the config refuses; a value of another type
    ends with status 2 (argparse).
    """
    given = {word.removeprefix("--") for word in split_words(argv)}
    outdone = {steps for share, steps in IN_STEPS.items() if share in given}
    defaults = {name: value for name, value in (defaults or {}).items() if name not in outdone}
    unknown = defaults.keys() - {entry.name for entry in fields(config_class)}
    assert not unknown, f"preset sets unknown settings {unknown}"
    parser = HfArgumentParser(config_class, prog=program, allow_abbrev=False, usage=f"{program} [--setting value ...]")
    parser.set_defaults(**defaults)
    config, foreign = parser.parse_args_into_dataclasses(argv, look_for_args_file=False, return_remaining_strings=True)
    if foreign:
        nearest = difflib.get_close_matches(foreign[0], [f"--{entry.name}" for entry in fields(config_class)], 1, 0)[0]
        raise ValueError(f"unknown setting {foreign[0]!r}: did you mean {nearest}? `{program} --help` lists the settings")
    return config
