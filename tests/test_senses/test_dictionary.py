"""Dictionaries as files: ours, and the published ones."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.__main__ import main
from distill.senses.dictionary import SenseDictionary


def test_a_saved_dictionary_is_loaded_whole_and_a_cut_one_refused(tmp_path):
    dictionary = SenseDictionary(torch.randn(5, 8).half(), torch.tensor([0, 2, 2, 5]), torch.tensor([9, 0, 3], dtype=torch.int32),
                                 {"teacher": "abc", "layer": "-1"})
    dictionary.save(tmp_path / "d.safetensors")
    loaded = SenseDictionary.load(tmp_path / "d.safetensors")
    assert all(torch.equal(getattr(loaded, name), getattr(dictionary, name)) for name in ("centroids", "offsets", "counts"))
    assert loaded.provenance == dictionary.provenance and loaded.digest() == dictionary.digest()
    assert replace(dictionary, centroids=-dictionary.centroids).digest() != dictionary.digest()
    data = (tmp_path / "d.safetensors").read_bytes()
    for length in (0, 7, 60, len(data) - 1):
        (tmp_path / "cut.safetensors").write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut.safetensors is not a readable sense dictionary"):
            SenseDictionary.load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("offsets", [[0, 2, 2, 6], [1, 2, 2, 5], [0, 3, 2, 5]])
def test_offsets_that_do_not_divide_the_senses_are_refused_where_they_would_be_read(offsets):
    dictionary = SenseDictionary(torch.randn(5, 8).half(), torch.tensor(offsets), torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match="the table of senses is damaged: its offsets, . to ., do not divide its 5 senses"):
        dictionary.lookup()


def test_export_and_import_give_the_same_senses_back(tmp_path, capsys):
    published, back = tmp_path / "MRPC.kmeanspkl", tmp_path / "back.safetensors"
    one = SenseDictionary(torch.randn(5, 8).half(), torch.tensor([0, 2, 2, 5, 5]), torch.tensor([9, 0, 3, 0], dtype=torch.int32))
    one.save(tmp_path / "own.safetensors")
    assert main(["senses", "export", str(tmp_path / "own.safetensors"), str(published)]) == 0
    assert main(["senses", "import", str(published), str(back)]) == 0
    two = SenseDictionary.load(back)
    assert torch.equal(one.centroids, two.centroids) and two.offsets.tolist() == [0, 2, 2, 5]  # types at the end without senses fall off
    assert two.provenance == {"imported from": str(published)}
    assert main(["senses", "describe", str(published)]) == 0
    assert "2 types with 5 senses of width 8" in capsys.readouterr().out


def test_coverage_counts_tokens_whose_type_has_senses_without_a_table_of_them(monkeypatch):
    monkeypatch.setattr("distill.senses.dictionary.SenseLookup", None)
    one = SenseDictionary(torch.randn(5, 8).half(), torch.tensor([0, 2, 2, 5, 5]), torch.tensor([9, 0, 3, 0], dtype=torch.int32))
    assert one.coverage(np.array([0, 2, 1, 3, 0, 0, 9, 4], np.int32)) == 4 / 8  # ids beyond the table have none


@pytest.mark.parametrize("provenance, said", [({}, None), ({"imported from": "MRPC.kmeanspkl"}, None), ({"teacher": "abc", "layer": "-1"}, None),
                                              ({"teacher": "abc", "layer": "6"}, None), ({"teacher": "abd", "layer": "-1"}, "another teacher"),
                                              ({"teacher": "abc", "layer": "5"}, "from layer 5"), ({"layer": "0"}, "with --layer 6")])
def test_a_dictionary_fits_a_teacher_unless_it_says_that_it_was_built_from_other_states(provenance, said):
    dictionary = SenseDictionary(torch.randn(5, 8).half(), torch.tensor([0, 2, 2, 5]), torch.tensor([9, 0, 3]), provenance)
    with pytest.raises(ValueError, match=said) if said else nullcontext():
        dictionary.check_teacher("abc", 6)
