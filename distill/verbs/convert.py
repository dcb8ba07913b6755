"""python -m distill convert TASK CHECKPOINT FOLDER: a downloaded checkpoint as a folder that r2, r3 and every recipe take for a teacher."""

import argparse
from dataclasses import replace
from pathlib import Path

from data_utils.readers import DEFAULT_DATA_DIR
from data_utils.tasks import get_task
from distill import workers
from distill.downloads import open_for, probe_pooling
from distill.evaluate import dev_splits
from distill.rundir import write_folder
from models.heads import POOLINGS


def main(words: list[str]) -> None:
    """Write the checkpoint in our format, what its head pools settled, its labels in the task's order: recipes compare its logits with
    the task's classes one by one."""
    parser = argparse.ArgumentParser(prog="python -m distill convert", allow_abbrev=False)
    parser.add_argument("task")
    parser.add_argument("checkpoint", help="pytorch.model-*.bin, *.ckpt, or a folder of transformers")
    parser.add_argument("folder", type=Path, help="what is made; it must not be there")
    parser.add_argument("--data_dir", default=str(DEFAULT_DATA_DIR), help="folder of the tasks: its dev set tells what the head reads")
    parser.add_argument("--tokenizer", help="spm.model, or its folder, for a file that lies without one")
    parser.add_argument("--pooling", choices=POOLINGS, help="what the head reads, where it is known")
    given = parser.parse_args(words)
    task = get_task(given.task)
    if given.folder.exists():
        raise ValueError(f"{given.folder} is there already: name a folder that is not, or remove it")
    opened = open_for(given.checkpoint, task, given.tokenizer, given.pooling)
    encoder = opened.encoder.to(workers.device())
    if not opened.pooling_known:
        dev = next(iter(dev_splits(encoder, task, given.data_dir).values()))
        encoder.info = replace(encoder.info, pooling=probe_pooling(encoder, task, dev))
    answered = get_task(encoder.info.task)
    if encoder.info.labels != answered.labels:
        encoder.order_labels(answered.labels)
    workers.on_main(lambda: write_folder(given.folder, encoder.save))
    if workers.is_main():
        print(f"{given.folder}: {encoder.description}, its head reads {encoder.info.pooling}. As a teacher: TEACHER={given.folder} "
              f"sh r2_construct_sense_dictionary.sh {task.name}, then r3 likewise")
