"""python -m distill evaluate TASK --checkpoint PATH [--senses PATH] ...: score a checkpoint, own or downloaded."""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data_utils.encode import EncodedDataset
from data_utils.readers import DEFAULT_DATA_DIR, data_fingerprint
from data_utils.tasks import Task, get_task
from data_utils.windows import Windows
from distill import workers
from distill.downloads import open_for, probe_pooling
from distill.evaluate import answer_questions, dev_splits, encode_split, known_windows, score
from distill.rundir import check_folder_of, read_json, write_json
from distill.scores import Predictions, Scores
from distill.senses import READINGS
from distill.senses.dictionary import DICTIONARY, SenseDictionary
from distill.spans import Answering, answers_by_id, by_answer
from distill.submission import write_submission
from models.encoder import Encoder
from models.heads import POOLINGS, POSITIONS, SIMILARITIES, SenseLookup
from models.weights import fingerprint

logger = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m distill evaluate", allow_abbrev=False, usage=(
        "python -m distill evaluate TASK --checkpoint PATH [settings]; `--help` lists the settings"))
    parser.add_argument("task")
    parser.add_argument("--checkpoint", required=True, help="run directory, checkpoint folder, .bin or .ckpt file")
    parser.add_argument("--senses", help="sense dictionary: the folder r2 made, .safetensors or .kmeanspkl")
    parser.add_argument("--similarity", choices=SIMILARITIES, help="how a state's sense is chosen; by default as the student "
                        "learned it, for a model that learned none as the dictionary says")
    parser.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks")
    parser.add_argument("--tokenizer", help="spm.model, or its folder, for a downloaded file that lies without one")
    parser.add_argument("--pooling", choices=POOLINGS, help="what the head reads: where the checkpoint does not say it, or instead")
    parser.add_argument("--max_length", type=int, default=0, help="tokens per example; 0: as in training, where that is not known the task's own")
    parser.add_argument("--submission", help="folder for the leaderboard's files: predictions of the test splits")
    parser.add_argument("--reading", choices=READINGS, help="what --submission and --predictions are answered from; by default what the head "
                        "was trained on, and of a downloaded file, which does not say it, senses where they are given")
    parser.add_argument("--output", help="JSON file for the scores")
    spans = parser.add_argument_group("answers in a text (SQuAD)")
    spans.add_argument("--predictions", help="JSON file for the answers, by the ids of the questions: what the official script reads")
    spans.add_argument("--stride", type=int, help="tokens that two consecutive windows share; by default as in training")
    spans.add_argument("--max_query_length", type=int, help="tokens of a question, its rest is cut off; by default as in training")
    spans.add_argument("--n_best", type=int, default=Answering.n_best, help="likeliest starts and ends that are tried in each window")
    spans.add_argument("--max_answer_length", type=int, default=Answering.max_tokens, help="tokens of an answer")
    spans.add_argument("--no_answer_threshold", type=float, default=Answering.threshold,
                       help="answer nothing where [CLS] scores higher than the best span by more than this (SQuAD2)")
    return parser


def main(words: list[str]) -> None:
    """Score a checkpoint on the dev splits of a task, plain and, with --senses, read through its senses."""
    given = _parser().parse_args(words)
    task = get_task(given.task)
    answering = Answering(given.n_best, given.max_answer_length, given.no_answer_threshold)
    check_given(given, task, answering)
    opened = open_for(given.checkpoint, task, given.tokenizer, given.pooling)
    encoder = opened.encoder.to(workers.device())
    windows = windows_of(given, known_windows(encoder))
    lookup = read_senses(given, encoder) if given.senses else encoder.senses
    datasets = dev_splits(encoder, task, given.data_dir, given.max_length, windows) if task.dev_splits else {}
    if given.output and not datasets:
        raise ValueError(f"--output {given.output}: {task.name} has no labelled split here, there is nothing to score; leave it out")
    if not (datasets or given.submission or given.predictions):
        raise ValueError(f"{task.name} has no labelled split here: give {'--predictions FILE' if task.spans else '--submission FOLDER'} "
                         "to write its predictions")
    if datasets and not opened.pooling_known:
        encoder.info = replace(encoder.info, pooling=probe_pooling(encoder, task, next(iter(datasets.values()))))
    ways = {"continuous": encoder.with_head_input("continuous")}
    if lookup is not None:
        ways["senses"] = encoder.with_head_input("senses", lookup)
    own = given.reading or (encoder.info.head_input if opened.head_input_known or not given.senses else "senses")
    if own not in ways:
        raise ValueError("--reading senses: the checkpoint has none of its own, give --senses PATH")
    if lookup is not None:
        for split, dataset in datasets.items():
            logger.info("%s %s: %.1f %% of the tokens that the head reads have senses", task.name, split, 100 * coverage(lookup, encoder, dataset))
    readings = {way: score(read, task, datasets, answering=answering) for way, read in ways.items() if datasets}
    if workers.is_main():
        show(given, task, readings, lookup)
    if given.predictions:
        split = task.dev_splits[0]
        dataset = datasets.get(split) or encode_split(encoder, task, split, given.data_dir, given.max_length, windows)
        found = readings[own].predictions[split].texts() if readings else answer_questions(ways[own], task, dataset, answering)
        workers.on_main(lambda: write_json(Path(given.predictions), answers_by_id(found, dataset)))
        logger.info("wrote %s, the head reading %s", given.predictions, READINGS[own])
    if given.submission:
        for path in write_submission(ways[own], task, given.data_dir, Path(given.submission), given.max_length):
            logger.info("wrote %s, the head reading %s", path, READINGS[own])


def windows_of(given: argparse.Namespace, usual: Windows) -> Windows:
    """How texts with answers are cut: as the settings say, in what they leave open as `usual`."""
    said = {"stride": given.stride, "question": given.max_query_length}
    return replace(usual, **{name: value for name, value in said.items() if value is not None})


def coverage(lookup: SenseLookup, encoder: Encoder, dataset: EncodedDataset) -> float:
    """The share of the tokens that the head of `encoder` reads whose type has senses."""
    position = POSITIONS.get(encoder.info.pooling)
    ids = dataset.ids if position is None else dataset.ids[np.minimum(dataset.offsets[:-1] + position, dataset.offsets[1:] - 1)]
    return lookup.known(torch.from_numpy(ids).long().to(lookup.offsets.device)).float().mean().item()


def show(given: argparse.Namespace, task: Task, readings: Mapping[str, Scores], lookup: SenseLookup | None) -> None:
    """Print the scores of every reading, and write them into --output."""
    for way, scores in readings.items():
        print(line(given.checkpoint, task, READINGS[way] + (f" by {lookup.similarity}" if way == "senses" else ""), scores))
        if task.unanswerable:
            print(*(apart(split, found, task) for split, found in scores.predictions.items()), sep="\n")
    if given.output:
        facts = {"task": task.name, "version": task.version, "data": {split: data_fingerprint(task, split, given.data_dir) for split in task.dev_splits}}
        if (folder := weights_folder(Path(given.checkpoint))).is_dir():
            facts["checkpoint"] = fingerprint(folder)
        write_json(Path(given.output), {READINGS[way]: {**facts, **scores.to_json(), **({"similarity": lookup.similarity} if way == "senses" else {})}
                                        for way, scores in readings.items()})


def weights_folder(checkpoint: Path) -> Path:
    """Where the weights of a run directory, of a checkpoint folder or of a file of weights lie."""
    return checkpoint / "best" if (checkpoint / "best").is_dir() else checkpoint


def line(checkpoint: str, task: Task, reading: str, scores: Scores) -> str:
    """One printed line: metric value +- bootstrap standard error in percent, and the number of examples."""
    values = "  ".join(f"{name} {100 * value:.2f} +- {100 * scores.errors[name]:.2f} (n={scores.counts[name]})"
                       for name, value in scores.values.items())
    return f"{checkpoint}  {task.name}, head reads {reading}: {values}"


def apart(split: str, found: Predictions, task: Task) -> str:
    """One printed line: the metrics of the questions with an answer, and of those without one, in percent."""
    parts = [f"{kind} (n={number}) " + "  ".join(f"{name} {100 * value:.2f}" for name, value in values.items())
             for kind, (number, values) in by_answer(found, task).items()]
    return f"{split}, questions {'; '.join(parts)}"


def read_senses(given: argparse.Namespace, encoder: Encoder) -> SenseLookup:
    """The look-up over the dictionary, by the similarity that was asked for, that `encoder` learned its senses by, or the dictionary's own.

    It is said where the dictionary is not the one that the checkpoint's run learned from, and where its provenance, which downloaded
    ones lack, names another teacher than the checkpoint and than the one that its run learned from.
    """
    senses, checkpoint = SenseDictionary.load(given.senses), Path(given.checkpoint)
    best = weights_folder(checkpoint)
    notes = best.parent / "origin.json"
    learned = read_json(notes) if checkpoint.is_dir() and notes.is_file() else {}
    table, built, taught_by = learned.get(DICTIONARY), senses.provenance.get("teacher"), learned.get("teacher")
    own = fingerprint(best) if built and checkpoint.is_dir() else None
    if own and own == built:
        senses.check_teacher(own, encoder.depth)
    if table and table != senses.digest():
        logger.warning("--senses %s are not those that %s learned from: its scores through them may mean little; distil it again", given.senses,
                       checkpoint)
    elif own and built not in (own, taught_by):
        logger.warning("--senses %s were built from a teacher with weights %s; %s has weights %s%s: its scores through these senses may "
                       "mean little; `sh r2_construct_sense_dictionary.sh TASK` builds those of a teacher", given.senses, built, checkpoint,
                       own, f" and learned from {taught_by}" if taught_by else "")
    own_similarity = encoder.info.similarity if encoder.info.head_input == "senses" or "senses" in learned else None
    return senses.lookup(workers.device(), given.similarity or own_similarity)


def check_given(given: argparse.Namespace, task: Task, answering: Answering) -> None:
    """ValueError for settings that mean nothing, or that the task has no use for."""
    if given.max_length < 0:
        raise ValueError(f"--max_length {given.max_length}: expected 0 or more")
    windows_of(given, Windows())  # refuses what makes no sense
    for setting in ("output", "predictions"):
        check_folder_of(getattr(given, setting), f"--{setting}")
    if given.similarity and not given.senses:
        raise ValueError(f"--similarity {given.similarity}: it says how --senses are read, and none are given")
    if not task.spans and (given.predictions or answering != Answering()):
        raise ValueError(f"--predictions, --n_best, --max_answer_length and --no_answer_threshold are for answers in a text, {task.name} has "
                         "none; leave them out, --submission FOLDER writes what its leaderboard takes")
