"""Building a sense dictionary: count, sample, collect, cluster. Killed at any moment, the same command goes on.

    work/corpus    token ids on disk, counts            count
    work/vectors   [S, D] float16, S the sample         collect: one teacher pass, rows of a type together (states.py)
    work/centroids [N, D] float16                       cluster: all types, in groups of similar size
Every stage writes to places that are known before it starts, so doing a part twice changes nothing.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from data_utils.batching import collate, sequential_batches
from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill import workers
from distill.config import FROM_0, FROM_1, Settings, one_of, setting
from distill.evaluate import check_length
from distill.kmeans import GROUP_BYTES, kmeans, plan_groups
from distill.precision import autocast, check_precision
from distill.progress import bar
from distill.rundir import RunDir, read_json, write_folder, write_json
from distill.senses.corpus import open_corpus, tokenise_corpus
from distill.senses.dictionary import FILE, SenseDictionary
from distill.senses.sample import Sample, sample_occurrences
from distill.senses.states import DeviceStates, MappedStates, mapped_array, sampled_states
from distill.sharding import placed
from models.encoder import Encoder
from models.heads import SIMILARITIES

MARK_SECONDS = 20.0  # a killed build repeats at most this much
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SenseConfig(Settings):
    """Settings of a build. Published: num_senses 20, cap 1000, the last layer, the dot product (arXiv 2504.06036)."""

    output_dir: str = setting("./runs/senses", "the folder of the dictionary")
    teacher: str = setting("./runs/teacher/best", "checkpoint folder of the teacher")
    data_dir: str = setting("./glue", "folder of the tasks")
    corpus: str = setting("task", "whose tokens: task (its train set), glue (all train sets there), or a text/JSON file")
    num_senses: Annotated[int, FROM_1] = setting(20, "senses per type; a type with no more occurrences keeps its vectors as they are")
    cap: Annotated[int, FROM_1] = setting(1000, "sampled occurrences per type")
    layer: int = setting(-1, "hidden states of this layer: 0 the embeddings, -1 the last layer")
    similarity: Annotated[str, one_of(SIMILARITIES)] = setting(
        "distance", "a state's sense is the nearest (distance), or that of the largest dot product (dot)")
    max_length: Annotated[int, FROM_1] = setting(128, "tokens per sequence")
    restarts: Annotated[int, FROM_1] = setting(1, "k-means runs per type; the best is kept")
    seed: Annotated[int, FROM_0] = setting(42, "seed of sample and clustering")
    max_tokens: Annotated[int, FROM_0] = setting(0, "padded tokens per teacher batch; 0: what suits the device")
    bf16: bool | None = setting(None, "bfloat16 teacher; by default where the device multiplies it natively")
    fp16: bool = setting(False, "float16 teacher (CUDA)")
    fsdp: bool = setting(False, "shard the teacher over the ranks of torchrun, where it does not fit one device")

    def __post_init__(self):
        super().__post_init__()
        if self.bf16 and self.fp16:
            raise ValueError("--bf16 and --fp16 together: choose one")
        if self.cap < self.num_senses:
            raise ValueError(f"--cap {self.cap} is below --num_senses {self.num_senses}: there would be nothing to cluster")


def text_order(teacher: Encoder, task: Task) -> list[int]:
    """The order in which the teacher reads the texts of `task`, which is its own."""
    return [task.texts.index(name) for name in teacher.info.texts] if set(teacher.info.texts) == set(task.texts) else []


def build(cfg: SenseConfig, task: Task, teacher: Encoder, run_dir: RunDir, provenance: dict[str, str]) -> SenseDictionary:
    """The sense dictionary of `teacher` over the corpus, also written to run_dir. Every rank returns it."""
    check_precision(cfg, workers.device())
    check_length(teacher, cfg.max_length)
    if not -teacher.depth - 1 <= cfg.layer <= teacher.depth:
        raise ValueError(f"--layer {cfg.layer}: the teacher has the layers 0 (the embeddings) to {teacher.depth}, counted from "
                         f"the last -1 to {-teacher.depth - 1}")
    work = run_dir.path / "work"

    def tokenise(folder: Path) -> None:
        tokenise_corpus(cfg.corpus, task, cfg.data_dir, teacher.tokenizer, cfg.max_length, teacher.config.vocab_size, folder, text_order(teacher, task))

    workers.on_main(lambda: (work / "corpus").exists() or write_folder(work / "corpus", tokenise))
    corpus, counts = open_corpus(work / "corpus")
    sample = sample_occurrences(corpus, counts, cfg.cap, cfg.seed)
    width = teacher.width_of(cfg.layer)
    states = sampled_states(work / "vectors.bin", (len(sample.row), width))
    collect(cfg, teacher, corpus, sample, states, work)
    sizes = np.minimum(np.diff(sample.offsets), cfg.num_senses)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    centroids = mapped_array(work / "centroids.bin", (int(offsets[-1]), width), np.float16)
    cluster(cfg, states, sample.offsets, centroids, offsets, work)
    _check_finite(centroids, offsets, teacher.tokenizer)
    facts = {f"corpus_{key}": str(value) for key, value in read_json(work / "corpus" / "corpus.json").items()}
    dictionary = SenseDictionary(torch.from_numpy(np.asarray(centroids)), torch.from_numpy(offsets),
                                 torch.from_numpy(counts.astype(np.int32)), {**provenance, "corpus": cfg.corpus, **facts})
    workers.on_main(lambda: dictionary.save(run_dir.path / FILE))
    return SenseDictionary.load(run_dir.path / FILE)


def _check_finite(centroids: np.ndarray, offsets: np.ndarray, tokenizer) -> None:
    """ValueError naming the types whose senses are no numbers."""
    broken = [token for token, (start, end) in enumerate(zip(offsets, offsets[1:])) if not np.isfinite(centroids[start:end]).all()]
    if broken:
        raise ValueError(f"the teacher's hidden states of {len(broken)} types ({', '.join(tokenizer.convert_ids_to_tokens(broken[:5]))}) are not "
                         "finite: it has diverged, or half precision has overflowed. Train it again, or build with --fp16 False --bf16 False "
                         "in another --output_dir")


def _resumable(parts: list[np.ndarray], work: Path, stage: str, states: MappedStates | DeviceStates,
               flush: Callable[[], bool]) -> Iterator[np.ndarray]:
    """This rank's share of `parts`, from where the slowest rank of a killed build of as many stood, under a progress bar.
    `flush` brings what was made to the disk; where it says False, nothing is there to go on from. The mark says what it counts:
    another device makes other parts, and states that are kept elsewhere are not there; then the stage starts again."""
    mine = workers.share(parts)
    counted = {"parts": len(parts), "digest": _digest(parts), "device": workers.device().type, "states": states.place}
    mark = work / f"{stage}.{workers.rank()}of{workers.world()}.json"
    found = read_json(mark) if mark.exists() else {"done": 0, "of": counted}
    if found.get("of") != counted:
        logger.info("%s was begun on another device, in other parts or with its states kept elsewhere: it starts again", stage)
        found = {"done": 0}
    done = min(workers.gather(found["done"]))
    marked = time.monotonic()
    with bar(len(mine), stage, "part", done) as progress_bar:
        for index in range(done, len(mine)):
            yield mine[index]
            progress_bar.update()
            if time.monotonic() - marked > MARK_SECONDS or index == len(mine) - 1:
                if flush():
                    write_json(mark, {"done": index + 1, "of": counted})
                marked = time.monotonic()
    workers.barrier()


def _digest(parts: list[np.ndarray]) -> str:
    digest = hashlib.sha256(np.array([len(part) for part in parts]).tobytes())
    for part in parts:
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def collect(cfg: SenseConfig, teacher: Encoder, corpus: EncodedDataset, sample: Sample, states: MappedStates | DeviceStates,
            work: Path) -> None:
    """Write the hidden state of every sampled occurrence to its row of `states`; sequences without one are not read."""
    placed(teacher.eval(), cfg.fsdp)
    used = np.flatnonzero(sample.held(corpus) > 0)
    batches = [used[rows] for rows in sequential_batches(corpus.lengths[used], cfg.max_tokens or workers.batch_tokens())]
    for rows in _resumable(batches, work, "collect", states, states.flush):
        batch = collate(corpus, rows, teacher.info.task, teacher.tokenizer.pad_token_id).to(workers.device())
        with autocast(cfg, workers.device()):
            hidden_BTD = teacher(batch).hidden[cfg.layer]
        keep_sampled(hidden_BTD, rows, corpus, sample, states)


def keep_sampled(hidden_BTD: torch.Tensor, sequences: np.ndarray, corpus: EncodedDataset, sample: Sample,
                 states: MappedStates | DeviceStates) -> None:
    """Write the sampled positions of the hidden states of `sequences` to their rows of `states`."""
    line, column, row = sample.of(sequences, corpus)
    states.put(row, hidden_BTD.flatten(0, 1), line * hidden_BTD.shape[1] + column)


def cluster(cfg: SenseConfig, states: MappedStates | DeviceStates, starts: np.ndarray, centroids: np.memmap,
            offsets: np.ndarray, work: Path) -> None:
    """Cluster the states of each type into its senses; types with no more than num_senses states keep them raw."""
    counts = np.diff(starts)
    raw = np.flatnonzero((counts > 0) & (counts <= cfg.num_senses))
    for token in raw:
        centroids[offsets[token]:offsets[token + 1]] = states.rows(starts[token], starts[token + 1])
    groups = plan_groups(counts, cfg.num_senses, centroids.shape[1], GROUP_BYTES[workers.device().type])
    for group in _resumable(groups, work, "cluster", states, lambda: centroids.flush() is None):
        found = kmeans(states.problems(starts, counts, group),
                       torch.from_numpy(counts[group]).to(workers.device()),
                       torch.from_numpy(group).to(workers.device()), cfg.num_senses, seed=cfg.seed,
                       restarts=cfg.restarts).centroids_TKD.half().cpu().numpy()
        for line, token in enumerate(group):
            centroids[offsets[token]:offsets[token + 1]] = found[line]
