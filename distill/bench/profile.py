"""Where the time of training and of building a sense dictionary goes, in percent."""

import cProfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from data_utils.batching import TrainStream
from data_utils.tasks import get_task
from distill import engine, kmeans
from distill.bench.corpus import encoder_for, sentences
from distill.bench.engine_rounds import logged
from distill.bench.training import BATCH, LEARNING_RATE
from distill.recipes.finetune import LabelObjective
from distill.rundir import RunDir
from distill.senses import build
from distill.senses.dictionary import SenseDictionary
from models.encoder import Encoder

STEP = {"waiting for the batch": TrainStream.next, "forward": engine.StepModule.forward, "backward": torch.Tensor.backward,
        "clipping and optimiser": engine._update, "saving at the end": engine.save_last}
BUILD = {"tokenising": build.tokenise_corpus, "sampling": build.sample_occurrences, "the teacher": Encoder.encode,
         "keeping states": build.keep_sampled, "padding": kmeans.padded_batch, "seeding": kmeans.greedy_seeds,
         "Lloyd's iteration": kmeans.lloyd_runs, "centring": kmeans._centre, "centroids": kmeans._finish,
         "saving": SenseDictionary.save}
KINDS = {"matrix products": ("mm", "addmm", "bmm", "baddbmm"), "attention": ("scaled_dot_product",),
         "dropout": ("dropout", "bernoulli"), "optimiser": ("_fused_", "_foreach_"), "GELU, normalisation, tanh":
         ("gelu", "layer_norm", "tanh"), "word embeddings": ("embedding", "index_select"), "copies and casts": ("copy_", "fill_", "zero_")}


@dataclass(frozen=True)
class Shares:
    """`percent` of `seconds` by part; what belongs to no part is "all else"."""

    what: str
    seconds: float
    percent: dict[str, float]

    def __str__(self) -> str:
        lines = [f"  {percent:5.1f} %  {part}" for part, percent in sorted(self.percent.items(), key=lambda item: -item[1])]
        return "\n".join([f"{self.what}: {self.seconds:.2f} s", *lines])


def shares(cfg) -> Iterator[Shares]:
    """Of cfg.steps training steps by stage, and by kind of operation; of a build over about cfg.tokens tokens by stage."""
    task = get_task(cfg.task)
    encoder = encoder_for(cfg, task)
    data = sentences(cfg, encoder, task)
    stream = TrainStream(data, task.name, encoder.tokenizer.pad_token_id, BATCH, seed=0)

    def train() -> None:
        logged(encoder, LabelObjective(task), stream, cfg.steps, [stream.dataset], learning_rate=LEARNING_RATE, bf16=cfg.bf16, fp16=cfg.fp16)

    train()
    yield by_function(f"{cfg.steps} training steps on {task.name}", train, STEP)
    yield by_operation(f"{cfg.steps} training steps on {task.name}, operations", train)
    settings = build.SenseConfig(data_dir=cfg.data_dir, bf16=cfg.bf16, fp16=cfg.fp16)
    with tempfile.TemporaryDirectory() as folder:
        yield by_function(f"a sense dictionary of {task.name}",
                          lambda: build.build(settings, task, encoder, RunDir(Path(folder)), {}), BUILD)


def by_function(what: str, work: Callable[[], object], parts: dict[str, Callable]) -> Shares:
    """Time in each function and all that it calls; the functions must not call each other."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    found = {(entry.code.co_filename, entry.code.co_firstlineno): entry.totaltime for entry in profiler.getstats()
             if not isinstance(entry.code, str)}
    total = max(found.values())
    seconds = {part: found.get((function.__code__.co_filename, function.__code__.co_firstlineno), 0.0)
               for part, function in parts.items()}
    return _shares(what, total, seconds)


def by_operation(what: str, work: Callable[[], object]) -> Shares:
    """Time of torch's operations themselves, by KINDS; "all else" holds Python's as well."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        work()
    events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]  # kernels are counted with who called them
    cuda = torch.cuda.is_available()
    own = {event.key: (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6 for event in events}
    seconds = {kind: sum(time for name, time in own.items() if any(word in name for word in words))
               for kind, words in KINDS.items()}
    return _shares(what, sum(own.values()), seconds)


def _shares(what: str, total: float, seconds: dict[str, float]) -> Shares:
    percent = {part: 100 * value / total for part, value in seconds.items()}
    return Shares(what, total, {**percent, "all else": 100 - sum(percent.values())})
