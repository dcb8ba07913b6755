"""Configuration: frozen dataclasses, parsed from the command line by transformers' HfArgumentParser."""

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from transformers import HfArgumentParser

from data_utils.draws import SELECT_ON
from data_utils.windows import Windows
from distill.optim import OPTIMIZERS
from distill.schedules import LEARNING_RATE



def setting(default, text: str):
    """A field of a config with its default and its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What training reads in every recipe; each recipe's Config adds its own fields."""

    learning_rate: float = setting(5e-5, "peak learning rate")
    num_train_epochs: float = setting(3.0, "passes over the training set")
    max_steps: int = setting(0, "optimiser steps; 0: as many as num_train_epochs says")
    train_batch_size: int = setting(32, "examples per optimiser step, over all micro-batches and ranks")
    max_tokens: int = setting(16384, "padded tokens per micro-batch and rank; accumulation follows from it")
    optimizer: str = setting("adamw", "adamw or ranger_adabelief")
    weight_decay: float = setting(0.01, "decoupled weight decay")
    max_grad_norm: float = setting(1.0, "clip the global gradient norm here; 0: never")
    lr_scheduler_type: str = setting("linear", "constant, linear, cosine or one_cycle")
    warmup_ratio: float = setting(0.1, "share of the steps in which the learning rate rises")
    warmup_steps: int = setting(0, "the same in steps; 0: as warmup_ratio says")
    seed: int = setting(42, "seed of initialisation, data order and dropout")
    bf16: bool | None = setting(None, "bfloat16 autocast; by default where the device multiplies it natively")
    fp16: bool = setting(False, "float16 autocast with a loss scaler (CUDA)")
    compile: bool = setting(False, "torch.compile the student; pays on CUDA, hardly on a CPU")
    trim_vocabulary: bool | None = setting(None, "train only the word embeddings that the data read, checkpoints stay whole; by "
                                                 "default without --fsdp")
    fsdp: bool = setting(False, "shard parameters, gradients and optimiser state over the ranks of torchrun (torch's FSDP2), for "
                                "models that do not fit one device")
    eval_steps: int = setting(0, "evaluate every so many steps; 0: after every epoch")
    eval_on_start: bool = setting(False, "evaluate before the first step too; logged, never kept as the best")
    save_steps: int = setting(0, "checkpoint every so many steps; 0: at every evaluation")
    save_total_limit: int = setting(2, "checkpoints to keep: last/, and before it last.1/ ...")
    logging_steps: int = setting(10, "write the terms to log.jsonl every so many steps")

    def __post_init__(self):
        for name in ("learning_rate", "train_batch_size", "max_tokens", "logging_steps", "save_total_limit"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name} {getattr(self, name)}: expected a number above 0")
        for name in ("max_steps", "num_train_epochs", "weight_decay", "max_grad_norm", "warmup_steps", "eval_steps",
                     "save_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)}: expected 0 or more")
        for name, choices in (("optimizer", OPTIMIZERS), ("lr_scheduler_type", LEARNING_RATE)):
            if getattr(self, name) not in choices:
                raise ValueError(f"--{name} {getattr(self, name)}: expected one of {', '.join(choices)}")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"--warmup_ratio {self.warmup_ratio}: expected 0 up to (not including) 1")
        for one, other in (("bf16", "fp16"), ("fsdp", "trim_vocabulary"), ("fsdp", "compile")):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"--{one} and --{other} together: choose one")


@dataclass(frozen=True, kw_only=True)
class TaskConfig(TrainConfig):
    """What every recipe reads that trains on a task (splits.py)."""

    data_dir: str = setting("./glue", "folder of the tasks; the hub is asked where ./glue is missing")
    max_length: int = setting(0, "tokens per example; 0: the task's own")
    select_on: str = setting("dev", "what selects the best epoch: dev (the first dev split), or heldout, a fixed tenth of train "
                                    "that is not trained on; dev is then reported untouched by the selection. heldout by "
                                    "default for a task that has no other split to spare")
    stride: int = setting(Windows.stride, "of answers in a text (SQuAD): tokens that two consecutive windows share")
    max_query_length: int = setting(Windows.question, "of answers in a text (SQuAD): tokens of a question, its rest is cut off")

    @property
    def windows(self) -> Windows:
        """How texts with answers are cut."""
        return Windows(self.stride, self.max_query_length)

    def __post_init__(self):
        super().__post_init__()
        Windows(self.stride, self.max_query_length)  # refuses what makes no sense
        if self.max_length < 0:
            raise ValueError(f"--max_length {self.max_length}: expected 0 or more")
        if self.select_on not in SELECT_ON:
            raise ValueError(f"--select_on {self.select_on}: expected one of {', '.join(SELECT_ON)}")


def check_weights(config) -> None:
    """ValueError where the weight of a term is below 0, or none is above it."""
    weights = {name: value for name, value in vars(config).items() if name.endswith("_weight")}
    if min(weights.values()) < 0 or max(weights.values()) == 0:
        raise ValueError(f"{', '.join(f'--{name}' for name in weights)}: expected none below 0, and one above it")


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


def parse(config_class, argv: list[str], defaults: dict | None = None, program: str | None = None):
    """`config_class` from command-line words. `defaults` (a preset) come between the class's own and the words.

    ValueError for an unknown flag (with the nearest) and for a value that the config refuses; a value of another type
    ends with status 2 (argparse).
    """
    defaults = defaults or {}
    unknown = defaults.keys() - {entry.name for entry in fields(config_class)}
    assert not unknown, f"preset sets unknown settings {unknown}"
    parser = HfArgumentParser(config_class, prog=program, allow_abbrev=False, usage=f"{program} [--setting value ...]")
    parser.set_defaults(**defaults)
    config, foreign = parser.parse_args_into_dataclasses(argv, look_for_args_file=False, return_remaining_strings=True)
    if foreign:
        nearest = difflib.get_close_matches(foreign[0], [f"--{entry.name}" for entry in fields(config_class)], 1, 0)[0]
        raise ValueError(f"unknown setting {foreign[0]!r}: did you mean {nearest}? `{program} --help` lists the settings")
    return config
