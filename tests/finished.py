"""Run directories as finished runs leave them, written without training."""

import json
from pathlib import Path

import numpy as np
import torch

from data_utils.metrics import compute_metrics
from data_utils.tasks import get_task
from distill.scores import Predictions, Scores, save_predictions
from models.weights import write_tensors

EXAMPLES = 200


def answers(task: str, seed: int, wrong: float, examples: int = EXAMPLES) -> Predictions:
    """Predictions of which about the share `wrong` is wrong; which ones is mostly the same for every seed."""
    found = get_task(task)
    target = np.random.default_rng(0).integers(0, 2, examples)
    hard = np.random.default_rng(1).random(examples) + 0.1 * np.random.default_rng([2, seed]).random(examples)
    predicted = np.where(hard < wrong, 1 - target, target)
    return Predictions(np.arange(examples), predicted.astype(float) if found.is_regression else predicted, target)


def write_run(path: Path, task: str = "CoLA", seed: int = 1, wrong: float = 0.2, selected_on: str | None = "dev", width: int = 10,
              command: list[str] | None = None, **changed) -> Path:
    """A finished run; `changed` are settings. Without `selected_on`, one from before it was said."""
    (path / "best").mkdir(parents=True)
    found, kept = get_task(task), {split: answers(task, seed, wrong) for split in get_task(task).dev_splits}
    values = {f"{split}/{name}": value for split, given in kept.items()
              for name, value in compute_metrics(found.metrics, given.predicted, given.target).items()}
    scores = Scores(values, 0.5, dict.fromkeys(values, 0.02), dict.fromkeys(values, EXAMPLES), selected_on or "").to_json()
    if selected_on is None:
        del scores["selected_on"]
    words = command or ["python", "train", "finetune", task, "--seed", str(seed), "--output_dir", str(path)]
    log = [{"step": step, "terms": {"ce": 1 / step, "hidden": 2.0}, "weights": {"ce": 1.0, "hidden": step / 10}, "seconds": step}
           for step in range(1, 11)] + [{"step": 10, "scores": values}]
    files = {"config.json": {"learning_rate": 1e-3, "seed": seed, "output_dir": str(path), "teacher": f"t/seed-{seed}", **changed},
             "origin.json": {"command": words, "commit": "abc", "device": "cpu", "data": {"train": "x", "dev": "y"}},
             "best/task.json": {"task": found.name, "version": found.version}, "scores.json": {**scores, "seconds": 3.0}}
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    write_tensors(path / "best" / "model.safetensors", {
        "bert.embeddings.word_embeddings.weight": torch.zeros(40, width), "weight": torch.zeros(60, width), "ids": torch.zeros(7, dtype=torch.int64)})
    save_predictions(kept, path / "best" / "predictions.npz")
    (path / "DONE").touch()
    return path


def write_latency(run: Path, alone: float, batched: float = 1.0, device: str = "cpu", disturbed: bool = False) -> None:
    """What `report latency` leaves in a run."""
    (run / "latency.json").write_text(json.dumps({"milliseconds": {"1": alone, "32": batched}, "device": device, "disturbed": disturbed}))


def edit(file: Path, **changed) -> None:
    """Change entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
