"""Reading states through senses at inference: against a loop over tokens, and against the encoder alone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from data_utils.tasks import get_task
from distill import workers
from distill.bench.corpus import encoder_for, sentences, token_states
from distill.bench.timing import Comparison, timed
from distill.evaluate import predict
from distill.senses.dictionary import SenseDictionary
from models.encoder import Encoder
from models.heads import SenseLookup

NUM_SENSES = 20
EXAMPLES = 256  # that are read, of the text's mean length


def comparisons(cfg) -> Iterator[Comparison]:
    """Senses: up to NUM_SENSES states of each type of the text."""
    ids, states_ND = token_states(cfg)
    device, task = workers.device(), get_task(cfg.task)
    lookup = dictionary(ids, states_ND).lookup(device)
    data = sentences(cfg, encoder_for(cfg, task), task, cfg.tokens // 20)
    length = round(float(data.lengths.mean()))
    examples = min(EXAMPLES, len(ids) // length)
    some = np.linspace(0, len(ids) - 1, examples * length).astype(np.int64)
    ids_M, states_MD = torch.from_numpy(ids[some]).to(device), torch.from_numpy(states_ND[some]).float().to(device)

    def check() -> str:
        if not torch.equal(lookup.replace(states_MD, ids_M), loop(lookup, states_MD, ids_M)):
            raise ValueError("the senses that were looked up are not those of the loop")
        return f"the same sense for {len(ids_M)} tokens"

    yield Comparison("senses of all positions", "a loop over tokens", "tokens",
                     timed(lambda: lookup.replace(states_MD, ids_M), len(ids_M)),
                     timed(lambda: loop(lookup, states_MD, ids_M), len(ids_M)), check)
    states_BTD, ids_BT = (flat.unflatten(0, (examples, length)) for flat in (states_MD, ids_M))

    def check_first() -> str:
        ours = lookup.replace(states_BTD[:, 0], ids_BT[:, 0])
        if not torch.equal(ours, loop(lookup, states_BTD.flatten(0, 1), ids_BT.flatten()).view_as(states_BTD)[:, 0]):
            raise ValueError("the senses of the first positions are not those of the loop")
        return f"the same sense for {examples} examples"

    yield Comparison(f"senses of the one position that a head reads, of {length}", "a loop over all tokens of the example", "examples",
                     timed(lambda: lookup.replace(states_BTD[:, 0], ids_BT[:, 0]), examples),
                     timed(lambda: loop(lookup, states_BTD.flatten(0, 1), ids_BT.flatten()), examples), check_first)
    tokens = int(data.lengths.sum())
    for pooling, what in (("cls", "one position"), ("mean", "all positions")):
        plain, through_senses = (timed(lambda encoder=reading(cfg, pooling, senses): predict(encoder, data), tokens)
                                 for senses in (None, lookup))
        yield Comparison(f"prediction through senses, {what}", "the encoder alone", "tokens", through_senses, plain,
                         lambda: "the same encoder in both")


def reading(cfg, pooling: str, lookup: SenseLookup | None) -> Encoder:
    """The encoder with a head that pools `pooling`, through senses where given."""
    encoder = encoder_for(cfg, get_task(cfg.task), pooling).to(workers.device())
    return encoder.with_head_input("senses" if lookup else "continuous", lookup)


def dictionary(ids: np.ndarray, states_ND: np.ndarray) -> SenseDictionary:
    """Up to NUM_SENSES states of every type, as they are."""
    order = np.argsort(ids, kind="stable")
    types, start = np.unique(ids[order], return_index=True)
    return SenseDictionary.from_senses({int(token): torch.from_numpy(states_ND[rows[:NUM_SENSES]])
                                        for token, rows in zip(types, np.split(order, start[1:]))}, {})


def loop(lookup: SenseLookup, states_MD: Tensor, ids_M: Tensor) -> Tensor:
    """Token by token: the sense of the largest dot product."""
    found, offsets = [], lookup.offsets.tolist()
    for state_D, token in zip(states_MD, ids_M.tolist()):
        senses_KD = lookup.centroids[offsets[token]:offsets[token + 1]].float()
        found.append(senses_KD[(senses_KD @ state_D).argmax()] if len(senses_KD) else state_D)
    return torch.stack(found)
