"""last/: the student and all else that fit() needs to go on exactly where it stood."""

import logging
from pathlib import Path

import torch

from distill import workers
from distill.rundir import RunDir, versions, whole_folder, write_folder, write_json
from distill.scores import Scores
from distill.sharding import full_state_dict, shard_state
from models.weights import check_checksums

TRAINER_STATE = "trainer_state.pt"
logger = logging.getLogger(__name__)


def save_last(run, run_dir: RunDir, keep: int) -> None:
    """Write run_dir/last whole: best's format, and the trainer's state (optimiser, scaler, stream, objective, step,
    best scores, the open line of the log). `keep` checkpoints stay, this one included."""
    student = full_state_dict(run.module.student.state_dict())
    state = {"step": run.step, "unscored": run.unscored, "objective": full_state_dict(run.module.objective.state_dict()),
             "optimizer": full_state_dict(run.optimizer.state_dict()), "scaler": run.scaler.state_dict(),
             "stream": run.stream.state_dict(), **{name: scores.to_json() for name, scores in _scores(run).items()},
             "examples": run.examples, "tokens": run.tokens, "term_counts": run.term_counts,
             "term_sums": workers.gather({name: float(value) for name, value in run.term_sums.items()})}

    def fill(folder: Path) -> None:
        run.module.student.save(folder, student)
        torch.save(state, folder / TRAINER_STATE)
        if run.latest:
            write_json(folder / "scores.json", run.latest.to_json())

    workers.on_main(lambda: write_folder(run_dir.last, fill, keep - 1))


def _scores(run) -> dict[str, Scores]:
    found = {"best": run.best, "latest": run.latest}
    return {name: scores for name, scores in found.items() if scores is not None}


def load_last(module, run_dir: RunDir, keep: int) -> dict | None:
    """Set the weights of `module` to the newest whole checkpoint of the `keep` that run_dir may hold, and return the rest of
    it for resume(); None for a fresh run. A damaged one is said, and the one before is taken. ValueError where all are."""
    found: list[Path | None] = []
    workers.on_main(lambda: found.append(_newest_whole(run_dir, keep)))
    folder = workers.gather(found)[0][0]
    if folder is None:
        if workers.is_main():
            run_dir.rewind_log(-1)  # a run that was killed before its first checkpoint
        return None
    file = folder / TRAINER_STATE
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch have a type each
        raise ValueError(f"{file} cannot be read ({str(error).splitlines()[0]}): remove {folder} to go on without it") from error
    workers.on_main(lambda: _check_best(run_dir) if "best" in state else None)
    module.student.restore(folder)
    module.objective.load_state_dict(state["objective"])
    if workers.is_main():
        run_dir.rewind_log(state["step"], scored=not state.get("unscored"))
    return state


def _check_best(run_dir: RunDir) -> None:
    """ValueError where the best model so far, of which last/ knows the scores alone, is lost."""
    best = whole_folder(run_dir.best)
    try:
        if best is None or not (best / "scores.json").is_file():
            raise ValueError(f"{run_dir.best} is gone")
        check_checksums(best)
    except ValueError as error:
        raise ValueError(f"{error}. It was the best model so far, which cannot be made again from {run_dir.last}: put it back, or remove "
                         f"{run_dir.path} to train again") from error


def resume(run, state: dict) -> None:
    """Set `run`, whose module has its weights, to the rest of a checkpoint."""
    _check_shapes(state["optimizer"], run.optimizer)
    run.optimizer.load_state_dict(shard_state(state["optimizer"], run.optimizer))
    run.scaler.load_state_dict(state["scaler"])
    run.stream.load_state_dict(state["stream"])
    run.step, run.examples, run.tokens = state["step"], state["examples"], state.get("tokens", 0)  # older ones did not count them
    run.unscored = state.get("unscored", False)  # older ones were scored
    run.best, run.latest = (Scores.from_json(state[name]) if name in state else None for name in ("best", "latest"))
    run.term_counts = state["term_counts"]
    ranks = state["term_sums"]
    if len(ranks) == workers.world():
        run.term_sums = ranks[workers.rank()]
    elif workers.is_main():  # on another number of ranks the sums of all go on in the first
        run.term_sums = {name: sum(rank.get(name, 0.0) for rank in ranks) for name in ranks[0]}


def _check_shapes(state: dict, optimizer: torch.optim.Optimizer) -> None:
    """ValueError where a checkpoint's optimiser has trained tensors of other shapes: then it held other word embeddings."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = {(getattr(value, "shape", ()), parameters[index].shape) for index, entries in state["state"].items() for value in entries.values()}
    if any(found not in ((), expected) for found, expected in shapes):
        raise ValueError("the checkpoint trained other word embeddings: with --fsdp a run holds all of them, else those that its data read "
                         "(--trim_vocabulary). Go on with --fsdp as it was begun, or without it by --trim_vocabulary False where it was begun so")


def _newest_whole(run_dir: RunDir, keep: int) -> Path | None:
    """The newest checkpoint whose files are as they were written; None where none was ever written."""
    damaged = ""
    for folder in versions(run_dir.last, keep - 1):
        try:
            check_checksums(folder)
            return folder
        except ValueError as error:
            logger.warning("%s; trying the checkpoint before it", damaged := str(error))
    if damaged:
        raise ValueError(f"no whole checkpoint is left in {run_dir.path} ({damaged}): remove {run_dir.last} and what "
                         "begins with its name to start this run again")
    return None
