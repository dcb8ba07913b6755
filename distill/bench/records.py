"""Records of measurements, one line of scripts/speed.jsonl each, and the table that is rendered from them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill.bench.timing import Comparison, Machine, Timing
from distill.report import portable
from distill.rundir import origin

SPREAD = 0.1  # between best and median rounds, before a reader is told of it

@dataclass(frozen=True)
class SpeedRecord:
    """One comparison: rates per second in `unit`, the machine's peak in the same run, and how to make it again."""

    part: str
    against: str
    unit: str
    ratio: float
    ours: float
    ours_median: float
    theirs: float
    theirs_median: float
    rounds: int
    check: str
    disturbed: bool
    peak_percent: float | None
    gemm_float32: float
    gemm_bfloat16: float
    copy: float
    threads: int
    device: str
    command: str
    commit: str | None

    @property
    def key(self) -> tuple:
        """What the record is about: the comparison and the device."""
        return self.part, self.against, self.device


def record_of(comparison: Comparison, timing: Timing, checked: str, machine: Machine) -> SpeedRecord:
    """The record of a comparison that was measured on this machine by this command."""
    facts = origin(sys.argv)
    peak = machine.gemm_bfloat16 if comparison.bfloat16 else machine.gemm_float32
    percent = 100 * timing.ours * comparison.flops / 1e9 / peak if comparison.flops else None
    return SpeedRecord(comparison.part, comparison.against, comparison.unit, timing.ratio, timing.ours, timing.ours_median,
                       timing.theirs, timing.theirs_median, timing.rounds, checked, timing.disturbed, percent,
                       machine.gemm_float32, machine.gemm_bfloat16, machine.copy, torch.get_num_threads(),
                       facts["device"], portable(facts["command"]), facts["commit"])


def speed_table(records: Sequence[SpeedRecord]) -> str:
    """A markdown table: what, against what, the ratio of the best rounds, our rate, what was found equal. Where the median rounds have
    another ratio by more than SPREAD, it is given too; disturbed runs are marked."""
    lines = ["| on | what | against | ratio | ours, per second | of the GEMM peak | equal |", "|---" * 7 + "|"]
    for record in records:
        medians = record.ours_median / record.theirs_median
        mark = f" ({medians:.2f} by medians)" if abs(medians / record.ratio - 1) > SPREAD else ""
        mark += " (disturbed)" if record.disturbed else ""
        percent = "-" if record.peak_percent is None else f"{record.peak_percent:.0f} %"
        lines.append(f"| {record.device} | {record.part} | {record.against} | {record.ratio:.2f}{mark} | "
                     f"{record.ours:,.0f} {record.unit} | {percent} | {record.check} |")
    return "\n".join(lines)
