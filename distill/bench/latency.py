"""How long a checkpoint takes per example, measured on the task's own texts."""

import statistics
from pathlib import Path

import numpy as np
import torch

from data_utils.batching import collate
from data_utils.tasks import get_task
from distill import workers
from distill.bench.timing import OTHERS_AT_MOST, OtherLoad, timed
from distill.evaluate import encode_split
from distill.progress import bar
from distill.report.latency import BATCH_SIZES, FILE, latency_file, read_latencies
from distill.rundir import device_name, write_json
from models.checkpoint import load_encoder

WARM_UP = 3  # batches that are not counted: the first ones also allocate
FEWEST = 5   # batches that are counted, however long they take
LIMIT = 60.0  # seconds for a batch size: long texts on a processor would take many minutes


@torch.no_grad()  # inference mode has no tensor versions, which fast attention looks at
def measure_latency(run: Path, data_dir: str, batches: int = 50) -> dict:
    """Milliseconds per example of the checkpoint in the run directory `run`, float32, alone and in batches of 32: the median over
    `batches` batches, or those that LIMIT seconds allow, drawn from the first dev split with its own lengths and padded to their
    longest text; the same batches for every run.

    Written into the run directory, into latency.json beside those of other devices, and returned: "milliseconds" and "batches" by batch size, "tokens" (mean length of
    the texts), the split, the device with its threads, and whether other programs disturbed the measurement.
    """
    read_latencies(run)  # a damaged file is refused before the minutes that this takes
    encoder = load_encoder(run / "best").to(workers.device()).eval()
    task = get_task(encoder.info.task)
    data = encode_split(encoder, task, task.dev_splits[0], data_dir)
    watch, found, counted = OtherLoad(), {}, {}
    with bar(len(BATCH_SIZES) * (WARM_UP + batches), f"time {run}", "batch") as progress_bar:
        for size in BATCH_SIZES:
            draw, seconds = np.random.default_rng([0, size]), []
            while len(seconds) < WARM_UP + batches and (len(seconds) < WARM_UP + FEWEST or sum(seconds) < LIMIT):
                batch = collate(data, draw.integers(0, len(data), size), task.name, encoder.tokenizer.pad_token_id)
                batch = batch.to(workers.device())
                seconds.append(timed(lambda: encoder(batch), size)()[1])
                progress_bar.update()
            found[str(size)], counted[str(size)] = 1000 * statistics.median(seconds[WARM_UP:]) / size, len(seconds) - WARM_UP
    latency = {"milliseconds": found, "task": task.name, "split": task.dev_splits[0], "tokens": float(data.lengths.mean()),
               "batches": counted, "device": device_name(), "threads": torch.get_num_threads(),
               "disturbed": watch.share() > OTHERS_AT_MOST}
    write_json(run / FILE, {**latency_file(run), latency["device"]: latency})
    return latency
