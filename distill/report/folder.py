"""The runs below a folder: which there are, which are left out, and why.

A run's system, its row in the table, is its path below the folder without the parts that name its seed (`seed-3`) or its
task: CoLA/pkd/seed-3, pkd/CoLA/seed-3 and seed-3/CoLA/pkd are all `pkd`. Where nothing is left, the folder's own name.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from data_utils.tasks import Task, get_task, normalise
from distill.report import is_pretrained
from distill.report.latency import Latency, read_latencies
from distill.rundir import MOVABLE, read_json, stage_of
from distill.scores import Predictions, Scores, load_predictions
from distill.seeds import FOLDER, runs_by_seed
from models.weights import stored_parameter_counts

SEED_FOLDER = re.compile(rf"{FOLDER}\d+")


@dataclass(frozen=True)
class Run:
    """A finished run, in `path`; or, without one, an answer that nothing was trained for (constant.py).

    `parameters` (embeddings included), `body` (the same without them) and `size` (bytes of the weights, and of the senses that a head
    reads) are None where they are not known; `latencies`, by device, and `predictions`, by split, are empty where they were not measured
    or kept, or cannot be read."""

    path: Path | None
    row: str
    task: Task
    seed: int | None
    config: dict
    data: dict[str, str]
    scores: Scores
    parameters: int | None
    body: int | None
    size: int | None
    latencies: dict[str, Latency]
    predictions: dict[str, Predictions]


def is_run(folder: Path) -> bool:
    """Whether `folder` is the directory of a training run, finished, unfinished or damaged; sense dictionaries are none."""
    files = [folder / name for name in ("config.json", "origin.json")]
    return all(file.is_file() for file in files) and '"num_senses"' not in files[0].read_text(errors="replace")


def runs_in(folder: Path) -> list[Path]:
    """The run directory `folder`, or the runs of a folder of seeds (seed-0, seed-1 ...); ValueError where it is neither."""
    if is_run(folder):
        return [folder]
    found = [run for run in runs_by_seed(folder).values() if is_run(run)]
    if not found:
        raise ValueError(f"{folder} is neither a run directory nor a folder of seeds (seed-0, seed-1 ...): expected what "
                         "`python -m distill train` wrote")
    return found


def find_runs(*folders: Path) -> tuple[list[Run], list[str]]:
    """The finished runs below the folders, and a line for each that is left out and for each doubt about the others. Of several
    folders the rows are named as seen from the folder that holds them all.

    A run inside of a run, a stage of it, is part of that, and so is a stage that several share. ValueError where one is no folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}: expected one with run directories below it")
    if len(folders) > 1:
        folders = tuple(Path(os.path.abspath(folder)) for folder in folders)
    folder = Path(os.path.commonpath(folders))
    runs: dict[tuple, Run] = {}
    notes = []
    found = {file.parent for given in folders for file in given.rglob("origin.json") if is_run(file.parent)}
    for path in (path for path in _outermost(sorted(found)) if not stage_of(path)):
        try:
            run = read_run(path, folder, notes)
            twin = runs.setdefault((run.row, run.task.name, run.seed), run)
            if twin is not run:
                raise ValueError(f"it has row, task and seed of {twin.path}: move one of them away")
        except ValueError as error:
            notes.append(f"left out {path}: {error}")
    return list(runs.values()), [*notes, *_doubts(list(runs.values()))]


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """`folders`, sorted, without those that lie inside of another one."""
    found: list[Path] = []
    for folder in folders:
        if not any(outer in folder.parents for outer in found):
            found.append(folder)
    return found


def read_run(path: Path, folder: Path, notes: list[str]) -> Run:
    """The run in `path`, named as seen from `folder`. ValueError saying why it cannot be used; what only makes it less
    useful is added to `notes`."""
    if not (path / "DONE").exists():
        raise ValueError("unfinished: the same command resumes it")
    if is_pretrained(path / "best"):
        raise ValueError("it answers no task, it was pre-trained: fine-tune its best/, with `sh scripts/finetune.sh TASK`")
    try:
        config, origin, info = (read_json(path / name) for name in ("config.json", "origin.json", "best/task.json"))
        task, version, seed = get_task(info["task"]), info["version"], int(config["seed"])
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"it does not say what it is ({error!r}): train again") from error
    if version != task.version:
        raise ValueError(f"it was trained and scored on version {version} of {task.name}, which is at version {task.version} "
                         "now: train again")
    row = "/".join(part for part in path.relative_to(folder).parts
                   if not SEED_FOLDER.fullmatch(part) and normalise(part) != normalise(task.name)) or folder.resolve().name
    weights = path / "best" / "model.safetensors"
    counts, files = stored_parameter_counts(weights), (weights, weights.with_name("senses.safetensors"))
    return Run(path, row, task, seed, config, origin.get("data", {}), _read_scores(path / "scores.json"), counts and counts[0],
               counts and counts[0] - counts[1], sum(file.stat().st_size for file in files if file.is_file()) if counts else None, _read_latencies(path, notes),
               _read_predictions(path, notes))


def _read_scores(file: Path) -> Scores:
    try:
        scores = Scores.from_json(json.loads(file.read_text()))
        if not all(math.isfinite(value) and key.count("/") == 1 for key, value in scores.values.items()):
            raise ValueError("a value is not a number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"its {file.name} is damaged ({str(error) or repr(error)}): remove it and DONE, and the run's command "
                         "writes it again") from error
    return scores


def _read_predictions(run: Path, notes: list[str]) -> dict[str, Predictions]:
    file = run / "best" / "predictions.npz"
    try:
        return load_predictions(file) if file.is_file() else {}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        notes.append(f"no paired test with {run}: its {file.name} is damaged")
        return {}


def _read_latencies(run: Path, notes: list[str]) -> dict[str, Latency]:
    try:
        return read_latencies(run)
    except ValueError as error:
        notes.append(str(error))
        return {}


def _doubts(runs: Sequence[Run]) -> list[str]:
    """A line for every run that was scored on other data than the first of its task, or that has other settings than the
    first of its system and task; paths may differ, they often hold the seed."""
    lines, of_task, of_system = [], {}, {}
    for run in runs:
        first = of_task.setdefault(run.task.name, run)
        if any(first.data.get(split, sum_) != sum_ for split, sum_ in run.data.items() if split != "train"):
            lines.append(f"{run.path} was scored on other data than {first.path}")
        first = of_system.setdefault((run.row, run.task.name), run)
        if first.data.get("train", trained := run.data.get("train")) != trained:
            lines.append(f"{run.row} on {run.task.name} is a mean of runs that were trained on different data: {run.path} and {first.path}")
        changed = [name for name, value in run.config.items() if name not in ("seed", *MOVABLE)
                   and first.config.get(name, value) != value and "/" not in f"{first.config[name]}{value}"]
        if changed:
            lines.append(f"{run.row} on {run.task.name} is a mean of runs with different settings: {run.path} has another "
                         f"{', '.join(changed)} than {first.path}")
    return lines
