"""Small corpora that the tests write or make up."""

import contextlib
import random
from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from data_utils.corpus.documents import RULES, pieces
from data_utils.corpus.pack import Packed, pack
from data_utils.corpus.sources import Source, find_sources
from tests import tiny

SPECIAL = {"pad": 0, "cls": 2, "sep": 3, "mask": 4, "all": [0, 1, 2, 3, 4]}
FIRST_WORD = 5  # ids below are special


class NoBar:
    """A progress bar that counts."""

    def __init__(self, total, what, unit, done=0):
        self.total, self.done = total, done

    def update(self, count: int) -> None:
        self.done += count


@contextlib.contextmanager
def no_bar(total, what, unit, done=0):
    yield NoBar(total, what, unit, done)


def packed(sources: list, tokenizer, folder: Path, documents: str | None = None) -> Packed:
    return pack([str(source) for source in sources], tokenizer, folder, documents, bar=no_bar)


def made_up(lengths: list[int], vocabulary: int = 4000) -> Corpus:
    """A corpus of documents of these lengths in which no two tokens are alike, but for a vocabulary that is too small for it."""
    total = sum(lengths)
    ids = FIRST_WORD + np.arange(total) % (vocabulary - FIRST_WORD)
    return Corpus(folder=Path("made up"), ids=ids.astype(np.uint16), offsets=np.concatenate([[0], np.cumsum(lengths)]),
                  counts=np.bincount(ids, minlength=vocabulary), special_ids=SPECIAL, fingerprint="")


def texts(source: Source) -> list[str]:
    """The documents of a source; an unknown word as UNK."""
    found, parts = [], []
    for piece in pieces(source.fragments(0), RULES[source.rule]):
        parts.append(" UNK".join(piece.texts))
        if piece.ends:
            found.append("".join(parts))
            parts = []
    return [text for text in found if text]


def documents_of(path: Path, documents: str | None = None) -> list[str]:
    return [text for source in find_sources([str(path)], documents) for text in texts(source)]


def story(words: int, seed: int = 0) -> str:
    """Words that the tiny models know, and some that they don't, each followed by one space."""
    draw = random.Random(seed)
    return " ".join(draw.choice([*tiny.WORDS, "Ünknown", "goodfine", ",", "the."]) for _ in range(words))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
