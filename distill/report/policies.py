"""What a curriculum's policy came to draw: beside the scores, whether it learned anything at all."""

from pathlib import Path
from statistics import mean

from distill.rundir import RunDir, read_json

SPLIT, METRIC = "policy", "main task"
LATEST = 10  # episodes in the mean
TABLES = "_policies"  # after the name of a table of scores: the table of their policies


def policy_of(run: Path, task: str) -> dict[str, float]:
    """{"policy/main task": the probability with which a learned policy drew its main `task`, the mean over the last episodes};
    {} of a run without one."""
    shares = [line["policy"][task] for line in RunDir(run).logged() if "policy" in line]
    learned = shares and read_json(run / "config.json")["policy"] == "learned"
    return {f"{SPLIT}/{METRIC}": mean(shares[-LATEST:])} if learned else {}
