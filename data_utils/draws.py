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


def tenth_of_each(uid: np.ndarray, stratum: np.ndarray) -> np.ndarray:
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


def in_quiz(train: EncodedDataset) -> np.ndarray:
    """Which examples of `train` are its quiz, bool [N]: a tenth of every class, of whole scores, or of the groups. No token is read."""
    if train.group is None:
        return tenth_of_each(train.uid, np.rint(train.target))
    asked = tenth_of_each(train.group, np.zeros(len(train)))
    return np.isin(train.group, train.group[asked])


def split_quiz(train: EncodedDataset) -> tuple[EncodedDataset, EncodedDataset]:
    """(what stays to train on, the quiz)."""
    asked = in_quiz(train)
    return train.take(np.flatnonzero(~asked)), train.take(np.flatnonzero(asked))


def some(uid: np.ndarray, most: int) -> np.ndarray:
    """The places, in order, of the `most` examples whose splitmix64(2^33 + uid) is smallest; of all where they are no more."""
    keys = splitmix64(uid.astype(np.uint64) + (np.uint64(1) << np.uint64(33)))
    return np.sort(np.argsort(keys)[:most])
