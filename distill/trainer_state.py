"""last/: the student and all else that fit() needs to go on exactly where it stood."""

from pathlib import Path

import torch

from distill import workers
from distill.rundir import RunDir, whole_folder, write_folder, write_json
from distill.scores import Scores

TRAINER_STATE = "trainer_state.pt"


def save_last(run, run_dir: RunDir) -> None:
    """Write run_dir/last whole: best's format, and the trainer's state (optimiser, scaler, stream, objective, step,
    best scores, the open line of the log)."""
    open_sums = workers.total({name: float(value) for name, value in run.term_sums.items()})
    workers.on_main(lambda: write_folder(run_dir.last, lambda folder: _fill(folder, run, open_sums)))


def _fill(folder: Path, run, open_sums: dict[str, float]) -> None:
    run.module.student.save(folder)
    torch.save({"step": run.step, "objective": run.module.objective.state_dict(),
                "optimizer": run.optimizer.state_dict(), "scaler": run.scaler.state_dict(),
                "stream": run.stream.state_dict(), **{name: scores.to_json() for name, scores in _scores(run).items()},
                "examples": run.examples, "term_sums": open_sums, "term_counts": run.term_counts},
               folder / TRAINER_STATE)
    if run.latest:
        write_json(folder / "scores.json", run.latest.to_json())


def _scores(run) -> dict[str, Scores]:
    found = {"best": run.best, "latest": run.latest}
    return {name: scores for name, scores in found.items() if scores is not None}


def load_last(run, run_dir: RunDir) -> None:
    """Set `run` to what run_dir/last holds; a fresh run is left as it is."""
    if workers.is_main():
        whole_folder(run_dir.last)
    workers.barrier()
    file = run_dir.last / TRAINER_STATE
    if not file.exists():
        if workers.is_main():
            run_dir.rewind_log(0)  # a run that was killed before its first checkpoint
        return
    try:
        state = torch.load(file, map_location=workers.device(), weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} cannot be read ({str(error).splitlines()[0]}): the checkpoint is damaged; remove "
                         f"{run_dir.last} to start this run again") from error
    run.module.student.restore(run_dir.last)
    run.module.objective.load_state_dict(state["objective"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.stream.load_state_dict(state["stream"])
    run.step, run.examples = state["step"], state["examples"]
    run.best, run.latest = (Scores.from_json(state[name]) if name in state else None for name in ("best", "latest"))
    run.term_counts = state["term_counts"]
    if workers.is_main():  # the sums of all ranks go on in the first
        run.term_sums = state["term_sums"]
        run_dir.rewind_log(run.step)
