"""Sources -> a packed corpus: read in pieces, tokenised on all cores, appended, committed; in bounded memory."""

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from data_utils.corpus import COUNTS, FACTS, FEWEST, HELD_OUT_EVERY, OFFSETS, TOKENIZER, Corpus, id_type
from data_utils.corpus.documents import RULES, Piece, pieces
from data_utils.corpus.journal import Journal, Progress, replace, to_json
from data_utils.corpus.sources import Source, find_sources

BATCH = 1 << 20  # characters that are tokenised together: the cores share them
BLOCK = 1 << 22  # tokens that are counted together
FORMAT = 2  # 1 kept line breaks `<br />`
SPECIAL = {"pad": "pad_token_id", "cls": "cls_token_id", "sep": "sep_token_id", "mask": "mask_token_id"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed:
    """The corpus, what is known of its making (as in corpus.json), and how many tokens this call made: none of a finished one."""

    corpus: Corpus
    facts: dict
    made: int


def pack(names: Sequence[str], tokenizer, folder: str | Path, documents: str | None = None, *, bar: Callable) -> Packed:
    """Pack what `names` name (see find_sources) into `folder`; goes on where an earlier call was interrupted, and ends with the same bytes.

    tokenizer: transformers', a fast one, with [CLS], [SEP], [MASK] and padding. bar(total, what, unit, done): a progress bar.
    Errors: ValueError, before anything is written, for sources that are not there, are not UTF-8 or hold fewer than two documents (one is
    held out), and for a folder with a corpus of other settings or sources.
    """
    folder = Path(folder).expanduser()
    words = _Words(tokenizer)
    sources = find_sources(names, documents)
    settings = {"format": FORMAT, "tokenizer": words.checksum[:16], "documents": documents or "default", "sources": _survey(sources, bar)}
    journal = Journal(folder)
    if journal.finished(settings):
        return _packed(folder, 0)
    parted = itertools.islice((piece for piece, _ in _read(sources, Progress()) if piece.texts and piece.ends), FEWEST)
    _check_documents(sum(1 for _ in parted), sources)
    begun = journal.begin(settings, id_type(words.vocabulary).itemsize)
    done = _append(sources, settings["sources"], words, journal, begun, bar)
    if done.documents < FEWEST:  # of the others no character is one of the tokenizer's
        journal.discard()
    _check_documents(done.documents, sources)
    _finish(journal, settings, done, words, tokenizer)
    return _packed(folder, done.tokens - begun.tokens)


def _check_documents(count: int, sources: Sequence[Source]) -> None:
    """ValueError for fewer documents than a corpus can be split with."""
    told = f"{len(sources)} source{'s' * (len(sources) > 1)} ({sources[0].name} ...)"
    if not count:
        raise ValueError(f"nothing to pack: {told} without a word. Give files that hold text")
    if count < FEWEST:
        raise ValueError(f"{told} with a single document: expected {FEWEST} or more, since every {HELD_OUT_EVERY}th is held out. Say where "
                         "documents end: --documents line, or --documents blank (blank lines); or give more files")


def _packed(folder: Path, made: int) -> Packed:
    return Packed(Corpus.open(folder), json.loads((folder / FACTS).read_text()), made)


class _Words:
    """Texts -> ids without special tokens, whatever the tokenizer adds, pads or cuts in other uses; text that spells a special token is
    text."""

    def __init__(self, tokenizer):
        missing = [name for name, field in SPECIAL.items() if getattr(tokenizer, field) is None]
        if not tokenizer.is_fast or missing:
            raise ValueError(f"{type(tokenizer).__name__} cannot make a corpus to pre-train on: expected a fast tokenizer (tokenizer.json) with "
                             f"tokens for padding, begin, end and mask{'; there is none for ' + ', '.join(missing) if missing else ''}")
        self.backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.backend.no_truncation()
        self.backend.no_padding()
        self.backend.encode_special_tokens = True
        self.checksum = hashlib.sha256(self.backend.to_str().encode()).hexdigest()
        self.vocabulary = max(tokenizer.get_vocab().values()) + 1
        self.unknown = tokenizer.unk_token_id
        self.special_ids = {name: getattr(tokenizer, field) for name, field in SPECIAL.items()} | {"all": sorted(tokenizer.all_special_ids)}

    def ids(self, batch: Iterable[tuple[str, ...]]) -> list[list[int]]:
        """The ids of each piece."""
        batch = list(batch)
        if self.unknown is None and any(len(texts) > 1 for texts in batch):
            raise ValueError("the text has unknown words (<unk>), and the tokenizer no token for them: pack the raw variant of WikiText")
        encoded = iter(self.backend.encode_batch_fast([text for texts in batch for text in texts], add_special_tokens=False))
        found = []
        for texts in batch:
            ids = list(next(encoded).ids) if texts else []
            for part in itertools.islice(encoded, max(len(texts) - 1, 0)):
                ids += [self.unknown, *part.ids]
            found.append(ids)
        return found


def _survey(sources: Sequence[Source], bar: Callable) -> list[dict]:
    """What corpus.json tells of each source; everything is read once, so that mistakes are found before the work begins."""
    read = 0
    with bar(sum(source.size for source in sources) // 1000, "check", "kB", 0) as progress_bar:
        def note(size: int) -> None:
            nonlocal read
            progress_bar.update((read + size) // 1000 - read // 1000)
            read += size

        return [{"name": source.name, **source.survey(note)} for source in sources]


def _read(sources: Sequence[Source], begun: Progress) -> Iterator[tuple[Piece, Progress]]:
    """Every piece from where `begun` stands, and beside it the progress after it, if its document ends; tokens and documents are not counted
    here."""
    at = begun
    for number in range(begun.source, len(sources)):
        start = begun.position if number == begun.source else 0
        has_text = start > 0  # one goes on after a document
        source = sources[number]
        for piece in pieces(source.fragments(start), RULES[source.rule]):
            has_text = has_text or bool(piece.texts)
            whole = piece.position is None
            at = changed(at, source=number + whole, position=piece.position or 0, blank_rows=at.blank_rows + piece.blank,
                         empty_sources=at.empty_sources + (not has_text),  # only a source's last piece may be without text
                         cuts_inside_words=at.cuts_inside_words + piece.inside)
            yield piece, at


def _append(sources: Sequence[Source], records: list[dict], words: _Words, journal: Journal, begun: Progress, bar: Callable) -> Progress:
    """Tokenise and commit batch after batch; returns the progress at the end."""
    before = np.concatenate([[0], np.cumsum([record["bytes"] for record in records])])

    def kilobytes(at: Progress) -> int:
        inside = sources[at.source].share(at.position) * records[at.source]["bytes"] if at.source < len(sources) else 0
        return int((before[at.source] + inside) / 1000)

    writer = _Writer(words, journal, begun)
    with bar(int(before[-1] / 1000), "pack", "kB", kilobytes(begun)) as progress_bar:
        for batch in _batches(_read(sources, begun)):
            shown = kilobytes(writer.done)
            writer.write(batch)
            progress_bar.update(kilobytes(writer.done) - shown)
    return writer.done


def _batches(read: Iterable[tuple[Piece, Progress]]) -> Iterator[list[tuple[Piece, Progress]]]:
    batch, size = [], 0
    for piece, at in read:
        batch.append((piece, at))
        size += sum(map(len, piece.texts))
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    yield batch


class _Writer:
    """Turns pieces into tokens on disk, which are committed up to the last document that is at its end."""

    def __init__(self, words: _Words, journal: Journal, begun: Progress):
        self.words, self.journal, self.done = words, journal, begun
        self.dtype = id_type(words.vocabulary)
        self._open, self._has_text = 0, False  # tokens of the document that goes on, and whether it has any text

    def write(self, batch: list[tuple[Piece, Progress]]) -> None:
        """Write the tokens of `batch`, and commit the documents that end in it."""
        ids, ends, done = self.words.ids(piece.texts for piece, _ in batch), [], self.done
        for (piece, at), found in zip(batch, ids, strict=True):
            self._open += len(found)
            self._has_text = self._has_text or bool(piece.texts)
            if piece.ends:
                done = changed(at, tokens=done.tokens + self._open, documents=done.documents + (self._open > 0),
                               documents_without_tokens=done.documents_without_tokens + (self._has_text and not self._open))
                ends += [done.tokens] if self._open else []
                self._open, self._has_text = 0, False
        self.journal.append(np.array(list(itertools.chain.from_iterable(ids)), self.dtype), np.array(ends, np.int64))
        if done != self.done:
            self.journal.commit(done)
        self.done = done


def _finish(journal: Journal, settings: dict, done: Progress, words: _Words, tokenizer) -> None:
    """Write what a corpus has beside its ids, corpus.json last. The same again after an interruption."""
    ids = np.memmap(journal.ids_file, id_type(words.vocabulary), mode="r")
    counts, digest = np.zeros(words.vocabulary, np.int64), hashlib.sha256(words.checksum.encode())
    for start in range(0, len(ids), BLOCK):
        counts += np.bincount(ids[start:start + BLOCK], minlength=words.vocabulary)
        digest.update(ids[start:start + BLOCK])
    offsets = np.concatenate([[0], np.fromfile(journal.ends_file, np.int64)])
    digest.update(offsets)
    made = journal.unfinished / TOKENIZER
    tokenizer.save_pretrained(made)
    shutil.rmtree(journal.folder / TOKENIZER, ignore_errors=True)
    made.replace(journal.folder / TOKENIZER)
    for name, array in ((OFFSETS, offsets), (COUNTS, counts)):
        np.save(journal.unfinished / name, array)
        (journal.unfinished / name).replace(journal.folder / name)
    for path in (*journal.folder.iterdir(), *(journal.folder / TOKENIZER).iterdir(), journal.folder):  # before FACTS says that they are whole
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    facts = {"documents": done.documents, "tokens": done.tokens, "dtype": ids.dtype.name, "vocabulary": words.vocabulary,
             "bytes": sum(source["bytes"] for source in settings["sources"]), "fingerprint": digest.hexdigest(),
             **{name: count for name, count in asdict(done).items() if name not in ("source", "position", "tokens", "documents")},
             "special_ids": words.special_ids, "settings": settings}
    replace(journal.folder / FACTS, to_json(facts))
    shutil.rmtree(journal.unfinished)
