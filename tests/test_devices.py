"""Every recipe on a device beside the CPU (tests/second_device.py): no tensor is left behind, and the work is done there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill import recipes
from distill.precision import tensor_cores
from tests import pretraining

ROOT = Path(__file__).resolve().parents[1]
STRICT = """
import torch
from tests.second_device import FAR, Device, Functions
with Functions(), Device():
    far, near = torch.ones(2, 2, device=FAR), torch.ones(2, 2)
    for line in ("(far @ near.to(FAR) + 1).cpu()", "far[near > 0].device", "(far + torch.tensor(1)).device", "far + near", "near + far[0, 0]",
                 "near[far > 0]", "near.add_(far)", "torch.where(near > 0, far, 0)", "far.numpy()"):
        try:
            print(eval(line))
        except (RuntimeError, TypeError) as error:
            print("refused:", error)
    with torch.autocast("far", torch.bfloat16):
        print(torch.nn.functional.linear(far, far).dtype, torch.nn.functional.layer_norm(far.bfloat16(), (2,)).dtype)
"""


def alone(*words) -> subprocess.CompletedProcess:
    """A Python process: the device is there for good once it is."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, text=True, capture_output=True, check=False)


def test_the_device_is_as_strict_as_cuda():
    done = alone("-c", STRICT)
    *lines, types = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.startswith("refused: ") for line in lines] == [False] * 3 + [True] * 6, done.stdout + done.stderr
    assert types == "torch.bfloat16 torch.float32"


def test_tensor_cores_serve_predictions_on_cuda_and_nothing_after_them():
    usual = torch.get_float32_matmul_precision()
    with tensor_cores(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == usual == "highest"
    with pytest.raises(KeyboardInterrupt), tensor_cores(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyboardInterrupt
    assert torch.get_float32_matmul_precision() == usual


def test_every_recipe_runs_on_a_device_beside_the_cpu(tiny_bert, tiny_deberta, tiny_glue, superglue, squad, tmp_path):
    commands, trained = [], set()

    def add(*words) -> None:
        commands.append([str(word) for word in words])

    def train(recipe: str, task: str, data: Path, *more) -> None:
        trained.add(recipe)
        add("train", recipe, task, "--data_dir", data, "--output_dir", tmp_path / f"{recipe}-{task}", "--train_batch_size", 16, "--max_steps", 2,
            "--bf16", True, *more)

    bert, deberta = (("--teacher", tmp_path / f"finetune-{task}" / "best") for task in ("CoLA", "STS-B"))
    senses = tmp_path / "senses"
    train("finetune", "CoLA", tiny_glue, "--model", tiny_bert)
    add("senses", "build", "CoLA", *bert, "--output_dir", senses, "--data_dir", tiny_glue, "--bf16", True)
    train("sense_kd", "CoLA", tiny_glue, *bert, "--senses", senses, "--relation_weight", 1, "--relation_heads", 8)
    add("evaluate", "CoLA", "--checkpoint", tmp_path / "sense_kd-CoLA" / "best", "--senses", senses, "--data_dir", tiny_glue)
    train("tinybert", "CoLA", tiny_glue, *bert, "--attention_weight", 1)
    train("self_teaching", "CoLA", tiny_glue, "--model", tiny_bert, "--schedule", "4,2")
    train("finetune", "STS-B", tiny_glue, "--model", tiny_deberta)
    train("pkd", "STS-B", tiny_glue, *deberta)
    train("relation_kd", "STS-B", tiny_glue, *deberta, "--relation_heads", 8, "--max_cache_gib", 0)
    train("finetune", "SQuAD", squad, "--model", tiny_bert, "--stride", 8, "--max_query_length", 8)
    train("logit_kd", "SQuAD", squad, "--teacher", tmp_path / "finetune-SQuAD" / "best", "--stride", 8, "--max_query_length", 8)
    train("mpdistil", "RTE", superglue, "--model", tiny_bert, "--tasks", "COPA", "--num_episodes", 2, "--episode_batch_size", 1,
          "--num_train_epochs", 1, "--teacher_epochs", 1, "--meta_epochs", 1)
    trained.add("pretrain")
    add(*pretraining.words(pretraining.write_places(tmp_path), tmp_path / "pretrained", "--layout", "packed", "--bf16", True, "--max_steps", 2,
                           "--relation_weight", 1, "--attention_weight", 1, "--hidden_weight", 1))
    assert trained == set(recipes.names()), "a new recipe belongs here too"
    (tmp_path / "commands").write_text("\n".join(map(json.dumps, commands)))
    done = alone("-m", "tests.second_device", tmp_path / "commands")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("status")]
    assert [line[1] for line in lines] == ["0"] * len(commands), done.stderr[-6000:]
    assert min(int(line[3]) for line in lines) > 100  # and not on the CPU
