"""A teacher's outputs over a dataset, computed once and read by uid: what the student's loss needs, and no more.

    FOLDER/ uid.npy [N]  offsets.npy [N + 1]  columns.txt (name, type, rows, width of each)
            logits.bin  cls.N.bin                                       a row per example, float32
            token_logits.bin                                            a row per token, float32: in place of logits, where the
                                                                        teacher answers with a part of the text
            hidden.N.bin  query.N.bin  key.N.bin  value.N.bin           a row per token, float16
            senses.bin                                                  a number per token, -1 for none: int8 for up to 128

Files are mapped, not read: memory holds the rows of a batch. Float16 rounds a state by at most 0.05 %.
"""

import fcntl
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from data_utils.batching import collate, sequential_batches
from data_utils.encode import EncodedDataset
from distill import workers
from distill.arrays import mapped_array
from distill.precision import uses_bf16
from distill.progress import bar
from distill.rundir import SaveError, whole_folder, write_folder, write_text
from distill.sharding import is_sharded
from distill.teacher import LiveTeacher, Wanted
from models.heads import SenseLookup
from models.outputs import PADDING_LOGIT, Outputs
from models.weights import check_checksums

WAIT_SECONDS = 1
PROJECTIONS = ("query", "key", "value")
TOKEN_LOGITS = "token_logits"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One file of a cache: a row of `width` numbers per example or per token, and where it is found in Outputs."""

    name: str
    per_token: bool
    width: int
    dtype: type | np.dtype
    of: Callable[[Outputs], Tensor]  # [B, width], or [B, T, width]

    def rows(self, dataset: EncodedDataset) -> int:
        return len(dataset.ids) if self.per_token else len(dataset)

    def bytes(self, dataset: EncodedDataset) -> int:
        return self.rows(dataset) * self.width * np.dtype(self.dtype).itemsize


def columns(teacher: LiveTeacher) -> list[Column]:
    """The columns of what `teacher` is wanted for."""
    encoder, wanted = teacher.encoder, teacher.wanted

    choices = encoder.info.choices or 1
    spans = encoder.info.spans
    found = [Column(TOKEN_LOGITS if spans else "logits", spans, encoder.info.num_logits, np.float32, lambda outputs: outputs.logits)]
    if wanted.senses:
        found.append(Column("senses", True, 1, sense_type(teacher.senses), lambda outputs: outputs.senses.unsqueeze(-1)))
    found += [Column(f"cls.{layer}", False, choices * encoder.width_of(layer), np.float32,
                     lambda outputs, layer=layer: outputs.hidden[layer][:, 0].unflatten(0, (-1, choices)).flatten(1))
              for layer in wanted.cls]
    found += [Column(f"hidden.{layer}", True, encoder.width_of(layer), np.float16, lambda outputs, layer=layer: outputs.hidden[layer])
              for layer in wanted.hidden]
    found += [Column(f"{kind}.{layer}", True, encoder.config.hidden_size, np.float16,
                     lambda outputs, layer=layer, place=place: outputs.projections[layer][place])
              for layer in wanted.projections for place, kind in enumerate(PROJECTIONS)]
    return found


def sense_type(lookup: SenseLookup) -> np.dtype:
    """The smallest type that numbers the senses of every type of `lookup`, and holds -1."""
    return np.min_scalar_type(-lookup.max_senses)


def cache_bytes(teacher: LiveTeacher, dataset: EncodedDataset) -> int:
    """The size that the cache of `teacher` over `dataset` has on the disk."""
    return sum(column.bytes(dataset) for column in columns(teacher))


def cache_key(teacher: str, senses: str, dataset: EncodedDataset, cfg, wanted: Wanted) -> str:
    """What a cache is valid for: the teacher (its weights, what its head reads), the dictionary, token ids of every example, arithmetic, what it holds."""
    digest = hashlib.sha256(f"{teacher} {senses} {uses_bf16(cfg, workers.device())} {cfg.fp16} {wanted}".encode())
    for array in (dataset.uid, dataset.offsets, dataset.ids, dataset.second):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class CachedTeacher:
    """Looks up by uid what a LiveTeacher gave for a dataset, with the same fields of Outputs.

    ValueError for an example that it does not hold.
    """

    def __init__(self, folder: Path):
        self.bounds = np.load(folder / "offsets.npy")
        self.row_of = {int(uid): row for row, uid in enumerate(np.load(folder / "uid.npy"))}
        lines = (line.split() for line in (folder / "columns.txt").read_text().splitlines())
        self.columns = {name: np.memmap(folder / f"{name}.bin", dtype, "r", shape=(int(rows), int(width)))
                        for name, dtype, rows, width in lines}
        self.of_tokens = any(name.partition(".")[0] not in ("logits", "cls") for name in self.columns)

    def __call__(self, batch) -> Outputs:
        try:
            rows = np.array([self.row_of[uid] for uid in batch.uid.tolist()])
        except KeyError as error:
            raise ValueError(f"the teacher's cache does not hold example {error}: it was made for another split or "
                             "dataset") from error
        device = batch.input_ids.device
        real = batch.attention_mask.bool().numpy(force=True) if self.of_tokens else None  # a GPU is waited for

        def examples(name: str) -> Tensor:
            return torch.from_numpy(self.columns[name][rows]).to(device)

        def tokens(name: str, fill: float = 0) -> Tensor:
            found_BTW = np.full((*real.shape, self.columns[name].shape[1]), fill, self.columns[name].dtype)
            found_BTW[real] = np.concatenate([self.columns[name][self.bounds[row]:self.bounds[row + 1]] for row in rows])
            return torch.from_numpy(found_BTW).to(device)

        hidden, projections, senses = {}, {}, None
        for name in self.columns:
            kind, _, layer = name.partition(".")
            if kind == "cls":
                hidden.setdefault(int(layer), examples(name).view(len(batch.input_ids), 1, -1))
            elif kind == "hidden":
                hidden[int(layer)] = tokens(name).float()
            elif kind == PROJECTIONS[0]:
                projections[int(layer)] = tuple(tokens(f"{part}.{layer}").float() for part in PROJECTIONS)
            elif kind == "senses":
                senses = tokens(name, -1).squeeze(-1).long()
        layers = range(max(hidden, default=-1) + 1)
        logits = tokens(TOKEN_LOGITS, PADDING_LOGIT) if TOKEN_LOGITS in self.columns else examples("logits")
        return Outputs(logits, tuple(hidden.get(layer) for layer in layers), projections, senses)


def cached_teacher(teacher: LiveTeacher, dataset: EncodedDataset, folder: Path) -> CachedTeacher:
    """The cache of `teacher` over `dataset` in `folder`, built where it is not there yet, whole or not at all.

    Of several runs that want the same one, the first makes it and the others wait.
    """
    with _turn(folder):
        if not workers.any_rank(workers.is_main() and _is_whole(folder)):
            logger.info("running the teacher once over %d examples", len(dataset))
            _build(teacher, dataset, folder)
    return CachedTeacher(folder)


def _build(teacher: LiveTeacher, dataset: EncodedDataset, folder: Path) -> None:
    """Every rank writes the rows of its share; the first makes the folder of them."""
    building, wanted = folder.with_name(folder.name + ".building"), columns(teacher)
    arrays = {column: mapped_array(building / f"{column.name}.bin", (column.rows(dataset), column.width), column.dtype)
              for column in wanted}
    mine = workers.share(sequential_batches(dataset.sizes, workers.batch_tokens()))

    def keep(rows: np.ndarray) -> None:
        batch = collate(dataset, rows, teacher.encoder.info.task, teacher.encoder.tokenizer.pad_token_id)
        found, real = teacher(batch.to(workers.device())), batch.attention_mask.bool()
        place = np.concatenate([np.arange(dataset.bounds[row], dataset.bounds[row + 1]) for row in rows])
        for column, array in arrays.items():
            values = column.of(found).float().cpu()
            array[place if column.per_token else rows] = (values[real] if column.per_token else values).numpy()

    with bar(len(mine), "teacher", "batch") as progress_bar:
        for rows in mine:
            workers.where_it_fits(keep, rows, is_sharded(teacher.encoder))
            progress_bar.update()
    for array in arrays.values():
        array.flush()
    workers.gather(None)  # every rank has written

    def fill(path: Path) -> None:
        for column in wanted:
            (building / f"{column.name}.bin").replace(path / f"{column.name}.bin")
        np.save(path / "offsets.npy", dataset.bounds)
        np.save(path / "uid.npy", dataset.uid)
        write_text(path / "columns.txt", "".join(f"{column.name} {np.dtype(column.dtype).name} {column.rows(dataset)} {column.width}\n"
                                                 for column in wanted))

    workers.on_main(lambda: write_folder(folder, fill))
    workers.on_main(lambda: shutil.rmtree(building, ignore_errors=True))


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other run is making this cache. Ranks ask together, again and again: one that waits for another in a
    collective runs into its time limit."""
    opened: list[IO] = []
    workers.on_main(lambda: opened.append(_open_lock(folder)))
    with opened[0] if opened else nullcontext():
        said = False
        while workers.any_rank(any(map(_is_taken, opened))):
            if not said:
                logger.info("waiting for another run, which is making the teacher's cache %s", folder)
            said = True
            time.sleep(WAIT_SECONDS)
        yield


def _open_lock(folder: Path) -> IO:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder.with_name(folder.name + ".lock").open("w")
    except OSError as error:
        raise SaveError(f"cannot make the teacher's cache in {folder.parent} ({error.strerror}): name another folder with "
                        "--cache_dir") from error


def _is_taken(lock: IO) -> bool:
    """Whether another run holds the lock; if not, this one does from now on, until it closes the file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _is_whole(folder: Path) -> bool:
    if whole_folder(folder) is None:
        return False
    try:
        check_checksums(folder)
    except ValueError as error:
        logger.warning("%s; making the cache again", str(error))
        return False
    return True
