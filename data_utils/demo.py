"""The embedded demo task: sentences whose label is the sense of one ambiguous word, written as a GLUE single-sentence task.

    the ducks slept on the muddy BANK , while the teller counted cash at the new PLACE .      0  (bank/river)
    the ducks slept on the muddy PLACE , while the teller counted cash at the new BANK .      1  (bank/money)

Every sentence holds a cue for both senses, and sentences come in such pairs: the same words, the ambiguous word and a neutral noun
exchanged. So a bag of words carries no information at all; only the clause in which the word stands tells its sense.
Label 0 is the sense that is nature, a body or a plain thing (bank/river, mouse/animal, key/lock); label 1 is the sense that is an
institution, a machine, a game, a sign or an idea (bank/money, mouse/computer, key/music).
No pair of clauses is shared by two splits; about half of dev and of test shows a clause that train never shows.
The true senses are written beside the sentences, so that clusters of hidden states can be scored against them.
"""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data_utils.demo_words import AmbiguousWord, ambiguous_words

SEED = 2024
PAIRS_PER_WORD = {"train": 50, "dev": 10, "test": 10}
WORDS_PER_SENTENCE = range(10, 26)
SENSES_HEADER = "split\trow\tword\tword_index\tsense"
SENTENCE_HEADER = "sentence\tlabel"

# An opening, then two clauses {x} and {y}. Every frame reads well with the clauses in either order.
OPENINGS = ("", "", "", "last week ,", "on sunday ,", "in the film ,", "as we know ,", "she wrote that", "he said that", "i heard that")
FRAMES = ("{x} , and {y}", "{x} , but {y}", "{x} , while {y}", "{x} and later {y}", "{x} before {y}", "{x} after {y}",
          "while {x} , {y}", "after {x} , {y}", "before {x} , {y}", "although {x} , {y}")


@dataclass(frozen=True)
class DemoSentence:
    sentence: str      # words and punctuation marks, separated by single blanks
    label: int         # which of the word's two senses is meant
    word: str
    word_index: int    # among the sentence's blank-separated words
    sense: str         # such as bank/river


@dataclass(frozen=True)
class TrueSense:
    row: int           # of the split's data rows, from 0
    word: str
    word_index: int
    sense: str


def generate() -> dict[str, list[DemoSentence]]:
    """The sentences of "train", "dev" and "test" in file order: the same on every call and every machine."""
    rng = Random(SEED)
    splits: dict[str, list[DemoSentence]] = {split: [] for split in PAIRS_PER_WORD}
    for word in ambiguous_words():
        cells = _clause_pairs_by_split(word)
        for split, n_pairs in PAIRS_PER_WORD.items():
            rng.shuffle(cells[split])
            pairs: list[tuple[DemoSentence, DemoSentence]] = []
            while len(pairs) < n_pairs:
                # Half of the pairs begin with the first sense's clause, so place and label are independent.
                clauses = cells[split][len(pairs) % len(cells[split])]
                pair = _minimal_pair(word, clauses, len(pairs) % 2 == 0, rng)
                if pair not in pairs and len(pair[0].sentence.split()) in WORDS_PER_SENTENCE:
                    pairs.append(pair)
            splits[split] += [sentence for pair in pairs for sentence in pair]
    for sentences in splits.values():
        rng.shuffle(sentences)
    return splits


def write(folder: Path) -> None:
    """Write train.tsv, dev.tsv, test.tsv and senses.tsv into `folder`, which is made where it does not exist.

    The files appear complete or not at all; as their bytes never differ, several processes may write at once.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        senses = [SENSES_HEADER]
        for split, sentences in generate().items():
            senses += [f"{split}\t{row}\t{s.word}\t{s.word_index}\t{s.sense}" for row, s in enumerate(sentences)]
            _write_lines(temporary / f"{split}.tsv", [SENTENCE_HEADER, *(f"{s.sentence}\t{s.label}" for s in sentences)])
        _write_lines(temporary / "senses.tsv", senses)
        try:
            os.rename(temporary, folder)
        except OSError:    # the folder is there and is not empty: another writer was first, or it holds an older version
            if not folder.is_dir():
                raise
            for file in sorted(temporary.iterdir()):
                os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_true_senses(folder: Path, split: str) -> list[TrueSense]:
    """The true sense of the ambiguous word of each sentence of `split`, in row order, from folder/senses.tsv.

    Raises ValueError for an unknown split and, with file:line, for a malformed row; FileNotFoundError without the file.
    """
    if split not in PAIRS_PER_WORD:
        raise ValueError(f"demo has no split {split!r}; its splits are {', '.join(PAIRS_PER_WORD)}")
    path = Path(folder) / "senses.tsv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; data_utils.demo.write({str(folder)!r}) makes it")
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    if header != SENSES_HEADER:
        raise ValueError(f"{path}:1: expected the header {SENSES_HEADER!r}, got {header!r}")
    senses = []
    for number, line in enumerate(lines, start=2):
        try:
            row_split, row, word, word_index, sense = line.split("\t")
            true_sense = TrueSense(int(row), word, int(word_index), sense)
        except ValueError:
            raise ValueError(f"{path}:{number}: expected {SENSES_HEADER!r} separated by tabs, got {line!r}") from None
        if row_split == split:
            senses.append(true_sense)
    return senses


def _clause_pairs_by_split(word: AmbiguousWord) -> dict[str, list[tuple[str, str]]]:
    """All pairs (clause of the first sense, clause of the second), dealt to the splits.

         . second sense ->          t train, d dev, e test; the last row and column are the clauses unknown to train
       first  d e t t t e
       sense  e t t t d d           diagonals i + j = 0 and i + j = 1 modulo 5, so that dev and test
         |    t t t d e e           hold every clause of train equally often
    """
    first, second = word.clauses
    last = len(first) - 1
    cells: dict[str, list[tuple[str, str]]] = {split: [] for split in PAIRS_PER_WORD}
    for i, clause in enumerate(first):
        for j, other in enumerate(second):
            if last in (i, j):
                split = "dev" if (i + j) % 2 == 0 else "test"
            else:
                split = {0: "dev", 1: "test"}.get((i + j) % last, "train")
            cells[split].append((clause, other))
    return cells


def _minimal_pair(word: AmbiguousWord, clauses: tuple[str, str], first_leads: bool, rng: Random) -> tuple[DemoSentence, DemoSentence]:
    """Two sentences of the same words: the ambiguous word in the clause of its first sense, then in that of its second."""
    opening, frame, neutral = rng.choice(OPENINGS), rng.choice(FRAMES), rng.choice(word.neutral)
    first, second = (" ".join(rng.choice(token.split("/")) for token in clause.split()) for clause in clauses)

    def sentence(label: int) -> DemoSentence:
        x = first.replace("_", neutral if label else word.word)
        y = second.replace("_", word.word if label else neutral)
        if not first_leads:
            x, y = y, x
        words = [*opening.split(), *frame.format(x=x, y=y).split(), "."]
        return DemoSentence(" ".join(words), label, word.word, words.index(word.word), word.senses[label])

    return sentence(0), sentence(1)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
