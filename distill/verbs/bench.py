"""python -m distill bench [--parts training,cluster | --profile True] [--setting value ...]"""

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from distill import workers
from distill.bench import profile
from distill.bench.records import SpeedRecord, record_of, speed_table
from distill.bench.timing import calibrate, measure
from distill.config import FROM_1, Allowed, Settings, parse, setting
from distill.precision import check_precision
from distill.report import write_records
from distill.rundir import check_folder_of

PARTS = ("training", "cache", "attention", "cluster", "collect", "lookup", "packing")
LONG = ("dev_score", "words")  # whole runs, gigabytes: only where asked for
QUICK = {"steps": 3, "rounds": 2, "tokens": 20_000}
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchConfig(Settings):
    """What is measured, on what, and how often."""

    parts: str = setting(",".join(PARTS), f"the parts to measure, separated by commas; {', '.join(LONG)} (long, or of many GiB) besides")
    task: str = setting("demo", "whose training text; CoLA or SST-2 for the figures in README")
    data_dir: str = setting("./glue", "folder of the tasks")
    model: str = setting("minilm", "the encoder that is trained, and whose states are clustered")
    rounds: Annotated[int, FROM_1] = setting(5, "rounds of each side, after one to warm up")
    steps: Annotated[int, Allowed(lambda value: value >= 2, "2 or more")] = setting(16, "training steps in a round")
    tokens: Annotated[int, Allowed(lambda value: value >= 1000, "1000 or more")] = setting(400_000, "tokens of text whose states are clustered")
    quick: bool = setting(False, f"fewer: {', '.join(f'{name} {value}' for name, value in QUICK.items())}")
    bf16: bool | None = setting(None, "bfloat16 on our side; by default where the device multiplies it natively")
    fp16: bool = setting(False, "float16 on our side (CUDA)")
    profile: bool = setting(False, "instead: where the time of training steps and of a sense dictionary goes")
    records: str = setting("", "a file to add the records to, scripts/speed.jsonl for README's table; empty: none")

    def __post_init__(self):
        super().__post_init__()
        unknown = [part for part in self.parts.split(",") if part not in PARTS + LONG]
        if unknown:
            raise ValueError(f"--parts {self.parts}: no part {unknown[0]!r}; there are {', '.join(PARTS + LONG)}")
        check_folder_of(self.records, "--records")


def main(words: list[str]) -> None:
    """Measure every part and print a line for each comparison. One whose sides are not equal is not measured; the command
    goes on, and ends with an error that names it."""
    program = "python -m distill bench"
    cfg = parse(BenchConfig, words, program=program)
    cfg = parse(BenchConfig, words, QUICK, program) if cfg.quick else cfg  # what is given beside --quick holds
    check_precision(cfg, workers.device())
    if workers.world() > 1:
        raise ValueError("bench measures one process: start it without torchrun")
    if cfg.profile:
        for shares in profile.shares(cfg):
            print(shares)
        return
    machine = calibrate(workers.device())
    print(f"this machine: matrix products {machine.gemm_float32:,.0f} GFLOP/s in float32, {machine.gemm_bfloat16:,.0f} in "
          f"bfloat16; copying {machine.copy:.0f} GB/s")
    found, refused = [], []
    for part in cfg.parts.split(","):
        for comparison in importlib.import_module(f"distill.bench.{part}").comparisons(cfg):
            try:
                checked = comparison.check()
            except ValueError as error:
                refused.append(f"{comparison.part}: {error}")
                logger.error("not measured: %s", refused[-1])
                continue
            found.append(record_of(comparison, measure(comparison, cfg.rounds), checked, machine))
            say(found[-1])
            if cfg.records:
                write_records(Path(cfg.records), found[-1:])
    print(speed_table(found))
    if refused:
        raise ValueError("the two sides are not equal: " + "; ".join(refused))


def say(record: SpeedRecord) -> None:
    """One line: ratio, both rates with their medians, what was found equal."""
    logger.info("%s: %.2f times %s [%s; %.3g (median %.3g) against %.3g (%.3g) %s a second]%s", record.part, record.ratio,
                record.against, record.check, record.ours, record.ours_median, record.theirs, record.theirs_median,
                record.unit, "; others used the machine meanwhile" if record.disturbed else "")
