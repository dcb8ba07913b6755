"""Sampled states in a file and in the memory of the device: the same, and which of them is chosen."""

import numpy as np
import pytest
import torch

from distill import workers
from distill.senses import states
from distill.senses.states import DeviceStates, MappedStates, sampled_states

SHAPE = (50, 6)


@pytest.fixture
def both(tmp_path):
    """The same 50 rows, put in two parts, in either kind of place."""
    found = MappedStates(tmp_path / "vectors.bin", SHAPE), DeviceStates(SHAPE)
    draw = np.random.default_rng(0)
    hidden_ND, row = torch.randn(90, 6, generator=torch.Generator().manual_seed(0)), draw.permutation(50)
    place = draw.permutation(90)[:50]
    for kept in found:
        kept.put(row[:25], hidden_ND, place[:25])
        kept.put(row[25:], hidden_ND, place[25:])
        np.testing.assert_array_equal(np.stack([kept.rows(r, r + 1)[0] for r in row]), hidden_ND[place].half().numpy())
    return found


def test_both_give_the_same_problems_padded_with_zeros(both):
    starts, counts = np.array([0, 10, 30]), np.array([10, 20, 5])
    mapped, device = (kept.problems(starts, counts, np.array([2, 0])) for kept in both)
    assert mapped.shape == (2, 10, 6) and not mapped[0, 5:].any()
    assert torch.equal(mapped, device)
    assert torch.equal(torch.from_numpy(both[0].rows(30, 35)), mapped[0, :5])


def test_only_what_is_in_a_file_is_there_after_a_kill(both, tmp_path):
    mapped, device = both
    assert mapped.flush() and not device.flush()
    np.testing.assert_array_equal(MappedStates(tmp_path / "vectors.bin", SHAPE).rows(0, 50), mapped.rows(0, 50))


@pytest.mark.parametrize("free, ranks, kind", [(2 * 600, 1, DeviceStates), (2 * 600 - 1, 1, MappedStates), (0, 1, MappedStates),
                                               (1 << 30, 2, MappedStates)])
def test_states_are_in_memory_where_half_of_what_is_free_holds_them(monkeypatch, tmp_path, free, ranks, kind):
    monkeypatch.setattr(states, "free_memory", lambda: free)
    monkeypatch.setattr(workers, "world", lambda: ranks)
    monkeypatch.setattr(workers, "on_main", lambda action: action())
    assert type(sampled_states(tmp_path / "vectors.bin", SHAPE)) is kind
