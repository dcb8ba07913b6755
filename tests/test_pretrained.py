"""Models by name: what tells their weights from others that had the name before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants

from models.checkpoint import load_encoder
from models.encoder import TaskInfo
from models.pretrained import (
    _load,
    load_config,
    masked_lm,
    minilm_folder,
    model_fingerprint,
    pretrained_encoder,
    resolve_model,
)
from models.weights import fingerprint
from tests.finished import edit
from tests.hub import COMMIT, serving


def test_the_weights_of_a_folder_are_told_by_all_their_files_and_minilms_like_a_folders(tiny_bert, tmp_path):
    assert model_fingerprint(str(tiny_bert)) == fingerprint(tiny_bert) and len(fingerprint(tiny_bert)) == 16
    assert model_fingerprint("minilm") == fingerprint(minilm_folder())
    (tmp_path / "pytorch_model.bin").write_bytes(b"one")
    first = fingerprint(tmp_path)
    (tmp_path / "pytorch_model-2.bin").write_bytes(b"two")
    assert first in fingerprint(tmp_path) != first


def test_fresh_weights_are_float32_whatever_the_configuration_says(tiny_bert, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, tmp_path / name)
    edit(tmp_path / "config.json", dtype="float16")
    encoder = pretrained_encoder(str(tmp_path), TaskInfo("RTE", 1, ("a", "b"), ("x", "y"), "mean"), 0.0, random_init=True)
    assert {parameter.dtype for parameter in (*encoder.parameters(), *masked_lm(str(tmp_path), random_init=True).parameters())} == {torch.float32}
    encoder.save(tmp_path)
    edit(tmp_path / "config.json", dtype="float16")
    again = load_encoder(tmp_path)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("offline", ["0", "1"])
def test_the_weights_of_a_hub_id_are_told_by_its_commit_in_the_cache(tiny_bert, tmp_path, monkeypatch, offline):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = []
    for commit in ("0" * 40, "1" * 40):
        model = tmp_path / "models--some--model"
        shutil.copytree(tiny_bert, model / "snapshots" / commit)
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs/main").write_text(commit)
        found.append(model_fingerprint("some/model"))
    assert found == ["0" * 40, "1" * 40]


@pytest.mark.parametrize("reachable", [True, False])
def test_what_the_cache_lacks_of_a_hub_model_is_fetched_at_the_commit_that_it_has(reachable, tiny_bert, tmp_path, monkeypatch):
    """A cache that holds the configuration alone, as after the first thing that a command looks at."""
    def model_info(api, name, timeout):
        if not reachable:
            raise ConnectionError("no network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(HfApi, "model_info", model_info)
    name, commit = f"some/{reachable}", "2" * 40  # what the hub says of a name is asked once
    snapshot = tmp_path / f"models--some--{reachable}/snapshots" / commit
    snapshot.mkdir(parents=True)
    shutil.copy(tiny_bert / "config.json", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(commit)
    assert _load(lambda path, **where: (path, where), name, "weights") == (name, {"revision": commit, "local_files_only": not reachable})
    if reachable:
        assert _load(lambda path, **where: where, "some/other", "weights") == {"revision": "main", "local_files_only": False}
    else:
        with pytest.raises(ValueError, match="cannot load the weights of 'some/None': no network"):
            _load(lambda path, **where: where, "some/None", "weights")


INFO = TaskInfo("RTE", 1, ("a", "b"), ("x", "y"), "mean")
LOAD = """
import sys
from distill.__main__ import main
from tests.test_pretrained import contents

main(["data", "name", "RTE"])  # which sets what is logged
for name in sys.argv[1:]:
    print(contents(name))
"""


def contents(name: str) -> str:
    """The words and the weights of a model, in one line."""
    encoder = pretrained_encoder(name, INFO, 0.0)
    total = sum(tensor.double().sum().item() for tensor in encoder.backbone.parameters())
    return f"{encoder.tokenizer('the film').input_ids} {total} {'' if '/' == name[0] else model_fingerprint(name)}"


def test_a_model_is_fetched_once_and_read_from_the_cache_when_the_hub_is_gone(tiny_bert, tiny_deberta, tmp_path):
    models = {"some/bert": tiny_bert, "some/deberta": tiny_deberta}
    expected = [contents(str(folder)) + COMMIT for folder in models.values()]
    with serving(models) as hub:
        place = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        twice = load(*models, *models, **place)
        fetched = [asked for asked in hub.asked if asked.startswith("GET") and "/resolve/" in asked]
        assert len(fetched) == len(set(fetched)) >= 6
    assert twice == 2 * expected and load(*models, **place) == expected


def load(*names: str, **environment: str) -> list[str]:
    """contents() of models as a process of its own finds them, which says nothing else."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", LOAD, *names], capture_output=True, text=True, cwd=root, env=os.environ | environment, check=True)
    assert "HTTP" not in done.stderr and "Retrying" not in done.stderr, done.stderr
    return done.stdout.splitlines()[1:]


def test_a_configuration_without_a_kind_of_model_says_what_to_write_into_it(tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "bare")
    config = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "bare/config.json").write_text(json.dumps({name: value for name, value in config.items() if name != "model_type"}))
    with pytest.raises(ValueError, match='"model_type": "bert"'):
        load_config(str(tmp_path / "bare"))


def test_a_model_of_which_layers_are_missing_is_refused(tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}))
    with pytest.raises(ValueError, match="lack 16 tensors of the model that its config.json describes .encoder.layer.4"):
        pretrained_encoder(str(tmp_path / "model"), TaskInfo("CoLA", 1, ("sentence",), ("x", "y"), "cls"), 0.0)


@pytest.mark.parametrize("looks", ["a/path/of/three", "run"])
def test_a_run_directory_is_no_model_and_its_checkpoint_is_named(looks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / looks / "best").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{looks} is a run directory: give the checkpoint in it, {looks}/best"):
        resolve_model(looks)
