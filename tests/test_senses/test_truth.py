"""How agreement with the true senses is counted, on hand-made cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.senses.dictionary import SenseDictionary
from distill.senses.truth import Agreement, Occurrences, agreement, compare_layers, score_dictionary


def occurrences() -> Occurrences:
    """`bank`: token 0 at x < 0 for one sense, x > 0 for the other; `pitch`: token 1, its senses 3 and 4 along y."""
    states = [[-5, 0], [-4, 0], [4, 0], [5, 0], [0, -5], [0, -4], [0, 4], [0, 5]]
    return Occurrences(np.array(["bank"] * 4 + ["pitch"] * 4), np.array([1, 1, 2, 2, 3, 3, 4, 4]),
                       torch.tensor([0] * 4 + [1] * 4), torch.tensor([states], dtype=torch.float32))


def test_agreement_is_one_for_the_truth_renamed_and_counts_each_word_by_itself():
    truth = occurrences()
    assert agreement(np.array([7, 7, 0, 0, 1, 1, 2, 2]), truth) == dict.fromkeys(("bank", "pitch", "all words"), Agreement(1.0, 1.0))
    found = agreement(np.array([0, 0, 1, 1, 0, 0, 0, 0]), truth)  # bank found, pitch not told apart
    assert (found["bank"], found["pitch"], found["all words"]) == (Agreement(1, 1), Agreement(0, 0), Agreement(0.5, 0.5))


def test_agreement_has_its_hand_computed_values():
    split = agreement(np.array([0, 1, 2, 2, 0, 0, 0, 1]), occurrences())
    # bank: {1 | 2 | 3 4} against {1 2 | 3 4}: pairs in common 1, found 1, true 2, of 6: (1 - 1/3) / (3/2 - 1/3) = 4/7
    assert split["bank"].adjusted_rand == pytest.approx(4 / 7) and split["bank"].homogeneity == pytest.approx(1)
    # pitch: {1 2 3 | 4} against {1 2 | 3 4}: in common 1, found 3, true 2: (1 - 1) / (5/2 - 1) = 0
    assert split["pitch"].adjusted_rand == pytest.approx(0)
    information = 1 - 0.75 * (np.log2(3) - 2 / 3)  # 1 bit less what is left in {3, 3, 4}
    assert split["pitch"].homogeneity == pytest.approx(information)
    assert split["all words"].adjusted_rand == pytest.approx(2 / 7)


def test_a_dictionary_is_scored_by_its_own_look_up_and_layers_by_their_clusters():
    truth = occurrences()
    good = SenseDictionary.from_senses({0: torch.tensor([[-4.0, 0], [4, 0]]), 1: torch.tensor([[0.0, -4], [0, 4]])}, {})
    blind = SenseDictionary.from_senses({0: torch.tensor([[0.0, 4], [0, -4]]), 1: torch.tensor([[0.0, -4], [0, 4]])}, {})
    assert score_dictionary(good, truth)["all words"].adjusted_rand == 1
    assert score_dictionary(blind, truth)["bank"].adjusted_rand < 1 == score_dictionary(blind, truth)["pitch"].adjusted_rand
    noise = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]] * 2)
    both = replace(truth, states_LMD=torch.stack([truth.states_LMD[0], noise]))
    told, untold = compare_layers(both, both, num_senses=2, seed=0)
    assert told["all words"].adjusted_rand == 1 and untold["all words"].adjusted_rand <= 0
