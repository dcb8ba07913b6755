"""How SQuAD and ReCoRD compare answers: words without case, punctuation and articles (Rajpurkar et al. 2016, arXiv 1606.05250, 6.1)."""

import collections
import re
import string
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)
EXACT = 2.0  # the credit of an answer that is right word for word


def normalised(answer: str) -> str:
    """Lower case, without ASCII punctuation, then without articles, single spaces; in the order of the official script."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer.lower().translate(PUNCTUATION)).split())


def words_f1(found: str, expected: str) -> float:
    """F1 of the words of two answers, as multisets of normalised words; 0.0 where no word is shared."""
    ours, theirs = normalised(found).split(), normalised(expected).split()
    shared = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def credit(found: str, answers: Sequence[str]) -> float:
    """What `found` is worth against the gold `answers`, () where the question has no answer: EXACT where it equals one, normalised,
    else the best F1 of its words with one of them. The right answer to a question without one is an empty one.

    An exact match has F1 1, so that this one number holds both official metrics, exact match and F1, each the best over the golds.
    As the script of SQuAD 2.0. Differs from that of v1.1: there a gold answer of punctuation alone (3 in dev-v1.1) equals an empty one.
    """
    answers = [answer for answer in answers if normalised(answer)] or [""]
    if normalised(found) in map(normalised, answers):
        return EXACT
    return max(words_f1(found, answer) for answer in answers)
