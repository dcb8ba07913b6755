"""The run directory: every path in it, and writes that are whole or not there.

    config.json  origin.json  log.jsonl  best/  last/  scores.json  DONE
    stage-NAME/  the same, for each stage before the last one of a run in several stages
"""

import contextlib
import fcntl
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError

from distill import workers
from distill.config import differences
from distill.scores import Scores
from models.weights import write_checksums

# Settings that a run may go on with others of: where it lives, what it keeps and says, how its work is cut. Cut otherwise, dropout
# falls on other places, as on another number of ranks; all else is the same but for rounding.
MOVABLE = ("output_dir", "fsdp", "cache_dir", "max_cache_gib", "max_tokens", "save_steps", "save_minutes", "save_total_limit", "logging_steps")
STAGE = "stage-"  # folders of the stages before the last


class SaveError(OSError):
    """Something could not be written; what was there before is untouched."""


def check_folder_of(file: Path | str | None, setting: str) -> None:
    """ValueError, before the work whose result goes there, where the folder of `file`, the value of `setting`, is missing."""
    if file and not Path(file).parent.is_dir():
        raise ValueError(f"{setting} {file}: there is no folder {Path(file).parent}; make it first")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name, then rename: readers see the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a disk that may not be written
            temporary.unlink(missing_ok=True)
        raise SaveError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: Path, content) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path):
    """The content of a file that write_json() wrote; ValueError naming it where it is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it") from error


def write_folder(folder: Path, fill: Callable[[Path], None], keep: int = 0) -> None:
    """Replace `folder` by one that `fill` has filled, with checksums of its files. Killed at any moment, the old one or
    the new one is found (by `whole_folder`, by `versions`). `keep` earlier versions stay: NAME.1 the newest of them."""
    temporary, older = folder.with_name(folder.name + ".tmp"), _older(folder, keep) or [folder.with_name(folder.name + ".old")]
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        write_checksums(temporary)
        sync(temporary)
        whole_folder(folder)
        if folder.exists():
            shutil.rmtree(older[-1], ignore_errors=True)
            for newer, place in reversed(list(itertools.pairwise([folder, *older]))):
                if newer.exists():
                    newer.replace(place)
        temporary.replace(folder)
        sync(folder.parent, deep=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise SaveError(f"cannot write {folder}: {error}. What was saved before is kept; free some space and run the "
                        "same command to go on from there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not keep:
        shutil.rmtree(older[0], ignore_errors=True)


def sync(path: Path, deep: bool = True) -> None:
    """Wait until what was written into the file or folder `path`, and below it, is on the disk: a power cut then leaves what a name
    stands for."""
    for path in (path, *(path.rglob("*") if deep else ())):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _older(folder: Path, keep: int) -> list[Path]:
    return [folder.with_name(f"{folder.name}.{age}") for age in range(1, keep + 1)]


def versions(folder: Path, keep: int) -> list[Path]:
    """`folder`, as whole_folder() finds it, and the earlier versions of it that are there, newest first."""
    whole_folder(folder)
    return [path for path in [folder, *_older(folder, keep)] if path.exists()]


def whole_folder(folder: Path) -> Path | None:
    """`folder` as it was last completely written, or None if it never was."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        old.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder if folder.exists() else None


def origin(command: list[str]) -> dict:
    """Where a run came from: command, commit, versions, device, time."""
    return {"command": command, "commit": _commit(), "python": platform.python_version(),
            "torch": torch.__version__, "transformers": transformers.__version__, "device": device_name(),
            "ranks": workers.world(), "started": datetime.now(UTC).isoformat(timespec="seconds")}


def _commit() -> str | None:
    """This program's, None outside of a clone or without git."""
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return git.stdout.strip() or None


def device_name() -> str:
    """The GPU, or the processor with the number of threads that torch uses on it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"model name\s*: (.+)", facts)
    return f"{model[1] if model else platform.machine()}, {torch.get_num_threads()} threads"


def stage_of(run: Path) -> str:
    """The folder's name where `run` is a stage inside another run, else ""."""
    return run.name if run.name.startswith(STAGE) else ""


class RunDir:
    """One run's folder. Only rank 0 writes; every rank may read."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.best, self.last, self.cache = self.path / "best", self.path / "last", self.path / "cache"
        self.log_file, self.scores_file, self.done_file = (self.path / name for name in
                                                           ("log.jsonl", "scores.json", "DONE"))
        self._lock = None
        self._listeners: list[Callable[[RunDir], None]] = []

    def begin(self, config, facts: dict | None = None) -> None:
        """Claim the folder for `config`. ValueError where it holds a run with other settings or other `facts` (what it
        read: checksums of data, teacher, senses; they go into origin.json), or another process works in it."""
        workers.on_main(lambda: self._begin(config, facts or {}))

    def _begin(self, config, facts: dict) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise SaveError(f"cannot use the run directory {self.path}: {error.strerror or error}") from error
        made = self._has_made_something()
        if made:
            self._check(config, facts)
        if not self.is_done():
            write_json(self.path / "config.json", asdict(config))
        if not made or not (self.path / "origin.json").exists():
            write_json(self.path / "origin.json", {**origin(sys.argv), **facts})

    def _claim(self) -> None:
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is working in {self.path}: wait for it, or choose another "
                             "--output_dir") from error

    def _has_made_something(self) -> bool:
        """Whether there is more than a begun run's own notes; until then its settings may still be corrected."""
        notes = {".lock", "config.json", "origin.json"}
        return any(path.is_file() and path.name not in notes for path in self.path.rglob("*"))

    def check(self, config, facts: dict) -> None:
        """ValueError where the folder holds a run with other settings than `config`, or that read other `facts`."""
        workers.on_main(lambda: self._check(config, facts))

    def _check(self, config, facts: dict) -> None:
        self._check_config(config)
        self._check_facts(facts)

    def _check_config(self, config) -> None:
        file = self.path / "config.json"
        if not file.exists():
            return
        younger = {entry.name: entry.default for entry in fields(config)}  # a setting that the run did not know yet had its default
        known = {**younger, **read_json(file)}
        changed = [line for line in differences(known, asdict(config)) if line.split(":")[0] not in MOVABLE]
        if changed:
            raise ValueError(f"{self.path} holds a run with other settings ({'; '.join(changed)}): give the same "
                             "settings to resume it, another --output_dir, or remove the folder")

    def _check_facts(self, facts: dict) -> None:
        file = self.path / "origin.json"
        known = read_json(file) if file.exists() else facts
        changed = [name for name, fact in facts.items() if known.get(name, fact) != fact]  # older runs did not note all
        if changed:
            raise ValueError(f"{self.path} holds a run that read other {' and '.join(changed)} (their checksums in {file} are "
                             "not today's): give it the same files to go on, another --output_dir, or remove the folder")

    def stage(self, name: str) -> "RunDir":
        """The run directory, inside this one, of a stage before the last; the last stage's is this one itself."""
        return RunDir(self.path / f"{STAGE}{name}")

    def stages(self) -> list["RunDir"]:
        """Those of its stages that were begun."""
        return [RunDir(path) for path in sorted(self.path.glob(f"{STAGE}*"))]

    def is_done(self) -> bool:
        return self.done_file.exists()

    def log(self, record: dict) -> None:
        """Append a line to log.jsonl."""
        with self.log_file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if "scores" in record:
            for listener in self._listeners:
                listener(self)

    def on_scores(self, listener: Callable[["RunDir"], None]) -> None:
        """Call `listener` with this run whenever scores were logged."""
        self._listeners.append(listener)

    def rewind_log(self, step: int, scored: bool = True) -> None:
        """Drop the log's lines beyond `step`, and the scores after it where it is to be scored again: they will be written again."""
        if self.log_file.exists():
            kept = [line for line in self.logged() if line["step"] < step or line["step"] == step and (scored or "scores" not in line)]
            write_text(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))

    def logged_seconds(self) -> float:
        """Seconds that the log's lines account for, over all sittings of the run, its earlier stages included."""
        seconds = [line["seconds"] for line in self.logged() if "seconds" in line]
        return max(seconds) if seconds else sum(stage.logged_seconds() for stage in self.stages())

    def logged(self) -> list[dict]:
        """The log's lines, without one that a kill left unfinished."""
        text = self.log_file.read_text() if self.log_file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def evaluations(self) -> int:
        """How many there were after the first step: the best was chosen among them."""
        return sum("scores" in line and line["step"] > 0 for line in self.logged())

    def scores(self) -> Scores:
        """The scores of the finished run; ValueError where it is not finished."""
        if not self.is_done():
            raise ValueError(f"{self.path} is not finished: run its command again, it goes on from {self.last}")
        return Scores.from_json(read_json(self.scores_file))

    def finish_stage(self, scores: dict) -> None:
        """finish() of a stage, on every rank, with the seconds that its log accounts for: no command measured it alone."""
        workers.on_main(lambda: self.finish({**scores, "seconds": round(self.logged_seconds(), 1)}))

    def finish(self, scores: dict) -> None:
        """Write the final scores, then DONE: a folder with DONE is complete. Earlier checkpoints than last/ go, and cached
        outputs of a teacher, which can be many times as large as all else."""
        write_json(self.scores_file, scores)
        write_text(self.done_file, "")
        for folder in (*self.path.glob(f"{self.last.name}.*"), self.cache):
            shutil.rmtree(folder, ignore_errors=True)
        self._lock = None  # closed, and so given up: whoever goes on from a finished run reads it
