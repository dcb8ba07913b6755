"""A packed corpus: documents as token ids in one memory-mapped array. `python -m distill data pack` makes it.

    ids.bin      uint16 or uint32 [tokens], no special tokens; document d owns ids[offsets[d] : offsets[d + 1]]
    offsets.npy  int64 [documents + 1]
    counts.npy   int64 [vocabulary]: how often each token occurs
    tokenizer/   what made the ids
    corpus.json  sources, settings, sizes, fingerprint; written last
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IDS, OFFSETS, COUNTS, TOKENIZER, FACTS = "ids.bin", "offsets.npy", "counts.npy", "tokenizer", "corpus.json"
HELD_OUT_EVERY = 200  # documents
FEWEST = 2  # documents, one of them held out
SMALL_VOCABULARY = 1 << 16  # what uint16 can count


def id_type(vocabulary: int) -> np.dtype:
    """The smallest type of ids.bin that holds the ids of such a vocabulary."""
    return np.dtype(np.uint16 if vocabulary <= SMALL_VOCABULARY else np.uint32)


@dataclass(frozen=True)
class Corpus:
    """ids is mapped, not read. special_ids: pad, cls, sep, mask, and `all` that are no text. fingerprint: of ids, offsets and tokenizer."""

    folder: Path
    ids: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    special_ids: dict
    fingerprint: str

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """The corpus in `folder`; ValueError with the command that makes one where there is none, or not all of it."""
        folder = Path(folder).expanduser()
        command = f"python -m distill data pack TEXT --tokenizer MODEL --output_dir {folder}"
        if not (folder / FACTS).is_file():
            raise ValueError(f"no packed corpus in {folder} (no {FACTS}): make it, or resume making it, by: {command}")
        try:
            facts = json.loads((folder / FACTS).read_text())
            ids = np.memmap(folder / IDS, id_type(facts["vocabulary"]), mode="r")
            offsets, counts = np.load(folder / OFFSETS), np.load(folder / COUNTS)
            special_ids, fingerprint, made = facts["special_ids"], facts["fingerprint"], (facts["tokens"], facts["documents"], facts["vocabulary"])
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"the corpus in {folder} is damaged ({error}): remove it, and make it again by: {command}") from error
        found = (len(ids), len(offsets) - 1, len(counts))
        if found != made or offsets[-1] != len(ids):
            raise ValueError(f"the corpus in {folder} is damaged: {FACTS} tells of (tokens, documents, vocabulary) {made}, the files "
                             f"hold {found}: remove it, and make it again by: {command}")
        return cls(folder, ids, offsets, counts, special_ids, fingerprint)

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def vocabulary(self) -> int:
        return len(self.counts)

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer."""
        return self.folder / TOKENIZER

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """(documents to train on, documents held out): numbers, int64. Held out is every 200th, from the first one on.

        ValueError for a corpus of a single document.
        """
        if self.documents < FEWEST:
            raise ValueError(f"the corpus in {self.folder} is a single document: none can be held out. Pack it again with documents that "
                             "are separated: --documents blank (blank lines) or line")
        numbers = np.arange(self.documents)
        held = numbers % HELD_OUT_EVERY == 0
        return numbers[~held], numbers[held]

    @property
    def held_out_share(self) -> float:
        """The share of the tokens that lies in documents held out: of documents that differ much in size not that of the documents."""
        return float(np.diff(self.offsets)[self.split()[1]].sum() / self.tokens)
