"""One command over several seeds: a complete run for each below one folder, one after the other, and the scores over all.

    OUT/  seed-0/  seed-1/ ...  (run directories)  scores.json  DONE (written last)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from distill import workers
from distill.rundir import RunDir, write_json, write_text
from distill.scores import Scores, mean_and_error

SEED = "{seed}"  # in a word of the command line: the seed of the run
FOLDER = "seed-"


def parse_seeds(words: Sequence[str]) -> list[int]:
    """The numbers behind --seeds; ValueError where there is none, one is no number from 0 on, or one is there twice."""
    wrong = [word for word in words if not (word.isascii() and word.isdigit())]
    if wrong or not words:
        raise ValueError(f"{' '.join(['--seeds', *words])}: expected whole numbers from 0 on with blanks between them, as in --seeds 0 1 2"
                         + (f"; {wrong[0]!r} is not one" if wrong else ""))
    seeds = [int(word) for word in words]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {' '.join(words)}: a seed is given twice and its run would count twice; give each once")
    return seeds


def runs_by_seed(path: Path) -> dict[int, Path]:
    """The run directories in the folder `path`, by rising seed."""
    found = {file.parent.name.removeprefix(FOLDER): file.parent for file in path.glob(f"{FOLDER}*/config.json")}
    return dict(sorted((int(seed), run) for seed, run in found.items() if seed.isdigit()))


def refuse_seeds(path: Path) -> None:
    """ValueError where a single run would go into a folder of runs over seeds."""
    if found := runs_by_seed(path):
        raise ValueError(f"{path} holds runs over seeds ({', '.join(f'{FOLDER}{seed}' for seed in found)}): name them with --seeds "
                         f"{' '.join(map(str, found))}, or give another --output_dir")


class SeedFolder:
    """The folder of runs over `seeds`. Only rank 0 writes."""

    def __init__(self, path: Path, seeds: Sequence[int]):
        if SEED in str(path):
            raise ValueError(f"--output_dir {path}: with --seeds the runs go into {FOLDER}N below it; omit {SEED}")
        self.path, self.scores_file, self.done_file = path, path / "scores.json", path / "DONE"
        self.runs = {seed: RunDir(path / f"{FOLDER}{seed}") for seed in seeds}

    def words(self, words: Sequence[str]) -> list[list[str]]:
        """The words of each seed's own run: those given, SEED replaced, with its seed and folder."""
        if any(word.split("=")[0] == "--seed" for word in words):
            raise ValueError("--seed and --seeds together: --seeds names the seed of every run; omit --seed")
        return [[*(word.replace(SEED, str(seed)) for word in words), "--seed", str(seed), "--output_dir", str(run_dir.path)]
                for seed, run_dir in self.runs.items()]

    def begin(self, configs: Sequence) -> None:
        """Claim the runs that are there already, `configs` being the settings of all, in order: what does not fit is found
        before anything is trained. ValueError where the folder holds a single run, other seeds, or other settings."""
        workers.on_main(self._check)
        for run_dir, config in zip(self.runs.values(), configs, strict=True):
            if workers.any_rank(workers.is_main() and run_dir.path.exists()):
                run_dir.begin(config)
        if not all(run_dir.is_done() for run_dir in self.runs.values()):
            workers.on_main(lambda: self.done_file.unlink(missing_ok=True))

    def _check(self) -> None:
        if (self.path / "config.json").exists():
            raise ValueError(f"{self.path} holds a single run: give another --output_dir with --seeds, or move what is in it to "
                             f"{self.path / FOLDER}N, N its seed")
        more = [seed for seed in runs_by_seed(self.path) if seed not in self.runs]
        if more:
            raise ValueError(f"{self.path} also holds {', '.join(f'{FOLDER}{seed}' for seed in more)}: scores over seeds leave none "
                             f"out; name all (--seeds {' '.join(map(str, [*self.runs, *more]))}), or remove what should not count")

    def finish(self) -> None:
        """Write the scores over the seeds, whose runs are complete, then DONE."""
        workers.on_main(self._finish)

    def _finish(self) -> None:
        write_json(self.scores_file, over_seeds({seed: run_dir.scores() for seed, run_dir in self.runs.items()}))
        write_text(self.done_file, "")


def over_seeds(scores: Mapping[int, Scores]) -> dict:
    """What scores.json of several seeds holds: for each metric its mean, standard error over the seeds (None for one), n, and
    the value of each seed; and the split that selected."""
    first = next(iter(scores.values()))
    values = {}
    for name in first.values:
        by_seed = {str(seed): found.values[name] for seed, found in scores.items()}
        mean, error = mean_and_error(list(by_seed.values()))
        values[name] = {"mean": mean, "stderr": error, "n": len(by_seed), "seeds": by_seed}
    return {"values": values, "selected_on": first.selected_on}
