"""Models by name: what tells their weights from others that had the name before."""

import shutil

import pytest
import torch
from huggingface_hub import constants

from models.checkpoint import load_encoder
from models.encoder import TaskInfo
from models.pretrained import masked_lm, minilm_folder, model_fingerprint, pretrained_encoder, resolve_model
from models.weights import fingerprint
from tests.finished import edit


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


@pytest.mark.parametrize("looks", ["a/path/of/three", "run"])
def test_a_run_directory_is_no_model_and_its_checkpoint_is_named(looks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / looks / "best").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{looks} is a run directory: give the checkpoint in it, {looks}/best"):
        resolve_model(looks)
