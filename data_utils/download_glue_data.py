"""Fetch GLUE, SuperGLUE and SQuAD into the official folder layouts; unpack IMDb there.

    python3 data_utils/download_glue_data.py [--data_dir ./glue] [--tasks glue|superglue|imdb|all|CoLA,SQuAD]

Every fetched file has a pinned size and sha256 (download_sources.py). An archive that has none, IMDb's, is not fetched: it is unpacked
where it was put by hand. What is unpacked is recorded in DATA/checksums.json and compared on later runs. Files that came another way
are recorded when first seen: that notices a later change, it is no proof that they are the official ones.

An interrupted download continues where it stopped; a file that is there is never overwritten; only the standard library is needed."""
import argparse
import hashlib
import http.client
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# As a script, Python puts data_utils/ on the path and not the repository, whose package data_utils holds the task table.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
from data_utils.archives import extract_tar, extract_zip
from data_utils.download_sources import SOURCES, Remote
from data_utils.readers import find_file, source_fingerprint, tables
from data_utils.readers.rows import download_command
from data_utils.tasks import TASKS, Task, get_task

TRIES = 4
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 18


class DownloadError(ValueError):
    """A task could not be had; the message says which file or address and why."""


MRPC_NOTE = """
  Its texts are SentEval's, tokenised ("does n't"), like the Hub's. For Microsoft's untokenised texts put msr_paraphrase_train.txt and
  msr_paraphrase_test.txt of its MSRParaphraseCorpus into {folder}/, remove the .tsv files there and run this again."""


def main(argv: list[str] | None = None, sources=SOURCES) -> int:
    """Fetch the tasks named on the command line; the exit status: 0, or 1 where a task failed (the others are fetched all the same)."""
    parser = argparse.ArgumentParser(description="Fetch GLUE, SuperGLUE and SQuAD into the official folder layouts; unpack IMDb there.")
    parser.add_argument("--data_dir", default="./glue", help="folder that receives one folder per task (default: %(default)s)")
    parser.add_argument("--tasks", default="glue",
                        help=f"glue, superglue, imdb, all (that can be fetched), or names joined by commas among "
                             f"{','.join(name for name, _ in sources)}")
    arguments = parser.parse_args(argv)
    remotes, asked = dict(sources), arguments.tasks.lower()
    try:
        names = ([task.name for task in TASKS if task.name in remotes
                  and (asked == task.suite or asked == "superglue" and task.name == "RTE"  # in both benchmarks
                       or asked == "all" and all(remote.sha256 for remote in remotes[task.name]))]
                 or [get_task(name).name for name in arguments.tasks.split(",")])
    except ValueError as error:
        parser.error(str(error))
    data_dir, failed = Path(arguments.data_dir), []
    for name in names:
        if name not in remotes:
            print(f"{name}: nothing to fetch, {'it is written when first read' if name == 'demo' else download_command(get_task(name), data_dir)}")
            continue
        try:
            print(f"{name}: {_provide(get_task(name), remotes[name], data_dir)}", flush=True)
        except (ValueError, OSError) as error:
            print(f"{name}: FAILED. {error}\n{_by_hand(get_task(name), remotes[name], data_dir)}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        print(f"not there yet; --tasks {','.join(failed)} tries again, an interrupted download continues", file=sys.stderr)
    return 1 if failed else 0


def _provide(task: Task, remotes: tuple[Remote, ...], data_dir: Path) -> str:
    """Make data_dir/<folder of the task> complete; what was done, in words. DownloadError or OSError where it cannot be."""
    folder, recorded, present = data_dir / _folder_name(task), _recorded(data_dir), {}
    for split in task.splits:
        path = find_file(split, folder)
        if path:
            key = f"{_folder_name(task)}/{path.name}"
            present[key] = source_fingerprint(task, path)
            if recorded.get(key, present[key]) != present[key]:
                raise DownloadError(f"{path} is left as it is, but its sha256 is {present[key]}; checksums.json has {recorded[key]}. Move "
                                    f"it away to fetch it again; to keep your own version, remove its line from checksums.json.")
    if len(present) == len(task.splits):
        unknown = len(present.keys() - recorded.keys())
        _record(data_dir, present)
        return f"already there; {len(present) - unknown} files verified, {unknown} without a checksum to compare with, now recorded"
    data_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=data_dir))
    try:
        unpacked = work / folder.name
        unpacked.mkdir()
        if task.name == "MRPC":
            assemble_mrpc(_mrpc_files(remotes, folder, data_dir), unpacked)
        elif remotes[0].name.endswith(".zip"):
            extract_zip(fetch(remotes[0], data_dir / remotes[0].name), unpacked)
        elif remotes[0].name.endswith(".tar.gz"):
            extract_tar(fetch(remotes[0], data_dir / remotes[0].name), unpacked)
        else:
            for remote, split in zip(remotes, task.splits, strict=True):
                shutil.copyfile(fetch(remote, data_dir / remote.name), unpacked / split.files[0])
        checksums = _check_unpacked(task, unpacked, present)
        _move_in(unpacked, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _record(data_dir, checksums)
    known = [remote for remote in remotes if remote.sha256]
    for remote in known:      # what was put there by hand and cannot be fetched again stays
        (data_dir / remote.name).unlink(missing_ok=True)
    tokenised = task.name == "MRPC" and not (folder / remotes[0].name).exists()
    note = MRPC_NOTE.format(folder=folder) if tokenised else ""
    return f"{'verified' if known else 'unpacked as it is'}, now in {folder}; its checksums are in checksums.json{note}"


def _folder_name(task: Task) -> str:
    return {"AX": "diagnostic", "IMDb": "aclImdb"}.get(task.name, task.name)


def fetch(remote: Remote, path: Path, tries: int = TRIES, wait_seconds: float = 1.0) -> Path:
    """`remote` at `path`, verified; the part that an interrupted run left at NAME.part is continued.

    A file that was put at `path` by hand is taken if it is the right one. DownloadError after `tries` failures, and at once where
    nothing is known that `remote` could be held against.
    """
    if path.is_file():
        _verify(remote, path)
        return path
    if not remote.sha256:
        raise DownloadError(f"{remote.url} is not fetched, since no checksum of it is known here; expected it as {path}")
    part = path.with_name(path.name + ".part")
    for attempt in range(1, tries + 1):
        resumed = part.exists()
        try:
            _stream(remote, part)
            _verify(remote, part)
            os.replace(part, path)
            return path
        except urllib.error.HTTPError as error:
            reason, final = f"HTTP {error.code} {error.reason}", error.code < 500 and error.code not in (408, 416, 429)
            if error.code == 416:                                  # the part does not fit the file on the server
                part.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException) as error:      # URLError, timeouts and resets are OSErrors
            cause = getattr(error, "reason", error)
            reason, final = str(cause) or type(error).__name__, isinstance(cause, socket.gaierror)      # no such host: no network
        except DownloadError as error:
            part.unlink(missing_ok=True)                           # an old part of another file may be to blame: start afresh
            reason, final = str(error), not resumed
        if final or attempt == tries:
            raise DownloadError(f"{remote.url}: {reason} (attempt {attempt} of {tries})")
        time.sleep(wait_seconds * 2 ** (attempt - 1))
    raise AssertionError("unreachable: the last attempt returns or raises")


def _stream(remote: Remote, part: Path) -> None:
    """Append what is missing to `part`. OSError where the connection ends early."""
    have = part.stat().st_size if part.exists() else 0
    if have >= remote.size:      # complete, or too much: _verify decides
        return
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        # Without Content-Range the server ignores ranges and sends the whole file.
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if continues else 0
        with part.open("ab" if continues else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if sys.stderr.isatty():
                    print(f"\r{remote.name} {100 * have / remote.size:5.1f} %", end="\r", file=sys.stderr, flush=True)
    if have < remote.size:
        raise ConnectionError(f"the connection ended after {have} of {remote.size} bytes")


def _verify(remote: Remote, path: Path) -> None:
    size, digest = path.stat().st_size, sha256_of(path)
    if remote.sha256 and (size, digest) != (remote.size, remote.sha256):
        raise DownloadError(f"{path}: expected {remote.size} bytes with sha256 {remote.sha256}, found {size} bytes with {digest}")


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assemble_mrpc(files: tuple[Path, Path, Path], target: Path) -> None:
    """Write GLUE's MRPC splits into `target` from (msr_paraphrase_train.txt, msr_paraphrase_test.txt, ids of the dev pairs).

    The pairs of the third file are the dev set, the other training pairs the train set, both in file order; the test set loses its labels.
    """
    corpus, test, ids = (tables.read_lines(path) for path in files)
    rows = [f"{index}\t{line.partition(chr(9))[2]}" for index, line in enumerate(test[1:])]
    splits = {"train.tsv": [corpus[0], *(corpus[i] for i in tables.mrpc_members(corpus, ids, dev=False))],
              "dev.tsv": [corpus[0], *(corpus[i] for i in tables.mrpc_members(corpus, ids, dev=True))],
              "test.tsv": ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows]}
    for name, lines in splits.items():
        (target / name).write_bytes(("\n".join(lines) + "\n").encode("utf-8"))


def _mrpc_files(remotes: tuple[Remote, ...], folder: Path, data_dir: Path) -> tuple[Path, Path, Path]:
    """The three inputs of assemble_mrpc: a corpus that lies in `folder` already, else the fetched one."""
    corpus = [folder / remote.name for remote in remotes[:2]]
    found = [path for path in corpus if path.is_file()]
    if len(found) == 1:      # a fetched half would mix tokenised with untokenised texts
        raise DownloadError(f"{found[0]} is there, but not its counterpart; put both {corpus[0].name} and {corpus[1].name} there, or none")
    if not found:
        corpus = [fetch(remote, data_dir / remote.name) for remote in remotes[:2]]
    own_ids = [folder / name for name in ("dev_ids.tsv", remotes[2].name) if (folder / name).is_file()]
    return corpus[0], corpus[1], own_ids[0] if own_ids else fetch(remotes[2], data_dir / remotes[2].name)


def _check_unpacked(task: Task, unpacked: Path, expected: dict[str, str]) -> dict[str, str]:
    """{folder/file: sha256} of the split files in `unpacked`. DownloadError where one is absent or not the expected one."""
    checksums = {}
    for split in task.splits:
        key, path = f"{unpacked.name}/{split.files[0]}", unpacked / split.files[0]
        if not find_file(split, unpacked):
            raise DownloadError(f"{key} is not in what was fetched, found {sorted(file.name for file in unpacked.iterdir())}")
        checksums[key] = source_fingerprint(task, path)
        if expected.get(key, checksums[key]) != checksums[key]:
            raise DownloadError(f"{key} as fetched has sha256 {checksums[key]}, but the file that is already there has "
                                f"{expected[key]}; nothing was changed. Move away what is there to take the fetched one")
    return checksums


def _move_in(unpacked: Path, folder: Path) -> None:
    """Make `folder` of `unpacked` in one rename, or add the files that an existing folder lacks."""
    if not folder.exists():
        os.rename(unpacked, folder)
    else:
        for path in unpacked.iterdir():
            if not (folder / path.name).exists():
                os.rename(path, folder / path.name)


def _recorded(data_dir: Path) -> dict[str, str]:
    path = data_dir / "checksums.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _record(data_dir: Path, checksums: dict[str, str]) -> None:
    """Add to DATA/checksums.json: {"CoLA/train.tsv": sha256}; written only where something is new."""
    before = _recorded(data_dir)
    if not checksums.items() <= before.items():
        temporary = data_dir / "checksums.json.part"
        temporary.write_text(json.dumps({**before, **checksums}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(temporary, data_dir / "checksums.json")


def _by_hand(task: Task, remotes: tuple[Remote, ...], data_dir: Path) -> str:
    return "\n".join(["  By hand: fetch in a browser and put there, then run this again:",
                      *(f"  {remote.url}  ->  {data_dir / remote.name}" for remote in remotes),
                      f"  or put {', '.join(split.files[0] for split in task.splits)} of a copy into {data_dir / _folder_name(task)}/.",
                      "  Without that folder the task is read from the Hugging Face Hub, where that can be reached."])


if __name__ == "__main__":
    sys.exit(main())
