"""Bytes -> lines in bounded parts -> documents in bounded pieces of text.

A document's text is its lines that are not blank, each without the white space at its ends, joined by a space; a web page's line
break `<br />` is a space too, as in fine-tuning on IMDb. What is longer than PIECE is cut at a single space, so that tokenizers
which never join words across a space give the same ids as for the whole.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from data_utils.imdb import LINE_BREAK

PIECE = 1 << 15  # bytes of a line that are read at once, and characters of a document after which it goes on in another piece
WHITE = b" \t\r\n\x0b\x0c"
HEADING = re.compile(r"= [^=](.*[^=])? =")  # WikiText's ` = Title = `; a section's is ` = = Section = = `
JOINED = re.compile(r" @([-,.])@ ")
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Rule:
    """Where documents begin and end."""

    blank_ends: bool = False      # at a blank line
    line_ends: bool = False       # at every line's end
    heading_begins: bool = False  # at a WikiText article's heading; ` @-@ ` is joined again
    unknown: bool = False         # WikiText's <unk> is a word that is not told


RULES = {"blank": Rule(blank_ends=True), "line": Rule(line_ends=True), "file": Rule(), "wikitext": Rule(heading_begins=True),
         "wikitext tokens": Rule(heading_begins=True, unknown=True)}


class Fragment(NamedTuple):
    """A line, or a part of a long one, stripped; it lies at start:end of its source."""

    text: str
    start: int
    end: int
    opens: bool   # begins its line
    closes: bool  # ends its line
    glued: bool   # goes on in the middle of a word: the line had no white space to cut it at


class Piece(NamedTuple):
    """A document's text or a part of it. Between each two `texts` stands an unknown word."""

    texts: tuple[str, ...]
    ends: bool            # the document, if one is open, ends after it
    position: int | None  # if so: where the source may be read on, as if from its beginning; None at the source's end
    blank: int            # blank rows that were passed over since the last piece
    inside: bool          # it had to be cut off inside a word from the piece before


def fragments(file: BinaryIO, position: int = 0) -> Iterator[Fragment]:
    """The lines of a UTF-8 file from byte `position`, the beginning of a line, on. At most PIECE bytes are held."""
    file.seek(position)
    rest, opens, glued = b"", True, False
    while raw := rest + file.readline(PIECE - len(rest)):
        closes = raw.endswith(b"\n") or len(raw) < PIECE
        cut, inside = (len(raw), False) if closes else _cut(raw)
        raw, rest = raw[:cut], raw[cut:]
        text = raw.decode()
        if position == 0:
            text = text.removeprefix("\ufeff")
        yield Fragment(text.strip(), position, position + cut, opens, closes, glued)
        position += cut
        opens, glued = closes, inside


def _cut(raw: bytes) -> tuple[int, bool]:
    """Where to cut the beginning of a long line, and whether that is inside a word: best before a single space between two words
    (none of them WikiText's @-@, which is joined with its neighbours, or the end of <br />), else at any white space, else between two
    characters."""
    place = raw.rfind(b" ", 1, len(raw) - 1)
    while place > 0 and (raw[place - 1] in WHITE + b"@" or raw[place + 1] in WHITE + b"@/"):
        place = raw.rfind(b" ", 1, place)
    if place <= 0:
        place = max(raw.rfind(bytes([white]), 1) for white in WHITE)
    if place > 0:
        return place, False
    place = len(raw) - 1
    while raw[place] & 0xC0 == 0x80:  # a later byte of a character
        place -= 1
    return place, True


def pieces(lines: Iterable[Fragment], rule: Rule) -> Iterator[Piece]:
    """The documents of a source in order. The last piece, perhaps without text, has no position."""
    parts: list[str] = []
    size, blank = 0, 0
    open_document, inside, after_blank, line_has_text = False, False, True, False
    for line in lines:
        if rule.heading_begins and open_document and after_blank and line.opens and line.closes and HEADING.fullmatch(line.text):
            yield Piece(_texts(parts, rule), True, line.start, blank, inside)
            parts, size, blank, open_document, inside = [], 0, 0, False, False
        line_has_text = bool(line.text) or (line_has_text and not line.opens)
        if line.text:
            if size >= PIECE:
                yield Piece(_texts(parts, rule), False, 0, blank, inside)
                parts, size, blank, inside = [], 0, 0, line.glued
            parts.append(" " + line.text if open_document and not line.glued else line.text)
            size += len(line.text)
            open_document = True
        if line.closes:
            after_blank = not line_has_text
            blank += after_blank
            if open_document and (rule.line_ends or (after_blank and rule.blank_ends)):
                yield Piece(_texts(parts, rule), True, line.end, blank, inside)
                parts, size, blank, open_document, inside = [], 0, 0, False, False
    yield Piece(_texts(parts, rule), True, None, blank, inside)


def _texts(parts: list[str], rule: Rule) -> tuple[str, ...]:
    text = "".join(parts).replace(LINE_BREAK, " ")
    if rule.heading_begins:
        text = JOINED.sub(r"\1", text)
    known = text.split(UNKNOWN) if rule.unknown else [text]
    return tuple(part.rstrip(" ") for part in known[:-1]) + (known[-1],) if text else ()
