"""python -m distill senses ACTION ...: build, describe, score, import, export."""

import argparse
import logging
import shutil
import time
from pathlib import Path

from data_utils.readers import find_folder
from data_utils.tasks import Task, get_task
from distill import workers
from distill.config import parse
from distill.rundir import RunDir, read_json
from distill.senses.build import SenseConfig, build, text_order
from distill.senses.corpus import GLUE_CORPUS, corpus_fingerprint, corpus_tasks, split_tokens
from distill.senses.dictionary import FILE, SenseDictionary
from distill.senses.truth import Agreement, collect_occurrences, compare_layers, score_dictionary
from models.checkpoint import load_encoder
from models.weights import fingerprint

logger = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Run one action on sense dictionaries."""
    parser = argparse.ArgumentParser(prog="python -m distill senses", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("build", add_help=False, help="cluster a teacher's states; `senses build TASK --help` says more"
                       ).add_argument("task")
    described = actions.add_parser("describe", help="types, senses, size, provenance")
    imported = actions.add_parser("import", help="a published .kmeanspkl -> our .safetensors")
    exported = actions.add_parser("export", help="our dictionary -> a published .kmeanspkl")
    for action in (described, imported, exported):
        action.add_argument("source", help="the folder that r2 made, a .safetensors or a .kmeanspkl")
    for action in (imported, exported):
        action.add_argument("target", type=Path, help="the file to write")
    scored = actions.add_parser("score", help="hold senses to the truth, which is known for demo")
    scored.add_argument("task")
    scored.add_argument("--teacher", default="./runs/demo/teacher/best", help="the teacher's checkpoint folder")
    scored.add_argument("--senses", default="./runs/demo/senses", help="its dictionary")
    scored.add_argument("--data_dir", default="./glue", help="folder of the tasks")
    scored.add_argument("--num_senses", type=int, default=2, help="senses per word when the layers are compared")
    if words[:1] == ["build"]:  # its settings are those of SenseConfig
        given, rest = parser.parse_known_args(words)
        build_senses(given.task, parse(SenseConfig, rest, program="python -m distill senses build TASK"))
        return
    given = parser.parse_args(words)
    if given.action == "score":
        score(given)
    elif given.action == "describe":
        print(describe(SenseDictionary.load(given.source)))
    elif given.action == "export":
        SenseDictionary.load(given.source).export(given.target)
    else:
        SenseDictionary.load(given.source).save(given.target)


def build_senses(task_name: str, cfg: SenseConfig) -> None:
    """Build (or go on building) the dictionary of a teacher, and print what it is."""
    task, run_dir = get_task(task_name), RunDir(cfg.output_dir)
    teacher = load_encoder(cfg.teacher)
    weights = fingerprint(Path(cfg.teacher))
    run_dir.begin(cfg, {"teacher": weights, "corpus": corpus_fingerprint(cfg.corpus, task, cfg.data_dir)})
    teacher_bytes = (Path(cfg.teacher) / "model.safetensors").stat().st_size
    if not run_dir.is_done():
        started = time.monotonic()
        provenance = {"teacher": weights, "pooling": teacher.info.pooling, "task": task.name,
                      **{name: str(getattr(cfg, name)) for name in ("num_senses", "cap", "layer", "similarity", "max_length",
                                                                    "restarts", "seed")}, **tasks_read(cfg, task)}
        dev = {split: split_tokens(task, split, cfg.data_dir, teacher.tokenizer, cfg.max_length, text_order(teacher, task)) for split in task.dev_splits}
        dictionary = build(cfg, task, teacher, run_dir, provenance)
        if workers.is_main():
            run_dir.finish({"types": dictionary.types, "senses": len(dictionary.centroids), "bytes": dictionary.nbytes,
                            "teacher_bytes": teacher_bytes,
                            "coverage": {split: dictionary.coverage(ids) for split, ids in dev.items()},
                            "seconds": round(time.monotonic() - started, 1)})
    if workers.is_main():
        shutil.rmtree(run_dir.path / "work", ignore_errors=True)
        print(describe(SenseDictionary.load(run_dir.path / FILE)))
        facts = read_json(run_dir.scores_file)
        print(f"  {facts['bytes'] / 2**20:.1f} MiB beside the teacher's {teacher_bytes / 2**20:.1f} MiB; built in "
              f"{facts['seconds']} s")
        for split, share in facts["coverage"].items():
            print(f"  covers {100 * share:.2f} % of the tokens of {split}")


def tasks_read(cfg: SenseConfig, task: Task) -> dict[str, str]:
    """For the provenance: which of GLUE's train sets are the corpus, where they are; which are not there is said."""
    if cfg.corpus != "glue":
        return {}
    read = ", ".join(entry.name for entry in corpus_tasks(cfg.corpus, task, cfg.data_dir))
    missing = ", ".join(name for name in GLUE_CORPUS if name not in read.split(", "))
    if missing:
        logger.warning("--corpus glue: not in %s: %s; senses are built from %s", cfg.data_dir, missing, read)
    return {"corpus_tasks": read}


def describe(dictionary: SenseDictionary) -> str:
    """A few lines: types, senses, size, provenance."""
    several = int((dictionary.sizes > 1).sum())
    facts = "".join(f"\n  {name}: {value}" for name, value in dictionary.provenance.items())
    return (f"{dictionary.types} types with {len(dictionary.centroids)} senses of width {dictionary.centroids.shape[1]} "
            f"({several} types have more than one), {dictionary.nbytes / 2**20:.1f} MiB{facts}")


def score(given: argparse.Namespace) -> None:
    """Print, for the demo task, how the dictionary and each layer of the teacher recover the true senses."""
    task = get_task(given.task)
    if task.name != "demo":
        raise ValueError(f"the true senses of {task.name} are not known: only those of demo are")
    teacher, dictionary = load_encoder(given.teacher), SenseDictionary.load(given.senses)
    built = int(dictionary.provenance.get("layer", -1))
    dictionary.check_teacher(fingerprint(Path(given.teacher)), built)
    if built > teacher.depth or dictionary.centroids.shape[1] != teacher.width_of(built):
        raise ValueError(f"--senses {given.senses}: senses of layer {built} and of width {dictionary.centroids.shape[1]}; the teacher {given.teacher} "
                         f"has {teacher.depth} layers, {teacher.width} wide; give the dictionary of this teacher")
    folder = find_folder(task, given.data_dir)
    if folder is None:
        raise ValueError(f"no demo task in {given.data_dir}: `python -m distill data demo {given.data_dir}/demo` writes it")
    layers = range(teacher.depth + 1)
    train = collect_occurrences(teacher, task, "train", folder, layers)
    dev = collect_occurrences(teacher, task, "dev", folder, layers)
    at_layer = collect_occurrences(teacher, task, "dev", folder, [built])
    words = score_dictionary(dictionary, at_layer)
    by_layer = compare_layers(train, dev, given.num_senses, seed=0)
    best = max(by_layer, key=lambda found: found["all words"].adjusted_rand)
    print(f"agreement with the true senses, dev\n{'':12}{'dictionary':>24}{f'{given.num_senses} senses, best layer':>28}")
    for word in words:
        print(f"{word:12}{_line(words[word]):>24}{_line(best[word]):>28}")
    for layer, found in zip(layers, by_layer, strict=True):
        print(f"layer {layer}: {_line(found['all words'])} ({given.num_senses} senses per word)")


def _line(found: Agreement) -> str:
    return f"ARI {found.adjusted_rand:.3f} hom {found.homogeneity:.3f}"
