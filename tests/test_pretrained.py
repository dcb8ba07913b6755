"""Models by name: what tells their weights from others that had the name before."""

import shutil

import pytest
from huggingface_hub import constants

from models.pretrained import minilm_folder, model_fingerprint
from models.weights import fingerprint


def test_the_weights_of_a_folder_are_told_by_all_their_files_and_minilms_like_a_folders(tiny_bert, tmp_path):
    assert model_fingerprint(str(tiny_bert)) == fingerprint(tiny_bert) and len(fingerprint(tiny_bert)) == 16
    assert model_fingerprint("minilm") == fingerprint(minilm_folder())
    (tmp_path / "pytorch_model.bin").write_bytes(b"one")
    first = fingerprint(tmp_path)
    (tmp_path / "pytorch_model-2.bin").write_bytes(b"two")
    assert first in fingerprint(tmp_path) != first


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
