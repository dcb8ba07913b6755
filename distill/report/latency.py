"""How long a checkpoint takes per example: what bench/latency.py measured and left beside it."""

from dataclasses import dataclass
from pathlib import Path

from distill.rundir import read_json

FILE = "latency.json"
BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class Latency:
    """Milliseconds per example, one at a time and in batches of 32; the device, a processor with its threads; whether other
    programs disturbed the measurement."""

    alone: float
    batched: float
    device: str
    disturbed: bool


def read_latency(run: Path) -> Latency | None:
    """What measure_latency() wrote; None where it did not. ValueError where the file is damaged."""
    file = run / FILE
    if not file.is_file():
        return None
    try:
        found = read_json(file)
        alone, batched = (float(found["milliseconds"][str(size)]) for size in BATCH_SIZES)
        return Latency(alone, batched, found["device"], found["disturbed"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}): remove it, `report latency` writes it again") from error
