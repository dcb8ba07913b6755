"""Where a corpus comes from: text files, folders of them, WikiText files, data sets of the Hub."""

import codecs
import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_utils.corpus.documents import Fragment, fragments
from data_utils.readers.hub import reachable
from data_utils.tasks import get_task

HUB = "hub:"
HUB_FORM = "hub:NAME:CONFIG:SPLIT, such as hub:Salesforce/wikitext:wikitext-2-raw-v1:train"
WIKITEXT = re.compile(r"wiki\.\w+\.(raw|tokens)")
TEXT_ENDING = ".txt"
TEXT_COLUMN = "text"
CLASSES = get_task("IMDb").raw_labels  # aclImdb's folders of reviews; files beside them are lists of addresses
BLOCK = 1 << 20
ROWS = 256  # of a Hub's data set that are read at once
logger = logging.getLogger(__name__)


class Source(Protocol):
    """Text that can be read on from a position. A `position` counts what the kind of source counts: bytes or rows."""

    name: str  # what corpus.json calls it
    rule: str  # of documents.RULES
    size: int  # bytes, as far as they are known before it is read

    def survey(self, read: Callable[[int], None]) -> dict: ...  # {"bytes", "sha256"}; read(bytes) as it goes on
    def fragments(self, position: int) -> Iterator[Fragment]: ...
    def share(self, position: int) -> float: ...  # of the source that lies before `position`


@dataclass(frozen=True)
class TextFile:
    """A UTF-8 file; positions are bytes."""

    name: str
    rule: str
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def survey(self, read: Callable[[int], None]) -> dict:
        """Its size and checksum. ValueError with file, byte and line where it is not UTF-8."""
        digest, decoder, size, line = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), 0, 1
        with self.path.open("rb") as file:
            while True:
                block = file.read(BLOCK)
                held = len(decoder.getstate()[0])
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    wrong = size - held + error.start
                    line += block[:max(error.start - held, 0)].count(b"\n")
                    raise ValueError(
                        f"{self.path}: byte {wrong} (0x{error.object[error.start]:02x}, counted from 0; line {line}) is not UTF-8: convert the "
                        f"file, such as with `iconv -f WINDOWS-1252 -t UTF-8`, or leave it out") from error
                if not block:
                    return {"bytes": size, "sha256": digest.hexdigest()}
                digest.update(block)
                size += len(block)
                line += block.count(b"\n")
                read(len(block))

    def fragments(self, position: int) -> Iterator[Fragment]:
        with self.path.open("rb") as file:
            yield from fragments(file, position)

    def share(self, position: int) -> float:
        return position / max(self.size, 1)


@dataclass(frozen=True)
class HubRows:
    """A split of the Hub's, each row of its text column a line; positions are rows."""

    name: str
    rule: str
    dataset: object  # datasets.Dataset: read from disk as it is asked for
    size: int = 0

    def survey(self, read: Callable[[int], None]) -> dict:
        digest, size = hashlib.sha256(), 0
        for _, line in self._lines(0):
            digest.update(line)
            size += len(line)
            read(len(line))
        return {"bytes": size, "sha256": digest.hexdigest()}

    def fragments(self, position: int) -> Iterator[Fragment]:
        for row, line in self._lines(position):
            for fragment in fragments(io.BytesIO(line)):
                yield fragment._replace(start=row, end=row + 1)

    def share(self, position: int) -> float:
        return position / max(len(self.dataset), 1)

    def _lines(self, position: int) -> Iterator[tuple[int, bytes]]:
        for start in range(position, len(self.dataset), ROWS):
            for row, text in enumerate(self.dataset[start:start + ROWS][TEXT_COLUMN], start):
                yield row, " ".join((text or "").splitlines()).encode() + b"\n"


def find_sources(names: Sequence[str], documents: str | None) -> list[Source]:
    """The sources that the words of a command name, a folder's files sorted by their paths in it.

    `documents` (a key of RULES) says what a document of a plain file is; None: what blank lines part in a file that is named
    itself, all of a file that a folder holds. WikiText files, known by their names, hold articles.
    Errors: ValueError for a name that nothing has, and a folder without text.
    """
    found: list[Source] = []
    for name in names:
        path = Path(name).expanduser()
        if name.startswith(HUB):
            found.append(_hub(name))
        elif path.is_dir():
            found += _in_folder(path, documents or "file")
        elif path.is_file():
            found.append(TextFile(path.name, _rule(path.name, documents or "blank"), path))
        else:
            raise ValueError(f"no file or folder {name}: give text files, folders of {TEXT_ENDING} files, or {HUB_FORM}")
    return found


def _rule(name: str, plain: str) -> str:
    wikitext = WIKITEXT.fullmatch(name)
    return plain if not wikitext else "wikitext tokens" if wikitext[1] == "tokens" else "wikitext"


def _in_folder(folder: Path, documents: str) -> list[TextFile]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    lists = {place for place in {path.parent for path in paths} if all((place / name).is_dir() for name in CLASSES)}
    lists |= {place.parent for place in lists}  # aclImdb/ with the words and their ratings
    files = sorted(path.relative_to(folder).as_posix() for path in paths)
    text = [name for name in files if (folder / name).parent not in lists and (name.endswith(TEXT_ENDING) or WIKITEXT.fullmatch(Path(name).name))]
    other = sorted(set(files) - set(text))
    if not text:
        raise ValueError(f"{folder} holds no text: of its {len(files)} files none is named *{TEXT_ENDING}, wiki.*.raw or wiki.*.tokens. Give "
                         "files of other names one by one")
    if other:
        logger.info("%s: %d of %d files are left out, since they are not named *%s, wiki.*.raw or wiki.*.tokens, or lie beside folders of reviews "
                    "(%s): %s%s", folder, len(other), len(files), TEXT_ENDING, ", ".join(CLASSES), ", ".join(other[:3]),
                    ", ..." if len(other) > 3 else "")
    return [TextFile(f"{folder.resolve().name}/{name}", _rule(Path(name).name, documents), folder / name) for name in text]


def _hub(name: str) -> HubRows:
    """A row of the Hub's WikiText is a line; of any other data set a document."""
    words = name.removeprefix(HUB).split(":")
    if len(words) != 3 or not words[0] or not words[2]:
        raise ValueError(f"{name}: expected {HUB_FORM} (CONFIG may be empty)")
    dataset = _load(*words, name)
    if TEXT_COLUMN not in dataset.column_names:
        raise ValueError(f"{name}: expected a column {TEXT_COLUMN!r}, found {dataset.column_names}")
    wikitext = "wikitext" if "raw" in words[1] else "wikitext tokens"
    return HubRows(name, wikitext if words[0].split("/")[-1] == "wikitext" else "line", dataset)


def _load(path: str, config: str, split: str, name: str):
    way_on = "Give a text file or a folder of them instead, or HF_HUB_OFFLINE=1 to read the cache of `datasets`"
    if not reachable():
        raise ValueError(f"{name}: the Hub cannot be reached. {way_on}")
    import datasets
    try:
        return datasets.load_dataset(path, config or None, split=split)
    except Exception as error:  # datasets, huggingface_hub and their HTTP client raise some twenty types here
        first_line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name}: the Hub gave no data ({type(error).__name__}: {first_line}). {way_on}") from error
