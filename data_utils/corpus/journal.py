"""A corpus that is being packed: what is committed, and from where to go on after any interruption.

    FOLDER/ids.bin       grows; what lies beyond the committed length is cut off when the work goes on
    FOLDER/unfinished/   settings.json, progress.json (replaced by each commit), ends.bin (int64, the end of each document)
"""

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_utils.corpus import FACTS, IDS

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Progress:
    """What is packed: `tokens` of `documents`, all that lies before `position` of source number `source`."""

    source: int = 0
    position: int = 0
    tokens: int = 0
    documents: int = 0
    blank_rows: int = 0
    empty_sources: int = 0  # without a document
    documents_without_tokens: int = 0
    cuts_inside_words: int = 0


class Journal:
    """The folder of a corpus while it is made; one process at a time."""

    def __init__(self, folder: Path):
        self.folder, self.unfinished = folder, folder / UNFINISHED
        self.ids_file, self.ends_file = folder / IDS, self.unfinished / "ends.bin"
        self._lock = None
        self._settings_file, self._progress_file = self.unfinished / "settings.json", self.unfinished / "progress.json"

    def finished(self, settings: dict) -> bool:
        """Whether the corpus is there. ValueError with the differences where it is one of other settings or sources."""
        made = self.folder / FACTS
        if made.is_file():
            refuse_other(self.folder, json.loads(made.read_text()).get("settings", {}), settings)
            shutil.rmtree(self.unfinished, ignore_errors=True)  # killed after its last file
        return made.is_file()

    def begin(self, settings: dict, id_size: int) -> Progress:
        """Claim the folder; the progress that is committed, all files cut to it. ValueError as finished(), and where another process
        works there."""
        try:
            self.unfinished.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write into {self.folder} ({error.strerror}): choose another --output_dir") from error
        self._lock = (self.unfinished / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is packing into {self.folder}: wait for it, or choose another --output_dir") from error
        if self._settings_file.is_file():
            refuse_other(self.folder, json.loads(self._settings_file.read_text()), settings)
        else:
            self._progress_file.unlink(missing_ok=True)
            replace(self._settings_file, to_json(settings))
        done = Progress(**json.loads(self._progress_file.read_text())) if self._progress_file.is_file() else Progress()
        for path, size in ((self.ids_file, done.tokens * id_size), (self.ends_file, done.documents * 8)):
            path.touch()
            os.truncate(path, size)
        return done

    def append(self, ids: np.ndarray, ends: np.ndarray) -> None:
        """Write both at the end of their files."""
        for path, array in ((self.ids_file, ids), (self.ends_file, ends)):
            with path.open("ab") as file:
                file.write(array.tobytes())
                file.flush()
                os.fsync(file.fileno())

    def commit(self, progress: Progress) -> None:
        """From now on `progress`, which append() has written, is what is kept."""
        replace(self._progress_file, to_json(asdict(progress)))

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.unfinished)
        self.ids_file.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def refuse_other(folder: Path, old: dict, new: dict) -> None:
    """ValueError that tells in which settings and sources the corpus in `folder` is another one than `new` would make."""
    found = [f"{name}: {old.get(name)} -> {new[name]}" for name in new if name != "sources" and old.get(name) != new[name]]
    if old.get("sources") != new["sources"]:
        before, now = ({source["name"]: source for source in sources} for sources in (old.get("sources") or [], new["sources"]))
        kinds = {"new": now.keys() - before.keys(), "gone": before.keys() - now.keys(),
                 "changed": {name for name in before.keys() & now.keys() if before[name] != now[name]}}
        told = [f"{len(names)} {kind} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
                for kind, names in kinds.items() if names]
        found.append(f"sources: {', '.join(told) or 'in another order'}")
    if found:
        raise ValueError(f"{folder} holds a corpus of other settings or sources ({'; '.join(found)}): give the same to resume it, another "
                         "--output_dir, or remove the folder")


def to_json(content: dict) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def replace(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name, then rename."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
