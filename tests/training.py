"""Small training runs for the tests of the engine: what is trained, interruptions, processes, and what a run left behind."""

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import socket
import sys
import unittest.mock
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel

from data_utils.batching import Batch, TrainStream, collate
from data_utils.encode import EncodedDataset, encode
from data_utils.tasks import Example, Task, get_task
from distill import workers
from distill.__main__ import main
from distill.distillation import Distillation, DistilConfig
from distill.engine import Interrupted, NonFiniteLossError, fit
from distill.recipes import finetune, logit_kd, pkd, relation_kd, sense_kd, tinybert
from distill.rundir import RunDir
from distill.scores import Predictions, Scores
from distill.senses import build
from distill.teacher import LiveTeacher, Wanted
from models.encoder import Encoder, TaskInfo
from models.exits import TwoExits
from models.heads import ClassificationHead, SenseLookup
from models.pretrained import pretrained_encoder
from models.truncate import adapt, truncate
from tests.tiny import TIMES, WORDS

KINDS = {"labels": "SST-2", "scores": "STS-B", "senses": "SST-2", "sense scores": "STS-B", "logit_kd": "SST-2", "pkd": "STS-B",
         "tinybert": "SST-2", "relation_kd": "STS-B"}  # what is learned, the task
METHODS = {"logit_kd": (logit_kd, {}), "pkd": (pkd, {"layer_map": "uniform"}), "tinybert": (tinybert, {"attention_weight": 1e3}),
           "relation_kd": (relation_kd, {"relation_heads": 8, "relation_weight": 1e3})}  # their own settings; weights bring the terms to one size
WIDE = 48  # of the teachers of TinyBERT and MiniLMv2
PROCESSES = multiprocessing.get_context("forkserver")  # imports once, for all of them


def examples(task: Task, count: int) -> list[Example]:
    """Sentences of very different lengths."""
    draw = random.Random(3)
    return [Example(row, tuple(" ".join(draw.choices(WORDS, k=draw.randint(1, 18))) for _ in task.texts),
                    draw.uniform(0, 5) if task.is_regression else draw.randrange(2)) for row in range(count)]


@contextlib.contextmanager
def exact_arithmetic():
    """The CPU, and one thread: what the promise of equal bits is about."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with unittest.mock.patch("torch.cuda.is_available", lambda: False):
        yield
    torch.set_num_threads(before)


def settings(**changed) -> sense_kd.Config:
    """Settings of a small float32 run; finetune's objective reads none of its own."""
    given = {"learning_rate": 1e-3, "train_batch_size": 6, "max_steps": 10, "bf16": False, "logging_steps": 3, "eval_steps": 4,
             "save_steps": 2, "sense_weight": 0.7, "ce_weight": 1.3, "kl_weight": 0.4}
    return sense_kd.Config(**{**given, **changed})


def encoder(folder: Path, task: Task, layers: int, dropout: bool, seed: int) -> Encoder:
    """The tiny encoder with a head of its own."""
    torch.manual_seed(seed)
    info = TaskInfo(task.name, task.version, task.texts, task.labels, "mean")
    found = truncate(pretrained_encoder(str(folder), info, 0.1), tuple(range(layers)))
    for module in found.modules():
        if isinstance(module, nn.Dropout):
            assert module.p > 0
            module.p = module.p if dropout else 0.0
    return found


def wider(narrow: Encoder, width: int, heads: int, seed: int) -> Encoder:
    """A random BERT of another width and number of heads, with a head and all else of `narrow`."""
    torch.manual_seed(seed)
    config = BertConfig(**{**narrow.config.to_dict(), "hidden_size": width, "num_attention_heads": heads})
    head = ClassificationHead(width, narrow.info.num_outputs, "tanh", narrow.head.dropout.p)
    return Encoder(BertModel(config, add_pooling_layer=False), head, narrow.info, narrow.tokenizer)


def two_exits(folder: Path) -> tuple[TwoExits, Batch]:
    """The tiny encoder with a second exit after its second layer, the two far from each other; and a batch."""
    task = get_task("SST-2")
    network = TwoExits(encoder(folder, task, 4, False, seed=1), 2)
    with torch.no_grad():
        network.exit_head.out.weight.mul_(-30)
        network.head.out.weight.mul_(30)
    return network, collate(encode(examples(task, 8), network.tokenizer, 64), np.arange(8), task.name, 0)


def only(stream: type, left: int, monkeypatch) -> None:
    """From now on every sitting ends, as if by Ctrl-C, where it asks for more than `left` batches of streams of this class."""
    following, budget = stream.next, [left]
    def limited(self):
        if not budget[0]:
            raise KeyboardInterrupt
        budget[0] -= 1
        return following(self)
    monkeypatch.setattr(stream, "next", limited)


def run(*words) -> int:
    """The exit status of a command."""
    return main([str(word) for word in words])


def teach_superglue(task: str, data: Path, model: Path, out: Path, *more) -> Path:
    """A checkpoint that was fine-tuned for 40 steps."""
    assert run("train", "finetune", task, "--model", model, "--data_dir", data, "--output_dir", out, "--max_steps", 40, "--learning_rate", 2e-3,
               "--train_batch_size", 8, "--bf16", False, *more) == 0
    return out / "best"


def self_teaching_words(model: Path, task: str, glue: Path, out: Path, *more) -> list[str]:
    """The command line of a short self-teaching run; `more` overrides what is said here."""
    given = {"--model": model, "--data_dir": glue, "--output_dir": out, "--bf16": False, "--max_steps": 6, "--train_batch_size": 8,
             "--learning_rate": 2e-3, "--logging_steps": 2, "--eval_steps": 3, "--save_steps": 2}
    return [str(word) for word in ("train", "self_teaching", task, *(part for pair in given.items() for part in pair), *more)]


def senses(vocabulary: int, width: int) -> SenseLookup:
    """Random senses; each fourth type has none."""
    sizes = torch.arange(vocabulary + 1) % 4
    sizes[0] = 0
    generator = torch.Generator().manual_seed(4)
    return SenseLookup(torch.randn(int(sizes.sum()), width, generator=generator), sizes.cumsum(0))


class Parts:
    """A student, what it learns, and the data: everything that fit() is given, made afresh."""

    def __init__(self, folder: Path, kind: str, cfg, dropout: bool = False, count: int = 13):
        self.task, self.cfg = get_task(KINDS[kind]), cfg
        self.student = encoder(folder, self.task, 2, dropout, seed=1)
        self.tokenizer = self.student.tokenizer
        self.data: EncodedDataset = encode(examples(self.task, count), self.tokenizer, 64)
        if kind in ("labels", "scores"):
            self.objective = finetune.LabelObjective(self.task)
        elif kind in METHODS:
            self.objective = self.method_objective(folder, *METHODS[kind])
        else:
            teacher = encoder(folder, self.task, 4, True, seed=2)
            self.lookup = senses(self.student.config.vocab_size, self.student.width)
            self.teacher = LiveTeacher(teacher, cfg, Wanted(senses=True), self.lookup)
            self.special = [self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, self.tokenizer.pad_token_id]
            self.objective = Distillation(self.teacher, sense_kd.terms(cfg, self.task, self.student, teacher, self.lookup))
        self.start = self.student.head.dense.weight.detach().clone()

    def method_objective(self, folder: Path, recipe, own: dict) -> Distillation:
        """Of a recipe that compares states; TinyBERT's and MiniLMv2's teachers are wider, so that projections are learned."""
        teacher, narrow = encoder(folder, self.task, 4, False, seed=2), recipe in (logit_kd, pkd)
        if not narrow:
            teacher = wider(teacher, WIDE, 2 if recipe is tinybert else 3, seed=2)
            torch.manual_seed(3)
            self.student = adapt(self.student, teacher)
        shared = {field.name: getattr(self.cfg, field.name) for field in dataclasses.fields(DistilConfig)}
        self.method_cfg = recipe.Config(**shared, **own)
        objective = Distillation(None, recipe.terms(self.method_cfg, self.task, self.student, teacher))
        objective.teacher = self.teacher = LiveTeacher(teacher, self.cfg, objective.wanted)
        return objective

    def stream(self, at: int = -1, action=None) -> "Stream":
        return Stream(self, at, action)

    def restless_score(self, student, to_beat: float = 0.0) -> Scores:
        """An evaluation that disturbs every global generator; the score falls as the student moves, so the first is the best."""
        random.random(), np.random.rand(3), torch.rand(3)
        value = -float((student.head.dense.weight - self.start).double().norm())
        predictions = Predictions(np.arange(2), np.array([value, -value]), np.zeros(2))
        return Scores({"dev/score": value}, value, selected_on="dev", predictions={"dev": predictions})

    def train(self, path: Path, stream=None, evaluate=None) -> Encoder:
        path.mkdir(parents=True, exist_ok=True)
        fit(self.student, self.objective, stream or self.stream(), self.cfg, RunDir(path), evaluate)
        return self.student


class Stream(TrainStream):
    """A TrainStream to which something happens when batch number `at` (from 0) is asked for."""

    def __init__(self, parts: Parts, at: int, action):
        super().__init__(parts.data, parts.task.name, parts.tokenizer.pad_token_id, parts.cfg.train_batch_size, seed=5)
        self.at, self.action = at, action

    def next(self):
        if self.position == self.at:
            self.action()
        return super().next()


def left_behind(path: Path) -> dict:
    """All that a run wrote, without its clock: weights, trainer state, log."""
    state = torch.load(path / "last" / "trainer_state.pt", weights_only=True)
    files = {f"{folder}/{name}": (path / folder / name).read_bytes() for folder in ("best", "last")
             for name in ("model.safetensors", "task.json", "scores.json", "predictions.npz") if (path / folder / name).exists()}
    log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return {**files, **flat("state", state), "log": [{name: value for name, value in line.items() if name not in TIMES} for line in log]}


def flat(name: str, value) -> dict:
    """Nested dicts and lists as one dict; tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return {name: (value.dtype, value.shape, value.numpy().tobytes())}
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: found for index, item in items for key, found in flat(f"{name}.{index}", item).items()}
    return {name: value}


def assert_same(one: dict, other: dict) -> None:
    """Two results of left_behind() are equal bit for bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if one[name] != other[name]]
    assert not different, different


def fill_disk(folder: Path, leave: int) -> Path:
    """Fill the file system of `folder` up to about `leave` bytes; what fills it."""
    ballast, free = folder / "ballast", os.statvfs(folder)
    ballast.write_bytes(b"x" * max(0, free.f_bavail * free.f_frsize - leave))
    return ballast


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def prepare_processes() -> None:
    """Let the imports of later start()s begin, beside what is done meanwhile."""
    PROCESSES.set_forkserver_preload(["tests.training"])
    multiprocessing.forkserver.ensure_running()


def start(target, *words):
    """Another process that runs target(*words)."""
    process = PROCESSES.Process(target=target, args=words, daemon=True)
    process.start()
    return process


@exact_arithmetic()
def one_rank(rank: int, world: int, port: int, folder: Path, out: Path, changed: dict) -> None:
    """What torchrun would start: one rank of `world` that trains every kind, and then meets a NaN in its own share."""
    be_rank(rank, world, port)
    workers.start()
    for kind in KINDS:
        student = Parts(folder, kind, settings(**changed)).train(out / kind)
        torch.save(student.state_dict(), out / kind / f"rank{rank}.pt")
    parts = Parts(folder, "scores", settings(train_batch_size=13))
    parts.data.target[int(parts.data.lengths.argmax())] = float("nan")  # the longest example falls to rank 0
    try:
        parts.train(out / "nan")
    except NonFiniteLossError as error:
        (out / f"nan{rank}.txt").write_text(str(error))
    workers.stop()


@exact_arithmetic()
def stopped_run(folder: Path, kind: str, cfg, out: Path, at: int, ready, sent) -> None:
    """Train until batch `at`, then say `ready` and wait for whatever comes."""
    parts = Parts(folder, kind, cfg, dropout=True)
    try:
        parts.train(out, parts.stream(at, lambda: (ready.set(), sent.wait(60))), parts.restless_score)
    except Interrupted as error:
        (out / "stopped.txt").write_text(str(error))


def holding_run(cfg, ready, done) -> None:
    """Claim a run directory and hold it."""
    run_dir = RunDir(cfg.output_dir)
    run_dir.begin(cfg)
    ready.set(), done.wait(60)


@exact_arithmetic()
def one_rank_of_the_program(rank: int, world: int, port: int, words: list[str], said: Path) -> None:
    """What torchrun would start: one rank of the command line; its stderr goes into `said`. A build marks its place after
    every part."""
    be_rank(rank, world, port)
    build.MARK_SECONDS = 0.0
    with said.open("w") as file, contextlib.redirect_stderr(file):
        sys.exit(main(words))


def be_rank(rank: int, world: int, port: int) -> None:
    """Set what torchrun would set."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
