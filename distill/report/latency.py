"""How long a checkpoint takes per example: what bench/latency.py measured and left beside it."""

from dataclasses import dataclass
from pathlib import Path

from distill.rundir import read_json

FILE = "latency.json"
BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class Latency:
    """Milliseconds per example, one at a time and in batches of 32; whether other programs disturbed the measurement."""

    milliseconds: float
    batched_milliseconds: float
    disturbed: bool


def latency_file(run: Path) -> dict[str, dict]:
    """The content of the run's latency.json, by device (a processor with its threads); empty where there is none. Files that hold one
    measurement alone name its device in it."""
    file = run / FILE
    found = read_json(file) if file.is_file() else {}
    return {found["device"]: found} if "milliseconds" in found else found


def read_latencies(run: Path) -> dict[str, Latency]:
    """What measure_latency() wrote, by device. ValueError where the file is damaged."""
    try:
        return {device: Latency(*(float(found["milliseconds"][str(size)]) for size in BATCH_SIZES), found["disturbed"])
                for device, found in latency_file(run).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run / FILE} is damaged ({error!r}): remove it, `report latency` writes it again") from error
