"""Draws that are a function of what is drawn: no generator, no state, the same on every machine and in every version."""

import numpy as np

from data_utils.encode import EncodedDataset

HELD_OUT = "heldout"  # the part of train that selects, and what its scores are called
SELECT_ON = ("dev", HELD_OUT)
TENTH = np.uint64(10)


def splitmix64(keys: np.ndarray) -> np.ndarray:
    """A 64-bit mix of uint64 keys (Steele, Lea and Flood 2014): uniform, and a function of the key alone."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def quiz(uid: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Which examples are the quiz of a curriculum: bool [N], of every stratum [N] the tenth (rounded, at least one) whose
    splitmix64(2^32 + uid) is smallest. It depends on rows and strata alone; `python -m distill data quiz TASK` prints it.
    """
    keys = splitmix64(uid.astype(np.uint64) + (np.uint64(1) << np.uint64(32)))
    found = np.zeros(len(uid), bool)
    for kind in np.unique(stratum):
        rows = np.flatnonzero(stratum == kind)
        found[rows[np.argsort(keys[rows])[:max(1, round(len(rows) / 10))]]] = True
    return found


def held_out(uid: np.ndarray) -> np.ndarray:
    """Which examples of a train split are held out: bool [N], true where splitmix64(uid) mod 10 is 0, for uid int64 [N]. Of examples
    that are judged together `uid` is their group's, so that they stay together.

    About a tenth, strewn over the file. It depends on the row's number in its split and on nothing else: every task has one
    such tenth, for all seeds, models and machines; `python -m distill data heldout TASK` prints it.
    """
    return splitmix64(uid.astype(np.uint64)) % TENTH == 0


def split_held_out(train: EncodedDataset) -> tuple[EncodedDataset, EncodedDataset]:
    """(what stays to train on, the held-out tenth), without parting groups."""
    held = held_out(train.uid if train.group is None else train.group)
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


def split_quiz(train: EncodedDataset) -> tuple[EncodedDataset, EncodedDataset]:
    """(what stays to train on, the quiz): the quiz has a tenth of every class, of whole scores, or of the groups."""
    if train.group is None:
        asked = quiz(train.uid, np.rint(train.target))
    else:
        asked = quiz(train.group, np.zeros(len(train)))
        asked = np.isin(train.group, train.group[asked])
    return train.take(np.flatnonzero(~asked)), train.take(np.flatnonzero(asked))
