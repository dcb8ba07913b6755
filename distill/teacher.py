"""Teachers: what a student learns from. Live ones run at every step, cached ones ran once."""

import hashlib
import logging
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from data_utils.batching import collate, sequential_batches
from data_utils.encode import EncodedDataset
from distill import workers
from distill.precision import autocast, uses_bf16
from distill.progress import bar
from distill.rundir import whole_folder, write_folder
from distill.sharding import placed
from models.encoder import Encoder
from models.heads import SenseLookup
from models.outputs import Outputs
from models.weights import check_checksums

CACHE_TOKENS = 8192
NO_SENSE = 255  # in the cache, a byte per token
logger = logging.getLogger(__name__)


class Teacher(Protocol):
    """A plain object, not a module: never registered, saved or wrapped with the student. Gives no gradient."""

    def __call__(self, batch) -> Outputs: ...


class LiveTeacher:
    """Runs the encoder, in eval mode and without gradient, and names each token's sense where `senses` are given.

    Outputs: logits, hidden, and senses [B, T] (the index of the best sense of the last hidden state, -1 for none).
    """

    def __init__(self, encoder: Encoder, senses: SenseLookup | None, cfg):
        self.encoder = placed(encoder.eval().requires_grad_(False), cfg.fsdp)
        self.senses = senses.to(workers.device()) if senses is not None else None
        self.cfg = cfg

    @torch.no_grad()
    def __call__(self, batch) -> Outputs:
        with autocast(self.cfg, workers.device()):
            outputs = self.encoder(batch)
        labels = None if self.senses is None else self.senses.labels(outputs.hidden[-1], batch.input_ids)
        return Outputs(outputs.logits, outputs.hidden, senses=labels)


class CachedTeacher:
    """Looks up by uid what a LiveTeacher gave for a dataset: logits, and a byte per token for its sense.

    ValueError for an example that it does not hold.
    """

    def __init__(self, folder: Path):
        self.logits = torch.from_numpy(np.load(folder / "logits.npy"))
        self.senses = np.load(folder / "senses.npy", mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy")
        self.row_of = {int(uid): row for row, uid in enumerate(np.load(folder / "uid.npy"))}

    def __call__(self, batch) -> Outputs:
        try:
            rows = np.array([self.row_of[int(uid)] for uid in batch.uid])
        except KeyError as error:
            raise ValueError(f"the teacher's cache does not hold example {error}: it was made for another split or "
                             "dataset") from error
        width = batch.input_ids.shape[1]
        labels_BT = np.full((len(rows), width), -1, np.int64)
        for line, row in enumerate(rows):
            senses = self.senses[self.offsets[row]:self.offsets[row + 1]]
            labels_BT[line, :len(senses)] = np.where(senses == NO_SENSE, -1, senses.astype(np.int64))
        device = batch.input_ids.device
        return Outputs(self.logits[rows].to(device), senses=torch.from_numpy(labels_BT).to(device))


def cache_key(weights: str, senses: str, dataset: EncodedDataset, cfg) -> str:
    """What a cache is valid for: teacher weights, dictionary, token ids of every example, arithmetic."""
    digest = hashlib.sha256(f"{weights} {senses} {uses_bf16(cfg, workers.device())} {cfg.fp16}".encode())
    for array in (dataset.uid, dataset.offsets, dataset.ids, dataset.second):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def cached_teacher(teacher: LiveTeacher, dataset: EncodedDataset, folder: Path) -> CachedTeacher:
    """The cache of `teacher` over `dataset` in `folder`, built where it is not there yet, whole or not at all."""
    logits, senses = [], []
    if not workers.any_rank(workers.is_main() and _is_whole(folder)):
        logger.info("running the teacher once over %d examples", len(dataset))
        mine = workers.share(sequential_batches(dataset.lengths, CACHE_TOKENS))
        with bar(len(mine), "teacher", "batch") as progress_bar:
            for rows in mine:
                batch = collate(dataset, rows, teacher.encoder.info.task, teacher.encoder.tokenizer.pad_token_id)
                found = teacher(batch.to(workers.device()))
                logits.append(found.logits.float().cpu().numpy())
                senses.append(found.senses.cpu().numpy())
                progress_bar.update()
        parts = [part for rank in workers.gather(list(zip(mine, logits, senses, strict=True))) for part in rank]
        workers.on_main(lambda: write_folder(folder, lambda path: _fill(path, dataset, parts)))
    return CachedTeacher(folder)


def _is_whole(folder: Path) -> bool:
    if whole_folder(folder) is None:
        return False
    try:
        check_checksums(folder)
    except ValueError as error:
        logger.warning("%s; making the cache again", str(error))
        return False
    return True


def _fill(folder: Path, dataset: EncodedDataset, parts: list) -> None:
    logits = np.empty((len(dataset), parts[0][1].shape[1]), np.float32)
    senses = np.empty(len(dataset.ids), np.uint8)
    for rows, logits_BC, senses_BT in parts:
        logits[rows] = logits_BC
        for line, row in enumerate(rows):
            start, end = dataset.offsets[row:row + 2]
            labels = senses_BT[line, :end - start]
            assert labels.max(initial=0) < NO_SENSE
            senses[start:end] = np.where(labels < 0, NO_SENSE, labels)
    for name, array in {"logits": logits, "senses": senses, "offsets": dataset.offsets, "uid": dataset.uid}.items():
        np.save(folder / f"{name}.npy", array)
