"""The measurements: rates and ratios of known rounds, records, and every part on a tiny model."""

import json
import re
import time
from dataclasses import replace

import pytest
import torch

from distill.bench import attention, cache, cluster, collect, dev_score, lookup, packing, profile, training, words
from distill.bench.records import SpeedRecord, record_of, speed_table
from distill.bench.timing import Comparison, Machine, Timing, calibrate, measure, timed, training_flops
from distill.config import parse
from distill.report import read_records, write_records
from distill.verbs.bench import BenchConfig, main

FAKE = Comparison("part", "the alternative", "tokens", lambda: (10, 1.0), lambda: (10, 4.0), lambda: "equal", flops=5e8)
MACHINE = Machine(gemm_float32=10.0, gemm_bfloat16=20.0, copy=1.0)


@pytest.fixture
def cfg(tiny_bert, tiny_glue):
    return BenchConfig(model=str(tiny_bert), task="CoLA", data_dir=str(tiny_glue), steps=3, rounds=1, tokens=1000)


def test_the_ratio_is_that_of_the_best_rounds_taken_in_turns():
    seconds, order = {"ours": iter([9.0, 1.0, 2.0, 3.0]), "theirs": iter([9.0, 8.0, 4.0, 6.0])}, []

    def side(name):
        def once():
            order.append(name)
            return 8, next(seconds[name])
        return once

    found = measure(replace(FAKE, ours=side("ours"), theirs=side("theirs")), 3)
    assert (found.ours, found.ours_median, found.theirs, found.theirs_median) == (8.0, 4.0, 2.0, pytest.approx(8 / 6))
    assert found.ratio == 4.0 and order == ["ours", "theirs"] * 4


def test_a_short_round_is_repeated_until_it_can_be_timed():
    seconds = iter([9.0, 0.05, 0.07, 0.09, 0.3])
    found = measure(replace(FAKE, ours=lambda: (8, next(seconds))), 2)
    assert (found.ours, found.ours_median) == (pytest.approx(24 / 0.21), pytest.approx((24 / 0.21 + 8 / 0.3) / 2))


def test_a_timed_round_counts_its_work_and_its_seconds():
    amount, seconds = timed(lambda: time.sleep(0.02), 7)()
    assert amount == 7 and 0.02 <= seconds < 1


def test_operations_of_a_training_step_are_three_forward_passes():
    class Shape:
        num_hidden_layers, hidden_size, intermediate_size = 2, 3, 12

    assert training_flops(Shape, 5) == 3 * 2 * (24 * 3**2 + 4 * 5 * 3)


def test_a_record_says_the_share_of_the_peak_and_replaces_the_same_comparison(tmp_path):
    record = record_of(FAKE, measure(FAKE, 1), "equal", MACHINE)
    assert (record.ratio, record.peak_percent, record.unit) == (4.0, pytest.approx(50.0), "tokens")
    assert record_of(replace(FAKE, bfloat16=True), measure(FAKE, 1), "equal", MACHINE).peak_percent == pytest.approx(25.0)
    path = tmp_path / "speed.jsonl"
    for new in (record, replace(record, part="other"), replace(record, ratio=5.0)):
        write_records(path, [new])
    assert [(found.part, found.ratio) for found in read_records(path, SpeedRecord)] == [("part", 5.0), ("other", 4.0)]
    with path.open("a") as file:
        file.write(json.dumps({"part": "half"}) + "\n")
    with pytest.raises(ValueError, match="speed.jsonl:3"):
        read_records(path, SpeedRecord)


def test_the_table_marks_what_was_measured_beside_other_work():
    record = record_of(FAKE, Timing(10, 10, 5, 5, rounds=1, disturbed=True), "equal to 1e-6", MACHINE)
    quiet = replace(record, disturbed=False, peak_percent=None, part="quiet")
    lines = speed_table([record, quiet]).splitlines()[2:]
    assert "2.00 (disturbed) |" in lines[0] and "| 50 % |" in lines[0] and "equal to 1e-6" in lines[0]
    assert "| 2.00 |" in lines[1] and "| - |" in lines[1]


def test_the_machine_is_measured(monkeypatch):
    monkeypatch.setattr("distill.bench.timing.GEMM_SIZE", 128)
    found = calibrate(torch.device("cpu"))
    assert min(found.gemm_float32, found.gemm_bfloat16, found.copy) > 0


def test_packed_and_padded_steps_have_as_many_tokens(cfg, monkeypatch):
    monkeypatch.setattr(packing, "LENGTH", 40)
    monkeypatch.setattr(packing, "ROWS", 2)
    for comparison in packing.comparisons(replace(cfg, steps=25)):
        assert comparison.theirs()[0] == pytest.approx(comparison.ours()[0], rel=0.08)


def test_rows_that_are_padded_to_a_length_stay_so_in_every_micro_batch():
    real = (torch.arange(6) < torch.tensor([3, 6, 2, 5])[:, None]).long()
    batch = packing.Wide("text", torch.arange(4), real, real, 0 * real, real)
    parts = [part for rank in range(2) for part in batch.shard(rank, 2).split(packing.LENGTH)]
    assert [tuple(part.input_ids.shape) for part in parts] == [(1, packing.LENGTH)] * 4 and sum(part.tokens for part in parts) == 16
    assert len(batch.split(2 * packing.LENGTH)) == 2


@pytest.mark.parametrize("part", [training, cache, collect, lookup, cluster, dev_score, packing, words])
def test_every_comparison_finds_both_sides_equal_and_counts_their_work(monkeypatch, cfg, part):
    monkeypatch.setattr(cluster, "INERTIA_AT_MOST", 1.2)  # a handful of types: luck decides
    monkeypatch.setattr(words, "VOCABULARIES", (40, 50))
    monkeypatch.setattr(dev_score, "needed", lambda freedom: 100.0)  # a handful of examples likewise
    for comparison in part.comparisons(cfg):
        assert comparison.check()
        for side in (comparison.ours, comparison.theirs):
            amount, seconds = side()
            assert amount > 0 and seconds > 0


def test_a_comparison_of_unequal_sides_is_refused(monkeypatch, cfg):
    comparison = next(iter(lookup.comparisons(cfg)))
    monkeypatch.setattr(lookup, "loop", lambda lookup, states_MD, ids_M: states_MD)
    with pytest.raises(ValueError, match="not those of the loop"):
        comparison.check()


def test_a_chunked_loss_that_is_wrong_and_pieces_that_see_each_other_are_refused(monkeypatch, cfg):
    monkeypatch.setattr(words, "VOCABULARIES", (40,))
    monkeypatch.setattr(words, "soft_words", lambda student, weight, bias, teacher, temperature: (student @ weight.T + bias).square().sum())
    with pytest.raises(ValueError, match="the chunked loss or its gradients differ"):
        next(words.comparisons(cfg)).check()
    monkeypatch.setattr(packing.TextBatch, "visible", property(lambda batch: batch.attention_mask[:, None].bool()))
    with pytest.raises(ValueError, match="packed and padded rows differ"):
        next(packing.comparisons(cfg)).check()


def test_attention_is_compared_at_every_length(monkeypatch, cfg):
    monkeypatch.setattr(attention, "SHAPE", {**attention.SHAPE, "hidden_size": 64, "num_attention_heads": 1,
                                             "intermediate_size": 64})
    found = [(comparison.part, comparison.against, comparison.check()) for comparison in attention.comparisons(cfg)]
    assert len(found) == 2 * len(attention.LENGTHS) and all(("equal to" in check) == (against != "BERT of equal size") for _, against, check in found)


def test_the_command_prints_a_line_per_comparison_and_writes_records(monkeypatch, capsys, cfg, tmp_path):
    monkeypatch.setattr("distill.bench.timing.GEMM_SIZE", 128)
    main(["--parts", "collect", "--model", cfg.model, "--task", "CoLA", "--data_dir", cfg.data_dir, "--quick",
          "--records", str(tmp_path / "speed.jsonl")])
    (record,) = read_records(tmp_path / "speed.jsonl", SpeedRecord)
    assert record.rounds == 2 and record.command.startswith("python -m distill")
    assert "keeping states, host side" in capsys.readouterr().out


def test_what_is_not_equal_is_named_at_the_end_and_the_rest_is_measured(monkeypatch, cfg, capsys):
    monkeypatch.setattr("distill.bench.timing.GEMM_SIZE", 128)
    monkeypatch.setattr(lookup, "loop", lambda lookup, states_MD, ids_M: states_MD)
    with pytest.raises(ValueError, match="senses of all positions: .* not those of the loop"):
        main(["--quick", "--parts", "lookup,collect", "--model", cfg.model, "--task", "CoLA", "--data_dir", cfg.data_dir])
    table = capsys.readouterr().out
    assert "keeping states, host side" in table and "senses of all positions" not in table


def test_a_profile_gives_each_function_its_share():
    def slow():
        time.sleep(0.06)

    def fast():
        time.sleep(0.02)

    found = profile.by_function("work", lambda: (slow(), fast(), time.sleep(0.02)), {"slow": slow, "fast": fast})
    assert found.percent == pytest.approx({"slow": 60, "fast": 20, "all else": 20}, abs=5) and 0.1 < found.seconds < 0.2


def test_the_profile_finds_every_part_of_a_step_and_of_a_build(cfg, capsys):
    main(["--profile", "True", "--model", cfg.model, "--task", "CoLA", "--data_dir", cfg.data_dir, "--steps", "4"])
    said = capsys.readouterr().out
    assert said.count("100.0 %") == 0 and "all else" in said
    for part in (*profile.STEP, *profile.BUILD, "matrix products", "optimiser"):
        (share,) = re.findall(rf"([\d.]+) %  {re.escape(part)}$", said, re.MULTILINE)
        assert float(share) > 0 or part in ("waiting for the batch", "padding", "centring", "saving"), part


def test_what_is_given_beside_quick_holds(monkeypatch, cfg, tmp_path):
    monkeypatch.setattr("distill.bench.timing.GEMM_SIZE", 128)
    main(["--quick", "--rounds", "3", "--parts", "collect", "--model", cfg.model, "--task", "CoLA", "--data_dir", cfg.data_dir,
          "--records", str(tmp_path / "speed.jsonl")])
    assert read_records(tmp_path / "speed.jsonl", SpeedRecord)[0].rounds == 3


@pytest.mark.parametrize("words, said", [(["--parts", "speed"], "no part 'speed'.*training"), (["--rounds", "0"], "--rounds 0"),
                                         (["--steps", "1"], "--steps 1"), (["--tokens", "10"], "--tokens 10"),
                                         (["--records", "nowhere/speed.jsonl"], "no folder nowhere")])
def test_what_cannot_be_measured_is_refused(words, said):
    with pytest.raises(ValueError, match=said):
        parse(BenchConfig, words)
