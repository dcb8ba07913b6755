"""Draws that are a function of what is drawn: no generator, no state, the same on every machine and in every version."""

import numpy as np

TENTH = np.uint64(10)


def splitmix64(keys: np.ndarray) -> np.ndarray:
    """A 64-bit mix of uint64 keys (Steele, Lea and Flood 2014): uniform, and a function of the key alone."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def held_out(uid: np.ndarray) -> np.ndarray:
    """Which examples of a train split are held out: bool [N], true where splitmix64(uid) mod 10 is 0, for uid int64 [N].

    About a tenth, strewn over the file. It depends on the row's number in its split and on nothing else: every task has one
    such tenth, for all seeds, models and machines; `python -m distill data heldout TASK` prints it.
    """
    return splitmix64(uid.astype(np.uint64)) % TENTH == 0
