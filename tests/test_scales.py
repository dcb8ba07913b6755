"""Terms of a loss that are far apart are said, once and early."""

import json
import logging

import pytest

from distill.scales import scale_warning
from tests.training import Parts, settings

pytestmark = pytest.mark.usefixtures("exact")


@pytest.mark.parametrize("terms, weights, said", [
    ({"ce": 1.0, "kl": 0.005}, {"ce": 1.0, "kl": 1.0}, "200 times apart: kl 0.005 (weight 1 x 0.005) and ce 1 (weight 1 x 1); kl may"),
    ({"ce": 1.0, "kl": 1.0}, {"ce": 1.0, "kl": 1000.0}, "1000 times apart: ce 1 (weight 1 x 1) and kl 1e+03 (weight 1000 x 1); ce may"),
    ({"ce": 1.0, "kl": 0.5, "cls": 300.0}, {"ce": 2.0, "kl": 1.0, "cls": 1.0}, "600 times apart: kl 0.5 (weight 1 x 0.5) and cls 300 "),
    ({"ce": -1.0, "kl": 0.001}, {"ce": 1.0, "kl": 1.0}, "1000 times apart: kl 0.001")])
def test_the_two_terms_that_are_farthest_apart_are_named_with_weights_and_values(terms, weights, said):
    assert said in scale_warning(terms, weights, [])


@pytest.mark.parametrize("terms, weights", [
    ({"ce": 1.0, "kl": 0.01}, {"ce": 1.0, "kl": 1.0}), ({"ce": 1.0, "kl": 0.001}, {"ce": 1.0, "kl": 10.0}),
    ({"ce": 1.0, "kl": 0.0}, {"ce": 1.0, "kl": 1.0}), ({"ce": 1.0, "kl": 1e-9}, {"ce": 1.0, "kl": 0.0}), ({"ce": 1.0}, {"ce": 1.0}), ({}, {})])
def test_comparable_terms_and_those_that_are_zero_or_have_no_weight_are_not_warned_of(terms, weights):
    assert scale_warning(terms, weights, ["ce_weight"]) is None


def warnings_of(caplog, parts: Parts, path) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        parts.train(path)
    return [record.message for record in caplog.records if "times apart" in record.message]


@pytest.mark.parametrize("logging_steps, max_steps", [(1, 14), (3, 14), (10, 11), (50, 12), (50, 3)])
def test_a_run_says_it_once_and_names_the_settings(tiny_bert, tmp_path, caplog, logging_steps, max_steps):
    cfg = settings(sense_weight=1e-6, logging_steps=logging_steps, max_steps=max_steps, kl_weight=0.0)
    (said,) = warnings_of(caplog, Parts(tiny_bert, "senses", cfg), tmp_path)
    assert "sense " in said and "(weight 1e-06 x " in said and "(weight 1.3 x " in said
    assert "--ce_weight" in said and "--sense_weight" in said


def test_a_run_whose_terms_are_comparable_or_only_start_apart_says_nothing(tiny_bert, tmp_path, caplog):
    """A new student's answers are those of a new teacher, at first."""
    cfg = settings(logging_steps=1, max_steps=12, learning_rate=1e-2)
    assert warnings_of(caplog, Parts(tiny_bert, "senses", cfg), tmp_path / "senses") == []
    first = json.loads((tmp_path / "senses/log.jsonl").read_text().splitlines()[0])
    assert first["terms"]["kl"] < first["terms"]["ce"] / 1000
    parts = Parts(tiny_bert, "labels", settings(max_steps=12))
    assert warnings_of(caplog, parts, tmp_path / "labels") == []
