"""SIGKILL at random moments, of one process and of two ranks: the same command, given again, ends with the same bytes."""

import random
import time
from pathlib import Path

import pytest

from distill.__main__ import main
from tests import pretraining
from tests.training import assert_same, free_port, left_behind, one_rank_of_the_program, prepare_processes, start

KILLS = 20


def begin(words: list[str], ranks: int, said: Path) -> list:
    """The command on `ranks` ranks; what each says goes into said.0, said.1 ..."""
    port = free_port()
    return [start(one_rank_of_the_program, rank, ranks, port, words, said.with_suffix(f".{rank}")) for rank in range(ranks)]


def end(processes: list, seconds: float) -> bool:
    """Whether all ended by themselves within `seconds`; those that did not are killed."""
    limit = time.monotonic() + seconds
    for process in processes:
        process.join(max(limit - time.monotonic(), 0))
    ended = not any(process.is_alive() for process in processes)
    for process in processes:
        process.kill()
        process.join()
    return ended


@pytest.fixture(scope="module")
def made(tiny_bert, tiny_glue, tmp_path_factory) -> Path:
    """A teacher and its senses, and what pre-training reads."""
    prepare_processes()
    out = tmp_path_factory.mktemp("made")
    data = ["--data_dir", str(tiny_glue), "--bf16", "False"]
    assert main(["train", "finetune", "CoLA", "--model", str(tiny_bert), "--max_steps", "2", *data, "--output_dir",
                 str(out / "teacher")]) == 0
    assert main(["senses", "build", "CoLA", "--teacher", str(out / "teacher/best"), "--num_senses", "4", *data, "--output_dir",
                 str(out / "senses")]) == 0
    pretraining.write_places(out)
    return out


def words(verb: str, made: Path, glue: Path, out: Path) -> list[str]:
    if verb == "pretrain":
        return pretraining.words(made, out, "--relation_weight", 1, "--max_steps", 30, "--save_steps", 3, "--layout", "packed", "--bf16", False)
    given = {"train": ["train", "sense_kd", "CoLA", "--teacher", made / "teacher/best", "--senses", made / "senses", "--preset", "small",
                       "--max_steps", 30, "--train_batch_size", 8, "--save_steps", 3, "--eval_steps", 5, "--logging_steps", 2],
             "senses": ["senses", "build", "CoLA", "--teacher", made / "teacher/best", "--num_senses", 3, "--max_tokens", 64]}[verb]
    return [str(word) for word in (*given, "--data_dir", glue, "--bf16", False, "--output_dir", out)]


def result(verb: str, out: Path) -> dict:
    return {"senses": (out / "senses.safetensors").read_bytes()} if verb == "senses" else left_behind(out)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("verb", ["train", "senses", "pretrain"])
def test_a_command_killed_again_and_again_ends_as_if_nothing_had_happened(verb, ranks, made, tiny_glue, tmp_path):
    for name in ("whole", "again"):  # the first also imports what the server of processes has not
        started = time.monotonic()
        assert end(begin(words(verb, made, tiny_glue, tmp_path / name), ranks, tmp_path / "said"), 120)
    seconds, expected = time.monotonic() - started, result(verb, tmp_path / "whole")
    assert_same(result(verb, tmp_path / "again"), expected)
    draw, kills, finished = random.Random(ranks), 0, 0
    while kills < KILLS:
        out = tmp_path / f"killed-{finished}"
        while not (out / "DONE").exists():
            patience = draw.uniform(0, 1.2 * seconds) if kills < KILLS else 120
            kills += not end(begin(words(verb, made, tiny_glue, out), ranks, tmp_path / "said"), patience)
        assert_same(result(verb, out), expected)
        finished += 1
    print(f"{verb}, {ranks} ranks: {kills} kills, {finished} runs ended, all equal")


def test_a_rank_whose_peer_was_killed_ends_with_one_line_and_the_run_goes_on(made, tiny_glue, tmp_path):
    command = words("train", made, tiny_glue, tmp_path / "run")
    ranks = begin(command, 2, tmp_path / "said")
    while not (tmp_path / "run/last").exists():
        time.sleep(0.05)
    ranks[1].kill()
    ranks[0].join(30)
    assert ranks[0].exitcode == 1
    (said,) = [line for line in (tmp_path / "said.0").read_text().splitlines() if "error" in line.lower()]
    assert said.startswith("error: another rank of this run is gone")
    assert end(begin(command, 1, tmp_path / "said"), 60) and (tmp_path / "run/DONE").exists()
