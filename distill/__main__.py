"""python -m distill VERB ...: the command line. One line per mistake, status 1 or 2, no traceback."""

import difflib
import importlib
import logging
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext

VERBS = {"train": "train a recipe on a task: finetune (a teacher), sense_kd (a student), ...",
         "senses": "build, describe, score, import and export sense dictionaries",
         "evaluate": "score a checkpoint, own or downloaded",
         "convert": "a downloaded checkpoint as a folder that r2, r3 and every recipe take for a teacher",
         "bench": "measure speed against the obvious alternatives",
         "report": "collect scores of finished runs, print and render tables",
         "data": "name tasks, write the demo task, describe the tasks that are there, print what is held out, pack text to pre-train on"}


def usage() -> str:
    return "usage: python -m distill VERB ...\n" + "".join(f"  {verb:10}{text}\n" for verb, text in VERBS.items()) \
        + "python -m distill VERB --help says more."


def main(words: list[str]) -> int:
    """Run one verb; returns the exit status."""
    if not words or words[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    verb, *rest = words
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, VERBS, 1, 0)[0]
        print(f"unknown verb {verb!r}: did you mean {nearest}?\n{usage()}", file=sys.stderr)
        return 2
    first = os.environ.get("RANK", "0") == "0"  # torchrun's: what is the same on every rank is said once
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", str(verb == "data").lower())  # threads would be in the way of training's processes
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # waiting threads spin briefly: libgomp's own count is up to 50 times
    # slower on a shared machine, none at all a tenth slower on a quiet one
    for noisy in ("httpx2", "transformers", "huggingface_hub", "datasets", "filelock", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")  # states, changed by nobody
    try:
        with nullcontext() if verb == "data" else process_group():
            importlib.import_module(f"distill.verbs.{verb}").main(rest)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"error: {error}. This needs Python 3.11 or later, and the versions in requirements.txt: `sh scripts/setup.sh` makes .venv "
              "with them, which the scripts then use", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'interrupted: the same command goes on from the last checkpoint'}", file=sys.stderr)
        return 130
    return 0


@contextmanager
def process_group():
    """Join torchrun's process group for the verbs that compute; `data` needs no torch, which is slow to load."""
    from transformers.utils import logging as transformers_logging

    from distill import workers

    transformers_logging.disable_progress_bar()
    workers.start()
    try:
        yield
    except workers.FailedElsewhere:
        sys.exit(1)
    except RuntimeError as error:
        said = workers.failure(error)
        if not said:
            raise
        print(f"error: {said}", file=sys.stderr)
        if workers.world() > 1:
            workers.abandon()
        sys.exit(1)
    finally:
        workers.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
