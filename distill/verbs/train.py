"""python -m distill train RECIPE TASK [--preset NAME] [--flag value ...]"""

import argparse
import logging
import time

from data_utils.tasks import get_task
from distill import recipes, workers
from distill.config import parse
from distill.rundir import RunDir

HELP = ("-h", "--help")
logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Train a recipe on a task. A finished run is said and left alone; an unfinished one goes on."""
    parser = argparse.ArgumentParser(prog="python -m distill train", add_help=False, allow_abbrev=False, usage=(
        "python -m distill train RECIPE TASK [--preset NAME] [settings]\n"
        f"recipes: {', '.join(recipes.names())}; `train RECIPE TASK --help` lists its settings"))
    parser.add_argument("recipe")
    parser.add_argument("task")
    parser.add_argument("--preset")
    if words and words[0] in HELP:
        parser.print_usage()
        return
    given, rest = parser.parse_known_args(words)
    recipe, task = recipes.load(given.recipe), get_task(given.task)
    asks_for_help = any(word in HELP for word in rest)  # answered without a look at the model
    settings = {} if asks_for_help else preset_settings(recipe, task.name, given.preset, rest)
    config = parse(recipe.Config, rest, settings, f"python -m distill train {given.recipe} TASK")
    run_dir = RunDir(config.output_dir)
    if run_dir.is_done():
        run_dir.begin(config)
        logger.info("%s is complete: nothing to do (remove the folder to train again)", run_dir.path)
    else:
        started = time.monotonic() - run_dir.logged_seconds()
        scores = recipe.run(config, task, run_dir)
        if workers.is_main():
            run_dir.finish({**scores.to_json(), "seconds": round(time.monotonic() - started, 1)})
    if workers.is_main():
        report(given.recipe, task.name, run_dir)


def preset_settings(recipe, task: str, preset: str | None, words: list[str]) -> dict:
    """The settings of a preset for a task: the preset's own defaults under the task's."""
    preset = preset or recipe.default_preset(_values(words))
    if preset not in recipe.PER_TASK:
        raise ValueError(f"unknown preset {preset!r}: there are {', '.join(recipe.PER_TASK)}")
    logger.info("settings: preset %s", preset)
    return {**recipe.PRESET_DEFAULTS[preset], **recipe.PER_TASK[preset].get(task, {})}


def _values(words: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs, before the real parsing."""
    joined = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return {name[2:]: value for name, value in zip(joined, joined[1:]) if name.startswith("--")}


def report(recipe: str, task: str, run_dir: RunDir) -> None:
    """Print what a finished run reached."""
    scores = run_dir.scores()
    print(f"{recipe} on {task}, best evaluation, selected on {scores.selected_on}: "
          + ", ".join(f"{name} {100 * value:.1f} +- {100 * scores.errors[name]:.1f}"
                      for name, value in scores.values.items()) + f"   [{run_dir.best}]")
