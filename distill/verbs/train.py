"""python -m distill train RECIPE TASK [--preset NAME] [--seeds N ...] [--flag value ...]"""

import argparse
import logging
import time
from pathlib import Path

from data_utils.draws import HELD_OUT
from data_utils.tasks import Task, get_task
from distill import recipes, workers
from distill.config import parse, split_words
from distill.rundir import RunDir, read_json, stage_of
from distill.seeds import SeedFolder, parse_seeds, refuse_seeds
from models.heads import TOKENS

HELP = ("-h", "--help")
logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Train a recipe on a task, once or over seeds. A finished run is said and left alone; an unfinished one goes on."""
    parser = argparse.ArgumentParser(prog="python -m distill train", add_help=False, allow_abbrev=False, usage=(
        "python -m distill train RECIPE TASK [--preset NAME] [--seeds N ...] [settings]\n"
        f"recipes: {', '.join(recipes.names())}; `train RECIPE TASK --help` lists its settings\n"
        "--seeds 0 1 2 trains one run for each, in seed-N below --output_dir; {seed} in a setting becomes N; --task TASK is TASK"))
    parser.add_argument("recipe")
    parser.add_argument("task")
    parser.add_argument("--preset")
    parser.add_argument("--seeds", nargs="*")
    if words and words[0] in HELP:
        parser.print_usage()
        return
    given, rest = parser.parse_known_args(_task_second(words))
    recipe, task = recipes.load(given.recipe), get_task(given.task)
    if given.seeds is None or any(word in HELP for word in rest):
        (config,) = configs(recipe, task, given, [rest])
        workers.on_main(lambda: refuse_seeds(Path(config.output_dir)))
        train(given.recipe, recipe, task, config, RunDir(config.output_dir))
    else:
        folder = SeedFolder(Path(_values(rest).get("output_dir", recipe.Config.output_dir)), parse_seeds(given.seeds))
        train_over_seeds(given.recipe, recipe, task, folder, configs(recipe, task, given, folder.words(rest)))


def _task_second(words: list[str]) -> list[str]:
    """`--task TASK`, as MPDistil's program is called, in its place after the recipe."""
    parts = split_words(words)
    if "--task" not in parts[:-1]:
        return words  # untouched: apart from its =, a value such as -x would be taken for a setting
    at = parts.index("--task")
    others = parts[:at] + parts[at + 2:]
    return [*others[:1], parts[at + 1], *others[1:]]


def configs(recipe, task: Task, given: argparse.Namespace, runs: list[list[str]]) -> list:
    """The settings of each of `runs` from its words, all over one preset."""
    defaults = {}
    if not any(word in HELP for word in runs[0]):  # answered without a look at the model
        first, *others = (preset_name(recipe, given.preset, words) for words in runs)
        if set(others) - {first}:
            raise ValueError(f"the seeds' models have different presets ({', '.join(sorted({first, *others}))}): give one with "
                             "--preset")
        logger.info("settings: preset %s", first)
        defaults = preset_settings(recipe, task.name, first, [])
    return [parse(recipe.Config, words, defaults, f"python -m distill train {given.recipe} TASK") for words in runs]


def preset_name(recipe, preset: str | None, words: list[str]) -> str:
    """The preset that was asked for, or the one that fits the model that `words` name."""
    preset = preset or recipe.default_preset(_values(words))
    if preset not in recipe.PER_TASK:
        raise ValueError(f"unknown preset {preset!r}: there are {', '.join(recipe.PER_TASK)}")
    return preset


def preset_settings(recipe, task: str, preset: str | None, words: list[str]) -> dict:
    """The settings of a preset for a task: the preset's own defaults under what follows from the task and the task's."""
    preset = preset_name(recipe, preset, words)
    return {**recipe.PRESET_DEFAULTS[preset], **task_settings(recipe, get_task(task)), **recipe.PER_TASK[preset].get(task, {})}


def task_settings(recipe, task: Task) -> dict:
    """What follows from the task, whatever the preset."""
    selection = {"select_on": HELD_OUT} if task.train_selects else {}
    reading = {"pooling": TOKENS} if task.spans and hasattr(recipe.Config, "pooling") else {}
    return selection | reading


def _values(words: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs, before the real parsing."""
    joined = split_words(words)
    return {name[2:]: value for name, value in zip(joined, joined[1:]) if name.startswith("--")}


def train(name: str, recipe, task: Task, config, run_dir: RunDir) -> None:
    """Train, where it is not done yet, and print what the run reached. ValueError where the folder has the name of a stage."""
    if stage_of(run_dir.path):
        raise ValueError(f"--output_dir {run_dir.path}: names that begin so are those of the fits inside a run; choose another")
    if run_dir.is_done():
        run_dir.begin(config, recipe.facts(config, task))
        logger.info("%s is complete: nothing to do (remove the folder to train again)", run_dir.path)
    else:
        started = time.monotonic() - run_dir.logged_seconds()
        scores = recipe.run(config, task, run_dir)
        if workers.is_main():
            run_dir.finish({**scores.to_json(), "seconds": round(time.monotonic() - started, 1)})
    if workers.is_main():
        scores = run_dir.scores()
        reached = [f"{key} {100 * value:.1f} +- {100 * scores.errors[key]:.1f}" for key, value in scores.values.items()]
        reached += [f"{name} {value:.4g}" for name, value in scores.terms.items()]
        print(f"{name} on {task.name}, best evaluation, selected on {scores.selected_on}: {', '.join(reached)}   [{run_dir.best}]")


def train_over_seeds(name: str, recipe, task: Task, folder: SeedFolder, runs: list) -> None:
    """Train one run after the other, `runs` being their settings, and print what all reached together."""
    folder.begin(runs)
    for run_dir, config in zip(folder.runs.values(), runs, strict=True):
        train(name, recipe, task, config, run_dir)
    folder.finish()
    if workers.is_main():
        scores = read_json(folder.scores_file)
        reached = [f"{key} {100 * found['mean']:.1f}" + (f" +- {100 * found['stderr']:.1f}" if found["n"] > 1 else "")
                   for key, found in scores["values"].items()]
        over = f"mean +- standard error over {len(runs)} seeds" if len(runs) > 1 else "one seed"
        print(f"{name} on {task.name}, {over}, selected on {scores['selected_on']}: {', '.join(reached)}   [{folder.path}]")
