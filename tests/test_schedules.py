"""Schedules: end points, warm-up, monotony, and the published one-cycle's values."""

import numpy as np
import pytest
import torch

from distill.schedules import BETA1, LEARNING_RATE, one_cycle, one_cycle_beta1

PROGRESS = np.linspace(0, 1, 501)


@pytest.mark.parametrize("name, start, peak, end", [("constant", 0, 1, 1), ("linear", 0, 1, 0), ("cosine", 0, 1, 0),
                                                    ("one_cycle", 0.048, 1.2, 0.0048)])
def test_a_schedule_goes_from_its_start_over_its_peak_to_its_end(name, start, peak, end):
    schedule = LEARNING_RATE[name]
    assert [schedule(at, 0.2) for at in (0, 0.2, 1)] == pytest.approx([start, peak, end], abs=1e-12)


def test_every_schedule_is_in_the_tests_above():
    assert set(LEARNING_RATE) == {"constant", "linear", "cosine", "one_cycle"} and set(BETA1) == {"one_cycle"}


@pytest.mark.parametrize("name", LEARNING_RATE)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_a_schedule_rises_in_the_warm_up_and_never_after(name, warmup):
    values = np.array([LEARNING_RATE[name](at, warmup) for at in PROGRESS])
    rising = PROGRESS < warmup
    assert (np.diff(values[rising]) > 0).all()
    assert (np.diff(values[~rising]) <= 1e-12).all()
    assert np.abs(np.diff(values)).max() < 0.6 or warmup == 0.99, "a jump"
    if warmup == 0:
        assert values[0] == pytest.approx(values.max())


@pytest.mark.parametrize("name, middle", [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5), ("one_cycle", 0.6024)])
def test_half_way_down_a_schedule_has_its_hand_computed_value(name, middle):
    assert LEARNING_RATE[name](0.6, 0.2) == pytest.approx(middle)


def test_the_warm_up_of_the_simple_schedules_is_linear():
    for name in ("constant", "linear", "cosine"):
        assert [LEARNING_RATE[name](at, 0.4) for at in (0.1, 0.2, 0.3)] == pytest.approx([0.25, 0.5, 0.75])
    assert one_cycle(0.2, 0.4) == pytest.approx((0.048 + 1.2) / 2)


def test_a_quarter_of_the_cosine_is_a_cosine_and_not_a_line():
    assert LEARNING_RATE["cosine"](0.25, 0.0) == pytest.approx(0.5 + 0.5 * 0.5 ** 0.5)


def test_the_first_momentum_of_one_cycle_falls_and_rises_again():
    assert [one_cycle_beta1(at, 0.1) for at in (0, 0.1, 1)] == pytest.approx([0.95, 0.85, 0.95])
    values = np.array([one_cycle_beta1(at, 0.1) for at in PROGRESS])
    assert (np.diff(values[PROGRESS < 0.1]) < 0).all() and (np.diff(values[PROGRESS >= 0.1]) > 0).all()


def test_one_cycle_is_torchs_with_the_peak_at_1_2():
    steps, warmup = 201, 0.1
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.2, total_steps=steps, pct_start=warmup, final_div_factor=10)
    last_rising = warmup * steps - 1  # torch's peak lies a step early
    for step in range(steps):
        group = optimizer.param_groups[0]
        at = step / last_rising * warmup if step <= last_rising else \
            warmup + (step - last_rising) / (steps - 1 - last_rising) * (1 - warmup)
        assert group["lr"] == pytest.approx(one_cycle(at, warmup), abs=1e-9)
        assert group["betas"][0] == pytest.approx(one_cycle_beta1(at, warmup), abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            cycle.step()
